"""Who is at work on what: a lock file that the kernel frees however its holder ends.

MLflow has no compare-and-set, so runs and studies are claimed here, and two processes never write the same one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from imgcls.errors import InputError

SECONDS_OF_A_LOOK = 0.1

_held: set[Path] = set()
"""What this process holds; the kernel's locks keep out other processes only."""


class ClaimedError(InputError):
    """Another process is at work on it; `pid` says which, where that is known."""

    def __init__(self, what: str, pid: str) -> None:
        self.pid = pid
        super().__init__(f"{what} is already running (process {pid or 'unknown'}); wait for it, or stop it")


@contextmanager
def claim(root: Path, name: str, what: str, patience: float = 0.0) -> Iterator[None]:
    """Holds a claim for the length of the block.

    Args:
        root: the project's root.
        name: of the claim, such as a run's id.
        what: for the message, such as `run 0123`.
        patience: seconds in which its present holder may let go.

    Raises:
        ClaimedError: somebody holds it, be it this very process.
    """
    path = _path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path in _held:
        raise ClaimedError(what, str(os.getpid()))
    file = _patiently(path, what, patience)
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


def claims_id(root: Path) -> str:
    """Names the folder of the claims: who writes another one into a run's tags shares none with us."""
    path = _path(root, "").with_name("id")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"id.{uuid4().hex}")
        aside.write_text(uuid4().hex, encoding="ascii")
        with suppress(FileExistsError):  # another process was faster
            os.link(aside, path)
        aside.unlink()
    return path.read_text(encoding="ascii")


def _patiently(path: Path, what: str, patience: float) -> int:
    deadline = time.monotonic() + max(patience, SECONDS_OF_A_LOOK)
    while True:
        try:
            return _locked(path, what)
        except ClaimedError:  # perhaps somebody only looks whether it is claimed
            if time.monotonic() > deadline:
                raise
            time.sleep(SECONDS_OF_A_LOOK / 5)


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
