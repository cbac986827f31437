"""Files: written aside, locked, linked, read up to the last whole line; also on file systems without locks or links."""

import errno
import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from imgcls.errors import InputError, ResourceError

HELD = {errno.EACCES, errno.EAGAIN}
"""Error numbers for a lock that another process holds (POSIX allows either)."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""Error numbers of a file system that has no locks, or whose lock service does not answer."""

NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}
"""Error numbers where a file cannot have a hard link: on FAT and exFAT, on some network mounts, after too many."""

WRITTEN_ASIDE = re.compile(r"\..+\.\d+")
"""Name of a file that `written_aside` writes: the number of its process stands at the end."""


class NoLocksError(ResourceError):
    """A file cannot be locked: its file system has no locks."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"the file system of {path} has no locks ({error.strerror}), without which two processes could write to "
            "one run; put the project on a local disk, or mount this one with locks (NFS needs its lock service)"
        )


def lock(file: int, path: Path, *, wait: bool) -> bool:
    """Locks an open file; the kernel frees the lock when this process closes the file or ends.

    A record lock, not flock's: processes forked from here, such as those that decode, do not inherit it.

    Returns:
        Whether it is ours; False where another process holds it and `wait` is not set.

    Raises:
        NoLocksError: the file system has none.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno in NO_LOCKS:
            raise NoLocksError(path, error) from error
        raise
    return True


def open_locked(path: Path) -> IO[bytes]:
    """Opens a file for reading and writing at its end, makes it if need be, and waits for its lock.

    Raises:
        NoLocksError: the file system has none.
    """
    file = path.open("a+b")
    try:
        lock(file.fileno(), path, wait=True)
    except BaseException:
        file.close()
        raise
    return file


def whole_lines(file: IO[bytes]) -> int:
    """Bytes of a file up to the end of its last whole line; a process that was killed while it wrote leaves more."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
    if not size or file.read(1) == b"\n":
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def check_locks(folder: Path) -> None:
    """A file is made in a folder and locked, to see whether files can be locked there; nothing is left of it.

    Raises:
        NoLocksError: the file system has none.
    """
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        lock(file.fileno(), folder, wait=False)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a hard link to a file, or a copy of it where the file system has no hard links.

    Raises:
        FileNotFoundError: the source does not exist.
        FileExistsError: there is a target.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with source.open("rb") as original, target.open("xb") as copy:
            shutil.copyfileobj(original, copy)


def put_in_place(aside: Path, path: Path) -> None:
    """Renames a file that was written aside, unless there is a file of the new name.

    Hold a lock: where the file system has no hard links, another process could make that file between the look and the
    renaming.

    Raises:
        FileExistsError: there is a file of that name.
    """
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        aside.rename(path)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A file written aside: gives a name beside `path`, whose file replaces `path` when the block ends.

    A block that fails leaves nothing; one whose process is killed leaves what `leftovers` finds.
    """
    aside = path.with_name(f".{path.name}{mark_of_this_process()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        with suppress(OSError):  # it is in place, or could not be written at all
            aside.unlink()


@contextmanager
def output_file(path: Path, option: str) -> Iterator[Path]:
    """A file for output that a user names: gives the name of an empty file beside it, which replaces it at the end.

    So a place where no file can be written is refused before the work. What is there and is not a plain file, such as a
    pipe, is written to as it is.

    Args:
        path: where it goes; a link stays, and the file that it names is replaced.
        option: that names it, for the error.

    Raises:
        InputError: no file can be written there.
    """
    # Of os.path, which takes what cannot be looked at for missing; writing then says why it cannot be.
    if os.path.isdir(path):  # noqa: PTH112
        raise InputError(f"{option} {path} is a folder; name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        yield path
        return
    target = Path(os.path.realpath(path))
    with written_aside(target) as aside:
        try:
            aside.touch()
            _remove_leftovers_of(target)
        except OSError as error:
            if not os.path.exists(target.parent):  # noqa: PTH110
                why = f"the folder {path.parent} does not exist; create it first"
                raise InputError(f"{option} {path}: {why}") from error
            raise InputError(f"{option} {path} cannot be written: {error.strerror}; name another place") from error
        yield aside


def _remove_leftovers_of(target: Path) -> None:
    """Removes what killed processes left of a file that they wrote aside for the same place."""
    for path in leftovers(target.parent):
        if path.name.startswith(f".{target.name}.{socket.gethostname()}."):
            path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Files and folders written aside that were left in a folder by processes of this machine, when they were killed.

    Those of other machines are left out: whether a process lives there cannot be seen from here.
    """
    found = []
    for path in sorted(folder.glob(".*")):
        name, mark, pid = path.name.rpartition(f".{socket.gethostname()}.")
        if mark and name and pid.isdecimal() and not _is_alive(int(pid)):
            found.append(path)
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def mark_of_this_process() -> str:
    """The ending of a file's name while this process writes it aside: its machine and its number."""
    return f".{socket.gethostname()}.{os.getpid()}"
