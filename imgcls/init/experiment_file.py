"""The experiment file as it is written: what was found, then every chosen value below its reason."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from imgcls.config.keys import Experiment
from imgcls.config.load import load_experiment
from imgcls.config.toml import as_toml, toml_key
from imgcls.errors import ConfigError
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
    """Writes an experiment file where none is, and reads it back.

    Raises:
        ConfigError: there is one already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise already_there(path) from error
    loaded = load_experiment(path)
    if loaded != proposal.experiment:
        raise RuntimeError(f"{path} does not hold what was chosen")  # a mistake of ours
    return loaded


def already_there(path: Path) -> ConfigError:
    """The error of an experiment file that exists: nothing is overwritten."""
    shown = os.path.relpath(path)
    return ConfigError(f"{shown} exists, and init overwrites nothing; give another NAME, or move that file away")


def _choice(choice: Choice) -> Iterable[str]:
    if choice.reason:
        yield from _comment(choice.reason)
    line = f"{_last(choice.key)} = {as_toml(choice.value)}"
    yield f"# {line}" if choice.is_question else line


def _table(key: str) -> str:
    return SPACE.removesuffix(".") if key.startswith(SPACE) else key.rpartition(".")[0]


def _last(key: str) -> str:
    if key.startswith(SPACE):
        return toml_key(key.removeprefix(SPACE))
    return key.rpartition(".")[2]


def _comment(text: str, *, hanging: bool = False) -> list[str]:
    """A text as lines of a comment, which no character of a name can end."""
    line = " ".join(printable(text).split())
    return textwrap.wrap(
        line, WIDTH, initial_indent="# ", subsequent_indent="#   " if hanging else "# ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
