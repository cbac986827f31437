"""Explain the keys of an experiment file."""

from __future__ import annotations

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJsonList
from imgcls.cli.output import print_json, write


def keys(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Only keys that begin so, such as train.")] = "",
    as_json: AsJsonList = False,
) -> None:
    """Explain every key of an experiment file, with its default as a file has it.

    Example: imgcls keys data
    """
    from imgcls.config.load import keys_begun_by

    found = keys_begun_by(prefix)
    if as_json:
        print_json([{"key": key, "default": default, "meaning": meaning} for key, default, meaning in found])
        return
    for key, default, meaning in found:
        write(f"{key} = {default}\n    {meaning}")
