"""Explain the keys of an experiment file."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJsonList
from imgcls.cli.output import answer


def keys(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Only keys that begin so, such as train.")] = "",
    as_json: AsJsonList = False,
) -> None:
    """Explain every key of an experiment file, with its default as a file has it.

    Example: imgcls keys data
    """
    from imgcls.config.key_table import config_table

    found = config_table(prefix)
    facts = [{"key": key, "default": default, "meaning": meaning} for key, default, meaning in found]
    text = "\n".join(f"{key} = {default}\n    {meaning}" for key, default, meaning in found)
    answer(facts, text, as_json=as_json)
