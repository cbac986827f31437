"""Writes the list of files into docs/architecture.md, from their docstrings: `python docs/architecture.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
PACKAGE = Path(__file__).parent.parent / "imgcls"
ROOMS = (
    "cli", "config", "init", "data", "data/sources", "models", "training", "runs", "search", "evaluation", "inference",
    "statistics", "reporting", "tracking", "library", "",
)  # fmt: skip
"""Folders of the package in the order of the page."""
FILES = re.compile(r"(?<=<!-- files -->\n).*(?=<!-- end of files -->)", re.DOTALL)
"""The part of the page that is written here."""


def page(text: str) -> str:
    """The page `text` with the list of files as they are now."""
    return FILES.sub(lambda _: "\n".join(["", *map(_room, ROOMS)]), text)


def _room(name: str) -> str:
    """A heading with what the room is for, and a table of its files."""
    folder = PACKAGE / name
    heading = f"### {name}/\n\n{_purpose(folder / '__init__.py')}" if name else "### Beside the rooms"
    paths = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py" or not name)
    rows = [f"| `imgcls/{path.relative_to(PACKAGE)}` | {_purpose(path)} |" for path in paths]
    return "\n".join([f"{heading}\n", "| file | what is in it |", "|---|---|", *rows, ""])


def _purpose(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
