"""Files that are at any instant whole, the old or the new one: written aside and renamed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what stands there takes the place of `path` when the block ends.

    A block that fails leaves nothing; one whose process is killed leaves what `leftovers` finds.
    """
    aside = path.with_name(f".{path.name}{_mark()}{os.getpid()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """What writers of this machine that were killed have left half-written in a folder.

    What a process of another machine writes is not among it: whether that one still lives cannot be seen from here.
    """
    found = []
    for path in sorted(folder.glob(".*")):
        name, mark, pid = path.name.rpartition(_mark())
        if mark and name and pid.isdecimal() and not is_alive(int(pid)):
            found.append(path)
    return found


def is_alive(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _mark() -> str:
    return f".{socket.gethostname()}."
