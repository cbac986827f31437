"""Explain the keys of an experiment file."""

from __future__ import annotations

from imgcls.cli.output import write


def keys() -> None:
    """Explain every key of an experiment file, with its default.

    Example: imgcls keys
    """
    from imgcls.config import config_table

    for key, default, meaning in config_table():
        write(f"{key} = {default}\n    {meaning}")
