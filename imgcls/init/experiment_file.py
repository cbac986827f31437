"""The experiment file as it is written: what was found, then every chosen value below its reason."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from imgcls.config.keys import Experiment
from imgcls.config.load import load_experiment
from imgcls.config.toml import as_toml, toml_key
from imgcls.errors import ConfigError
from imgcls.files import link_or_copy, mark_of_this_process
from imgcls.init.choices import Choice, Proposal
from imgcls.text import printable

WIDTH = 110
"""Characters of a line."""


SPACE = "search.space."
"""How the keys begin that a sweep searches."""


def experiment_text(proposal: Proposal, found: Sequence[tuple[str, str]], title: str) -> str:
    """The text of an experiment file.

    Args:
        proposal: what it proposes.
        found: what was found, (what, words), which stands at its top.
        title: the first line.
    """
    lines = [*_comment(title), "#", f"#     imgcls sweep {proposal.name}", "#"]
    for what, words in found:
        lines += _comment(f"{what}: {words}", hanging=True)
    lines += ["#", *_comment("`imgcls keys` explains every key."), f"name = {as_toml(proposal.name)}"]
    for table, choices in groupby(proposal.choices, key=lambda choice: _table(choice.key)):
        lines += ["", f"[{table}]", *(line for choice in choices for line in _choice(choice))]
    return "\n".join(lines) + "\n"


def write_experiment(path: Path, text: str, proposal: Proposal) -> Experiment:
    """Writes a new experiment file whole or not at all, and checks that it loads as what was chosen.

    Raises:
        ConfigError: the file exists already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}{mark_of_this_process()}")
    try:
        aside.write_text(text, encoding="utf-8")
        loaded = load_experiment(aside)
        if loaded != proposal.experiment:
            raise RuntimeError(f"{path} does not hold what was chosen")  # a mistake of ours
        link_or_copy(aside, path)
    except FileExistsError as error:
        raise already_there(path) from error
    finally:
        aside.unlink(missing_ok=True)
    return loaded


def already_there(path: Path) -> ConfigError:
    """The error of an experiment file that exists: nothing is overwritten."""
    shown = os.path.relpath(path)
    return ConfigError(f"{shown} exists, and init overwrites nothing; give another NAME, or move that file away")


def _choice(choice: Choice) -> Iterable[str]:
    yield from _comment(choice.reason)
    line = f"{_last(choice.key)} = {_readable(choice.value)}"
    yield f"# {line}" if choice.is_question else line


def _readable(value: Any) -> str:
    """The TOML of a value; of a regular expression without doubled backslashes where that can be."""
    is_literal = isinstance(value, str) and "\\" in value and "'" not in value and value.isprintable()
    return f"'{value}'" if is_literal else as_toml(value)


def _table(key: str) -> str:
    return SPACE.removesuffix(".") if key.startswith(SPACE) else key.rpartition(".")[0]


def _last(key: str) -> str:
    if key.startswith(SPACE):
        return toml_key(key.removeprefix(SPACE))
    return key.rpartition(".")[2]


def _comment(text: str, *, hanging: bool = False) -> list[str]:
    """A text as the lines of a comment. Line breaks in names are escaped, so that they cannot end the comment."""
    line = " ".join(printable(text).split())
    return textwrap.wrap(
        line, WIDTH, initial_indent="# ", subsequent_indent="#   " if hanging else "# ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
