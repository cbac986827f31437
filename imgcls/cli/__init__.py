"""Verbs: parse, call, print; nothing else."""

from imgcls.cli.app import app, main

__all__ = ["app", "main"]
