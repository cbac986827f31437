"""Tables and paragraphs in Markdown, tables for the shell."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from imgcls.reporting.rounding import UNDEFINED


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown of a header and rows; whatever would be read as markup in a cell is escaped."""
    body = [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in (header, *rows)]
    return "\n".join((body[0], f"|{' --- |' * len(header)}", *body[1:]))


def terminal_table(rows: Sequence[tuple[str, str]]) -> str:
    """A table of (name, value) in two columns for the terminal; further lines of a value are indented to its column."""
    width = max((len(name) for name, _ in rows), default=0)
    line_break = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value}".rstrip().replace("\n", line_break) for name, value in rows)


def document(*blocks: str) -> str:
    """Joins tables and other blocks of Markdown to one text."""
    return "\n\n".join(blocks) + "\n"


def frame_table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    rows = frame.astype(object).itertuples(index=False, name=None)
    return markdown_table([str(column) for column in frame.columns], [[shown(cell) for cell in row] for row in rows])


def shown(value: object) -> str:
    """A cell of a table; a dash for what is missing."""
    if value is None or value is pd.NA or value != value:  # NaN alone differs from itself
        return UNDEFINED
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shell(command: str) -> str:
    """A block of Markdown that stands beside tables: a shell command."""
    return f"```sh\n{command}\n```"


def escaped(text: str) -> str:
    """A text as one line of a Markdown table or paragraph, with its markup escaped."""
    line = " ".join(text.split())
    return re.sub(r"[\\`*<>\[\]|]|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", line)
