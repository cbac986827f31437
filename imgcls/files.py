"""Locks and second names of files, also on file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from imgcls.errors import ResourceError

HELD = {errno.EACCES, errno.EAGAIN}
"""What the system says of a lock that another process holds (POSIX allows either)."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What it says where the file system has no locks, or its lock service does not answer."""

NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}
"""What it says where a file cannot have a second name: on FAT and exFAT, on some network mounts, after too many."""


class NoLocksError(ResourceError):
    """A file system on which two processes cannot be kept apart."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"the file system of {path} has no locks ({error.strerror}), without which two processes could write to "
            "one run; put the project on a local disk, or mount this one with locks (NFS needs its lock service)"
        )


def lock(file: int, path: Path, *, wait: bool) -> bool:
    """Takes the lock of an open file, which the kernel frees when this process closes it or ends.

    A record lock, not flock's: processes forked from here, such as those that decode, do not inherit it.

    Args:
        file: open for writing.
        path: of the file, for the message.
        wait: until it is free.

    Returns:
        Whether it is ours; False where another process holds it.

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


def check_locks(folder: Path) -> None:
    """Tries a lock in a folder, and leaves nothing there; does nothing where nothing may be written.

    Raises:
        NoLocksError: the file system has none.
    """
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        lock(file.fileno(), folder, wait=False)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name, or makes a copy where the file system has no second names.

    Args:
        source: a file.
        target: must not exist.

    Raises:
        FileNotFoundError: there is no source.
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
    """Renames a file, unless another one has its new name.

    Where the file system has no second names, another process could be faster between the look and the renaming: hold
    a lock.

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
