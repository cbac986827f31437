"""Stamps of a source's files, which name what is cached of them: by their content, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgcls.data.cache_folder import remember
from imgcls.data.decode_workers import in_threads, pieces_of
from imgcls.data.image_set import hash_of

FILES_OF_A_PIECE = 100
"""Most files that a thread reads at a time."""


@dataclass(frozen=True)
class Stamp:
    """The stamp of some files.

    Attributes:
        of_content: equal wherever files of the same names and bytes lie, so that machines with other paths share what
            is cached of them.
        of_place: path, size and times of each file; earlier versions named cache entries by it.
        paths: of the files.
    """

    of_content: str
    of_place: str
    paths: tuple[Path, ...]

    def is_outdated(self) -> bool:
        """Whether a file was moved, replaced or written to since, even if its time is set back."""
        return _place(self.paths) != self.of_place


def stamp_of(paths: Sequence[Path], root: Path) -> Stamp:
    """Stamps files by their content. They are read once: the cache folder remembers the result by their place.

    Args:
        paths: of the files, in order; one that cannot be read counts as missing, and reading it says why.
        root: to which their names are relative.
    """
    place = _place(paths)
    content = remember(f"content-{place[:32]}.txt", lambda: _content(paths, root))
    return Stamp(content, place, tuple(paths))


def _content(paths: Sequence[Path], root: Path) -> str:
    def digests(rows: range) -> list[str]:
        return [_line(paths[row], root) for row in rows]

    pieces = in_threads(digests, pieces_of(len(paths), FILES_OF_A_PIECE))
    return hash_of(*(line for lines in pieces for line in lines))


def _line(path: Path, root: Path) -> str:
    digest = "missing"
    with suppress(OSError):
        if path.is_file():  # opening a pipe or a terminal may wait forever
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.relative_to(root).as_posix()}|{digest}"


def _place(paths: Sequence[Path]) -> str:
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            lines.append(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}")
        except OSError:  # a dangling link; reading it says so
            lines.append(f"{path.absolute()}|missing")
    return hash_of(*lines)
