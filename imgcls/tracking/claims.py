"""Who is at work on what: a lock file that the kernel frees however its holder ends.

MLflow has no compare-and-set, so runs and studies are claimed here, and two processes never write the same one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgcls.errors import InputError

LOOKS, SECONDS_OF_A_LOOK = 5, 0.02

_held: set[Path] = set()
"""What this process holds; the kernel's locks keep out other processes only."""


class ClaimedError(InputError):
    """Another process is at work on it; `pid` says which, where that is known."""

    def __init__(self, what: str, pid: str) -> None:
        self.pid = pid
        super().__init__(f"{what} is already running (process {pid or 'unknown'}); wait for it, or stop it")


@contextmanager
def claim(root: Path, name: str, what: str) -> Iterator[None]:
    """Holds a claim for the length of the block.

    Args:
        root: the project's root.
        name: of the claim, such as a run's id.
        what: for the message, such as `run 0123`.

    Raises:
        ClaimedError: somebody holds it, be it this very process.
    """
    path = _path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path in _held:
        raise ClaimedError(what, str(os.getpid()))
    file = _patiently(path, what)
    _held.add(path)
    try:
        os.write(file, str(os.getpid()).encode())
        yield
    finally:
        _held.discard(path)
        path.unlink(missing_ok=True)
        os.close(file)


def is_claimed(root: Path, name: str) -> bool:
    """Whether a living process of this machine holds a claim."""
    path = _path(root, name)
    if path in _held:
        return True
    try:
        os.close(_locked(path, name, create=False))
    except FileNotFoundError:
        return False
    except ClaimedError:
        return True
    return False


def _patiently(path: Path, what: str) -> int:
    for _ in range(LOOKS):
        try:
            return _locked(path, what)
        except ClaimedError:  # perhaps somebody only looks whether it is claimed
            time.sleep(SECONDS_OF_A_LOOK)
    return _locked(path, what)


def _locked(path: Path, what: str, *, create: bool = True) -> int:
    """An open, locked file, empty, that stands under its name."""
    while True:
        # A record lock, not flock: processes forked from here, such as those that decode, must not inherit it.
        file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(file, 20).decode()
            os.close(file)
            raise ClaimedError(what, pid) from error
        # Whoever held it before has removed its name; a lock on a file without a name keeps nobody out.
        if _stands(file, path):
            os.ftruncate(file, 0)
            return file
        os.close(file)


def _stands(file: int, path: Path) -> bool:
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _path(root: Path, name: str) -> Path:
    return root.resolve() / "mlruns" / ".claims" / f"{name}.lock"
