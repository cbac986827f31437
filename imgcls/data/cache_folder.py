"""The folder of decoded images: its entries, its budget, and what is removed from it."""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO

from pydantic import ByteSize, TypeAdapter, ValidationError

from imgcls.errors import ConfigError, DataError, Interrupted
from imgcls.files import NoLocksError, lock
from imgcls.signals import stop_requested
from imgcls.terminal import waiting

ASIDE = "building-"
"""Beginning of the names of what is being built or removed."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a write after which what a killed process left half-built is removed."""

SECONDS_BETWEEN_LOOKS = 0.2
"""Seconds between two looks whether another process, or thread, still builds an entry of the cache."""

_built_here: dict[Path, object] = {}
"""A token for each lock that a thread of this process has; the kernel's locks keep out other processes only."""

os.register_at_fork(after_in_child=_built_here.clear)  # a child has none of these threads

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a disk that is full, or full for this user or process."""

NOT_WRITABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""Error numbers of a folder that cannot be written to."""


def cache_folder() -> Path:
    """The cache folder: `IMGCLS_CACHE`, else `imgcls` in the user's own folder for caches.

    Raises:
        DataError: there is none, because this user, or the one who is named, has no home folder.
    """
    named = os.environ.get("IMGCLS_CACHE")
    try:
        if named:
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgcls"
    except RuntimeError:
        who = (
            f"IMGCLS_CACHE = {named!r} names a home folder that is not there"
            if named
            else "this user has no home folder"
        )
        raise DataError(f"{who}, so decoded images have no place; name a folder in IMGCLS_CACHE") from None


def remember(name: str, make: Callable[[], str]) -> str:
    """The cache folder's text under a name, made where it is not there; the name tells all that it depends on.

    A folder that cannot be written is as good to read: what is not there is then made each time.

    Raises:
        DataError: the folder does not exist and cannot be made.
    """
    path = cache_folder() / name
    if path.is_file():
        return path.read_text(encoding="utf-8")
    text = make()
    try:
        with writing() as folder, tempfile.TemporaryDirectory(prefix=ASIDE, dir=folder) as aside:
            whole = Path(aside, name)
            whole.write_text(text, encoding="utf-8")
            whole.replace(path)
    except DataError:
        if not path.parent.is_dir():
            raise
    return text


@contextmanager
def writing() -> Iterator[Path]:
    """The cache folder, made if need be; an error of the folder itself, such as a full disk, becomes a DataError."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        if not _is_of_folder(error, folder):
            raise
        room = "make room, or " if error.errno in NO_ROOM else ""
        raise DataError(
            f"the cache of decoded images cannot be written to {folder}: {error.strerror or error}; "
            f"{room}name another folder in IMGCLS_CACHE"
        ) from error


@contextmanager
def only_one(name: str, work: str) -> Iterator[None]:
    """Lets one thread of this machine at a time build an entry of the cache folder, in a block; the others wait.

    On a file system without locks no process waits for another, and each builds the entry for itself.

    Args:
        name: of the entry.
        work: what the one that is waited for does, such as `decodes these images`.

    Raises:
        Interrupted: a stop was requested meanwhile.
    """
    path = cache_folder() / f"{ASIDE}{name}.lock"
    with _alone_here(path, f"another thread {work}"), _alone(path, f"another process {work}"):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _alone_here(path: Path, other: str) -> Iterator[None]:
    """Keeps the other threads of this process from a file: to close it would give up the lock of the whole process."""
    token = object()
    _wait_for(lambda: _built_here.setdefault(path, token) is token, other)
    try:
        yield
    finally:
        _built_here.pop(path, None)


@contextmanager
def _alone(path: Path, other: str) -> Iterator[None]:
    """Holds the lock of a file. Its last holder removed the file, and the lock of a removed file keeps nobody out."""
    while True:
        with path.open("a+b") as file:
            with suppress(NoLocksError):
                _wait_for(partial(lock, file.fileno(), path, wait=False), other)
            if _is_at(path, file):
                os.utime(path)  # a killed process may have left it long ago
                yield
                return


def _wait_for(attempt: Callable[[], bool], other: str) -> None:
    """Tries again until it succeeds."""
    with waiting(other):
        while not attempt():
            if by := stop_requested():
                raise Interrupted(f"stopped by {by}: {other}")
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _is_of_folder(error: OSError, folder: Path) -> bool:
    """Whether an error is about the cache folder, and not about an image or a limit of this process."""
    elsewhere = isinstance(error.filename, str) and not Path(error.filename).is_relative_to(folder)
    return error.errno in NO_ROOM | NOT_WRITABLE and not (elsewhere and folder.is_dir())


# --- what there is, and how much of it there may be ----------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """An entry of the cache folder.

    Attributes:
        path: of its folder, or of its file.
        num_bytes: that it takes.
        used: seconds since 1970 of its last use.
        about: what it was made from, in words.
    """

    path: Path
    num_bytes: int
    used: float
    about: str

    @property
    def last_used(self) -> str:
        """Time of the last use in words, in UTC like every other time that is printed."""
        return f"{datetime.fromtimestamp(self.used, UTC):%Y-%m-%d %H:%M} UTC"

    def flat(self) -> dict[str, object]:
        """The entry as plain values for `--json`."""
        used = datetime.fromtimestamp(self.used, UTC).isoformat()
        return {"path": str(self.path), "num_bytes": self.num_bytes, "last_used": used, "about": self.about}


def entries() -> list[Entry]:
    """Entries of the cache folder, the most recently used first, without those that are being built."""
    folder = cache_folder()
    found = [_entry(path) for path in (folder.iterdir() if folder.is_dir() else ()) if not path.name.startswith(ASIDE)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.used)


def prune(most_bytes: int) -> list[Entry]:
    """Prunes the cache folder: removes its least recently used entries until the others take no more than so much.

    A process that is reading one of them goes on: its map outlives the file's name.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    left = entries()
    total, removed = sum(entry.num_bytes for entry in left), []
    while left and total > most_bytes:
        entry = left.pop()
        with writing():
            remove_entry(entry.path)
        total -= entry.num_bytes
        removed.append(entry)
    return removed


def budget() -> int:
    """Bytes that the cache folder may take: `IMGCLS_CACHE_BYTES`, else half of what its disk has left for it.

    Raises:
        ConfigError: a value that is not a size.
    """
    if named := os.environ.get("IMGCLS_CACHE_BYTES"):
        return parse_size(named, "IMGCLS_CACHE_BYTES")
    folder = cache_folder()
    while not folder.is_dir():
        folder = folder.parent
    return (shutil.disk_usage(folder).free + sum(entry.num_bytes for entry in entries())) // 2


def size_in_words(num_bytes: int) -> str:
    """The size of the cache folder, or of an entry, in words, such as `1.2GB`."""
    return ByteSize(num_bytes).human_readable(decimal=True)


def parse_size(text: str, name: str) -> int:
    """The size of the cache folder, as `20GB`, `512MiB` or `0`, in bytes.

    Raises:
        ConfigError: naming where the text stands.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ConfigError(
            f"{name} = {text!r} is not a size; write a number with a unit, such as 20GB or 512MiB"
        ) from None


def _entry(path: Path) -> Entry | None:
    try:
        if path.is_file():
            about = "what was found out about a set of images"
            return Entry(path, path.stat().st_size, path.stat().st_mtime, about)
        about = json.loads((path / "meta.json").read_text(encoding="utf-8")).get("about", "an earlier version's")
        num_bytes = sum(file.stat().st_size for file in path.iterdir())
        return Entry(path, num_bytes, path.stat().st_mtime, about)
    except FileNotFoundError:  # removed by another process
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(path, 0, 0.0, "something unknown")


def remove_entry(path: Path) -> None:
    """Removes an entry of the cache folder: it loses its name at once, then its files one by one."""
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=path.parent))
    with suppress(FileNotFoundError):
        path.rename(aside / "removed")
    shutil.rmtree(aside, ignore_errors=True)


def abandoned() -> list[Path]:
    """The cache folder's half-built entries and their locks, which killed processes left; see `remove_abandoned`.

    A lock that is removed while a process builds for longer than `ABANDONED_AFTER` lets another one build beside it.
    """
    found = []
    for aside in cache_folder().glob(f"{ASIDE}*"):
        try:
            files = aside.iterdir() if aside.is_dir() else ()
            last_write = max(path.stat().st_mtime for path in (aside, *files))
        except OSError:  # it is being finished, or cleared, by another process
            continue
        if time.time() - last_write > ABANDONED_AFTER:
            found.append(aside)
    return found


def remove_abandoned() -> None:
    """Removes from the cache folder what killed processes left, as the next process does that builds an entry."""
    for path in abandoned():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
