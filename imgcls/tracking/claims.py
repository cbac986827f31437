"""Claims on runs and studies: a lock file for each, which the kernel frees however its holder ends.

MLflow has no compare-and-set, so runs and studies are claimed here, and two processes never write the same one.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from imgcls.errors import InputError
from imgcls.files import lock, open_locked
from imgcls.project import MLRUNS
from imgcls.tracking.folder_identity import FolderIdentity

CLAIMS = ".claims"
"""Folder in `mlruns/` with a lock for each run, sweep and study that a process holds."""

SECONDS_OF_A_LOOK = 0.1

_held: set[Path] = set()
"""What this process holds; the kernel's locks keep out other processes only."""


class ClaimedError(InputError):
    """The claim on a run or study is held by another process, or may be."""


def out_of_sight(what: str, host: str, pid: str, seconds: float) -> ClaimedError:
    """A claim that a process out of sight may hold: the error, which says in how many seconds it counts as gone."""
    return ClaimedError(
        f"{what} may be running: process {pid} of {host} cannot be seen from here (another machine, or another copy of "
        f"this folder) and was alive not long ago; it counts as gone in {seconds:.0f} s unless it says that it lives"
    )


def _seen(what: str, pid: str) -> ClaimedError:
    """The error for a claim that a process of this machine holds; "" for one that has not written its number yet."""
    return ClaimedError(f"{what} is already running (process {pid or 'unknown'}); wait for it, or stop it")


@contextmanager
def claim(root: Path, name: str, what: str, patience: float = 0.0, *, takes_over: bool = False) -> Iterator[None]:
    """Holds the claim on a run or study for the length of the block.

    Args:
        root: the project's root.
        name: of the claim, such as a run's id.
        what: for the message, such as `run 0123`.
        patience: seconds in which its present holder may let go.
        takes_over: whether it is taken from a holder that does not, which has lost its right to it.

    Raises:
        ClaimedError: somebody holds it, be it this very process.
        NoLocksError: the file system has no locks.
    """
    path = _path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path in _held:
        raise _seen(what, str(os.getpid()))
    file = _patiently(path, what, patience, takes_over=takes_over)
    _held.add(path)
    try:
        os.write(file, str(os.getpid()).encode())
        yield
    finally:
        _held.discard(path)
        if _stands(file, path):  # else somebody has taken it over
            path.unlink(missing_ok=True)
        os.close(file)


def is_claimed(root: Path, name: str) -> bool:
    """Whether a living process of this machine holds the claim on a run or study."""
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
    """A project's claims on this machine have this id; a copy of the project has another.

    A run whose tag has another id is not claimed here.
    """
    folder = _path(root, "").parent
    folder.mkdir(parents=True, exist_ok=True)
    return FolderIdentity.of(folder).digest(salt=_drawn(folder / "id"))


def _drawn(path: Path) -> str:
    """The text of a file, which is drawn at random when it is first asked for."""
    if path.is_file() and (text := path.read_text(encoding="ascii")):
        return text
    with open_locked(path) as file:  # another process may be drawing it
        file.seek(0)
        if not (text := file.read().decode("ascii")):
            text = uuid4().hex
            file.write(text.encode())
        return text


def _patiently(path: Path, what: str, patience: float, *, takes_over: bool) -> int:
    deadline = time.monotonic() + max(patience, SECONDS_OF_A_LOOK)
    while True:
        try:
            return _locked(path, what)
        except ClaimedError:  # perhaps somebody only looks whether it is claimed
            if time.monotonic() > deadline:
                if not takes_over:
                    raise
                path.unlink(missing_ok=True)  # a lock on a file without a name keeps nobody out
            time.sleep(SECONDS_OF_A_LOOK / 5)


def _locked(path: Path, what: str, *, create: bool = True) -> int:
    """An open, locked file, empty, that stands under its name."""
    while True:
        file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
        try:
            if not lock(file, path, wait=False):
                raise _seen(what, os.read(file, 20).decode())
        except BaseException:
            os.close(file)
            raise
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
    return root.resolve() / MLRUNS / CLAIMS / f"{name}.lock"
