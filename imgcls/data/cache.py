"""Decode once: every image of a table becomes uint8 on disk, memory-mapped ever after.

A cache entry is a folder named by what it was made from. It is written aside and renamed, so a reader sees a
whole one or none, and its checksums are looked at when it is opened. Where an entry would not fit the budget, the
least recently used ones make room; a data set larger than the budget keeps only its hashes on disk and is decoded again
each time. Pixels that are not to stay (a test split) only ever lie in a file without a name, which ends with the
process, however that ends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ByteSize, TypeAdapter, ValidationError
from tqdm import tqdm

from imgcls import terminal
from imgcls.config import Fit
from imgcls.data.ahead import CAN_FORK, ahead, cores
from imgcls.data.decode import (
    SEVERAL_FRAMES,
    UnreadableImageError,
    digest,
    resize_squares,
    shrunk,
    thumbnail_and_squares,
)
from imgcls.data.formats import FORMATS
from imgcls.data.labelled import LabelledImages, Pixels, gather, moments
from imgcls.data.likeness import SIDE, SKETCH_BYTES, sketches, thumbnail
from imgcls.data.sources import ImageTable
from imgcls.data.undecoded import Undecoded
from imgcls.errors import ConfigError, DataError
from imgcls.shown import counted

log = logging.getLogger(__name__)

FORMAT = "10"
"""Part of every key: raise it when the pixels or hashes that decoding gives change."""

ASIDE = "building-"
"""How the names begin of what is being built, and of what is being removed."""

PIECE_BYTES = 2**22
"""Squares that one piece of work makes."""

SECONDS_PER_IMAGE, SECONDS_PER_PIXEL = 0.3e-3, 15e-9
"""What decoding and hashing took on one core of an AMD EPYC: 0.33 ms of a 28 x 28 PNG, 2.3 ms of 300 x 300 grey, 3.1 ms
of a 450 x 400 JPEG, 130 ms of 12 megapixels (2026-11-23)."""

TYPICAL_PIXELS = 640 * 480
"""Of an image of which nothing is known."""

WORTH_PROCESSES = 1.0
"""Seconds of work that pay for one more process: to start two took 0.1, and then the parent writes more slowly."""

WORTH_THREADS = 1e-3
"""Seconds for an image from which on threads pay; with smaller ones they wait for one another, see `ahead`."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a write after which what a killed process left half-built is cleared away."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says of a disk that is full, or full for this user or process."""

NOT_WRITABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""What it says of a folder that cannot be written to."""

BLOCK_BYTES = 2**24
"""What one checksum is of."""

CHECKED_BLOCKS = 16
"""Blocks of a file that opening an entry reads, spread over it: all of 256 MiB, and a tenth of a second of more."""


@dataclass(frozen=True)
class Decoded:
    """A decoded table.

    Attributes:
        digests: uint8 (N, 32), SHA-256 of each image's source pixels; zeros where unreadable.
        sketches: uint8 (N, 272), see `likeness`; zeros where unreadable.
        several_frames: bool (N,), whether an image is the first of several frames or pages of its file.
        sizes: int32 (N, 2), width and height of each image; zeros where unreadable, and where no pixels are asked for.
        moments: int64 (N, C, 2), sum and sum of squares of each channel of each square; zeros where unreadable.
        kept: int64 (M,), rows of the table whose pixels are here, ascending.
        images: uint8 (M, C, side, side), memory-mapped, or decoded at each access if the budget has no room for them.
        unreadable: (row, reason) of each image left out.
    """

    digests: NDArray[np.uint8]
    sketches: NDArray[np.uint8]
    several_frames: NDArray[np.bool_]
    sizes: NDArray[np.int32]
    moments: NDArray[np.int64]
    kept: NDArray[np.int64]
    images: Pixels
    unreadable: tuple[tuple[int, str], ...]

    def labelled(self, table: ImageTable) -> LabelledImages:
        """The kept rows of the table, decoded."""
        rows = self.kept
        return LabelledImages(
            self.images,
            table.labels[rows],
            tuple(table.keys[row] for row in rows),
            self.digests[rows],
            sketches=self.sketches[rows],
            groups=tuple(table.groups[row] for row in rows) if table.groups else (),
            moments=self.moments[rows],
        )

    @property
    def num_several_frames(self) -> int:
        """Of the kept images, how many are the first frame or page of several."""
        return int(self.several_frames[self.kept].sum())

    def offenders(self, table: ImageTable) -> list[str]:
        """`path: reason` of each unreadable image."""
        return [f"{table.path(row)}: {reason}" for row, reason in self.unreadable]


Keep = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.bool_]]
"""(digests (N, 32), readable (N,)) -> which rows' pixels to keep."""

In = TypeVar("In")
Out = TypeVar("Out")


def cache_folder() -> Path:
    """`IMGCLS_CACHE`, else `imgcls` in the user's cache folder.

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


def decode(
    table: ImageTable,
    side: int,
    channels: int,
    *,
    fit: Fit = "crop",
    keep: Keep | None = None,
    keep_name: str = "all",
    title: str = "",
) -> Decoded:
    """Decodes a table to squares of one size; see `decode_sides`."""
    (decoded,) = decode_sides(table, (side,), channels, fit=fit, keep=keep, keep_name=keep_name, title=title)
    return decoded


def decode_sides(
    table: ImageTable,
    sides: Sequence[int],
    channels: int,
    *,
    fit: Fit = "crop",
    keep: Keep | None = None,
    keep_name: str = "all",
    title: str = "",
) -> tuple[Decoded, ...]:
    """Decodes a table to squares of each of these sides in one pass, or maps what earlier calls left.

    Args:
        table: N images.
        sides: of the squares, in pixels, in order of priority: the first ones get what room there is. 0 keeps only
            hashes, no pixels.
        channels: 1 or 3.
        fit: how an image becomes a square.
        keep: chooses the rows whose pixels are written, out of the readable ones; all of them by default.
        keep_name: names that choice in the cache's key.
        title: what the progress bar says.

    Returns:
        One for each side, all of the same rows.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    recipes = [_Recipe(table, side, channels, fit, keep_name) for side in dict.fromkeys(sides)]
    found = {recipe.side: _open(recipe) for recipe in recipes}
    if missing := [recipe for recipe in recipes if found[recipe.side] is None]:
        with _writing():
            for aside in abandoned():
                shutil.rmtree(aside, ignore_errors=True)
            missing = _within_budget(missing, beside=[recipe for recipe in recipes if recipe not in missing])
            found |= {recipe.side: _open(recipe) for recipe in missing}  # its hashes alone may be there
            if missing := [recipe for recipe in missing if found[recipe.side] is None]:
                _build(missing, keep, title)
                found |= {recipe.side: _open(recipe) for recipe in missing}
    decoded = tuple(one for one in map(found.get, sides) if one is not None)
    if len(decoded) < len(sides):
        raise DataError(
            f"what was just written to {cache_folder()} cannot be read back; check the disk, or set IMGCLS_CACHE"
        )
    if any(not np.array_equal(one.digests, decoded[0].digests) for one in decoded):
        raise DataError(f"{table.origin or 'a data set'} was changed while it was decoded; start again")
    return decoded


def decode_and_forget(table: ImageTable, side: int, channels: int, *, fit: Fit = "crop", title: str = "") -> Decoded:
    """Decodes a table and leaves nothing behind: its pixels are gone when the result is.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    recipe = _Recipe(table, side, channels, fit)
    with _writing() as folder, tempfile.TemporaryFile(dir=folder) as file:
        hashes, (moments,), readable, unreadable = _decode_into([file], [recipe], title)
        return Decoded(*hashes, moments, np.flatnonzero(readable), _mapped(file), tuple(unreadable))


def resized(images: LabelledImages, side: int) -> LabelledImages:
    """The same images at another size, made from these squares and not from the source; these very ones where they fit.

    They are mapped from a file without a name, so that they take no memory of their own.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    stored = images.stored
    if stored.shape[-1] == side:
        return images
    if isinstance(stored, Undecoded):
        return images.with_pixels(stored.resized(side), images.at)
    with _writing() as folder, tempfile.TemporaryFile(dir=folder) as file, ThreadPoolExecutor(cores()) as pool:
        _write_header(file, (len(images), stored.shape[1], side, side))
        for squares in _in_order(pool, lambda chunk: resize_squares(chunk, side), images.chunks()):
            file.write(squares.tobytes())
        file.flush()
        return images.with_pixels(_mapped(file))


def remember(name: str, make: Callable[[], str]) -> str:
    """The text under a name in the cache folder; made and kept where there is none yet.

    Args:
        name: of the file; it must name all that the text depends on.
        make: called where the file is not there.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    path = cache_folder() / name
    if not path.is_file():
        text = make()
        with _writing() as folder, tempfile.TemporaryDirectory(prefix=ASIDE, dir=folder) as aside:
            whole = Path(aside, name)
            whole.write_text(text, encoding="utf-8")
            whole.replace(path)
    return path.read_text(encoding="utf-8")


@contextmanager
def _writing() -> Iterator[Path]:
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


def _is_of_folder(error: OSError, folder: Path) -> bool:
    """Whether an error says something of the cache folder, and not of an image or of what this process may take."""
    elsewhere = isinstance(error.filename, str) and not Path(error.filename).is_relative_to(folder)
    return error.errno in NO_ROOM | NOT_WRITABLE and not (elsewhere and folder.is_dir())


# --- what there is, and how much of it there may be ----------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Something that the cache folder holds.

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
        """For people, in UTC like every other time that is printed."""
        return f"{datetime.fromtimestamp(self.used, UTC):%Y-%m-%d %H:%M} UTC"

    def flat(self) -> dict[str, object]:
        """For programs."""
        used = datetime.fromtimestamp(self.used, UTC).isoformat()
        return {"path": str(self.path), "num_bytes": self.num_bytes, "last_used": used, "about": self.about}


def entries() -> list[Entry]:
    """What the cache folder holds, the most recently used first; what is being built is not among it."""
    folder = cache_folder()
    found = [_entry(path) for path in (folder.iterdir() if folder.is_dir() else ()) if not _is_aside(path)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.used)


def prune(most_bytes: int) -> list[Entry]:
    """Removes the least recently used entries until the others take no more than so many bytes.

    A process that is reading one of them goes on: its map outlives the file's name.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    left = entries()
    total, removed = sum(entry.num_bytes for entry in left), []
    while left and total > most_bytes:
        entry = left.pop()
        with _writing():
            _remove(entry.path)
        total -= entry.num_bytes
        removed.append(entry)
    return removed


def budget() -> int:
    """Bytes that the cache may take: `IMGCLS_CACHE_BYTES`, else half of what its disk has left for it.

    Raises:
        ConfigError: a value that is no size.
    """
    if named := os.environ.get("IMGCLS_CACHE_BYTES"):
        return parse_size(named, "IMGCLS_CACHE_BYTES")
    folder = cache_folder()
    while not folder.is_dir():
        folder = folder.parent
    return (shutil.disk_usage(folder).free + sum(entry.num_bytes for entry in entries())) // 2


def parse_size(text: str, name: str) -> int:
    """Bytes of a size such as `20GB`, `512MiB` or `0`.

    Raises:
        ConfigError: naming where the text stands.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ConfigError(f"{name} = {text!r} is no size; write a number with a unit, such as 20GB or 512MiB") from None


def _entry(path: Path) -> Entry | None:
    try:
        if path.is_file():
            about = "findings of a search for images that look alike"
            return Entry(path, path.stat().st_size, path.stat().st_mtime, about)
        about = json.loads((path / "meta.json").read_text(encoding="utf-8")).get("about", "an earlier version's")
        num_bytes = sum(file.stat().st_size for file in path.iterdir())
        return Entry(path, num_bytes, path.stat().st_mtime, about)
    except FileNotFoundError:  # removed by another process
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(path, 0, 0.0, "something unknown")


def _remove(path: Path) -> None:
    """At once for whoever looks; then piece by piece."""
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=path.parent))
    with suppress(FileNotFoundError):
        path.rename(aside / "removed")
    shutil.rmtree(aside, ignore_errors=True)


def _is_aside(path: Path) -> bool:
    return path.name.startswith(ASIDE)


def in_words(num_bytes: int) -> str:
    """Such as `1.2GB`."""
    return ByteSize(num_bytes).human_readable(decimal=True)


# --- one entry ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What an entry is made from: the squares of a table at one size.

    Attributes:
        table: N images.
        side: of the squares, in pixels; 0 for hashes alone.
        channels: 1 or 3.
        fit: how an image becomes a square.
        keep_name: names the choice of rows whose pixels are kept.
        has_pixels: False where the budget has room for their hashes alone.
    """

    table: ImageTable
    side: int
    channels: int
    fit: Fit
    keep_name: str = "all"
    has_pixels: bool = True

    @property
    def entry(self) -> Path:
        """Its folder."""
        squares = str(self.side), str(self.channels), self.fit
        parts = FORMAT, " ".join(FORMATS), self.table.stamp, *squares, self.keep_name
        key = hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
        return cache_folder() / (key if self.has_pixels else f"{key}-hashes")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one square."""
        return self.channels, self.side, self.side

    @property
    def num_bytes(self) -> int:
        """Of all squares."""
        return len(self.table) * math.prod(self.shape)


def _within_budget(recipes: Sequence[_Recipe], beside: Sequence[_Recipe]) -> list[_Recipe]:
    """The same, but with hashes alone where the budget has no room for pixels; older entries leave if they must.

    Args:
        recipes: to be made, in order of priority.
        beside: entries that are there and have to stay.
    """
    most = budget()
    room = most - sum(recipe.num_bytes for recipe in beside)
    affordable, wanted = [], 0
    for recipe in recipes:
        if recipe.side and wanted + recipe.num_bytes > room:
            log.info(
                "%s of %d x %d pixels need %s, more than the %s that the cache may take (IMGCLS_CACHE_BYTES): they are "
                "decoded again in each epoch",
                counted(len(recipe.table), "image"), recipe.side, recipe.side,
                in_words(recipe.num_bytes), in_words(most),
            )  # fmt: skip
            affordable.append(replace(recipe, has_pixels=False))
            continue
        wanted += recipe.num_bytes
        affordable.append(recipe)
    for entry in prune(most - wanted) if wanted else ():
        log.info("removed %s from the cache of decoded images (%s)", entry.about, in_words(entry.num_bytes))
    return affordable


def _open(recipe: _Recipe) -> Decoded | None:
    """Reads an entry; None where there is none, or none that is whole."""
    entry = recipe.entry
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if damaged := [name for name, sums in meta["checksums"].items() if not _matches(entry / name, sums)]:
            raise ValueError(f"{', '.join(damaged)}: not what was written")
        hashes = _Hashes(*(np.load(entry / f"{name}.npy") for name in _Hashes._fields))
        moments, kept = (np.load(entry / f"{name}.npy") for name in ("moments", "kept"))
        images: Pixels = (
            np.load(entry / "images.npy", mmap_mode="r")
            if recipe.has_pixels
            else Undecoded(recipe.table, kept, hashes.digests[kept], recipe.side, recipe.channels, recipe.fit)
        )
        with suppress(OSError):  # a folder that cannot be written is as good to read
            os.utime(entry, ns=(time.time_ns(),) * 2)
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
        log.warning("the decoded images in %s are damaged (%s), and are made again", entry, error)
        with _writing():
            _remove(entry)
        return None
    except OSError as error:
        raise DataError(
            f"the decoded images in {entry} cannot be read: {error.strerror or error}; mend its permissions, or name "
            "another folder in IMGCLS_CACHE"
        ) from error
    unreadable = tuple((int(row), str(reason)) for row, reason in meta["unreadable"])
    return Decoded(*hashes, moments, kept, images, unreadable)


def _build(recipes: Sequence[_Recipe], keep: Keep | None, title: str) -> None:
    """Decodes a table once, and writes an entry for each of these recipes for it."""
    with ExitStack() as until_done:
        asides = [Path(tempfile.mkdtemp(prefix=ASIDE, dir=cache_folder())) for _ in recipes]
        for aside in asides:
            until_done.callback(shutil.rmtree, aside, ignore_errors=True)
        files = [
            until_done.enter_context(_target(recipe, aside, is_whole=keep is None))
            for recipe, aside in zip(recipes, asides, strict=True)
        ]
        hashes, moments, readable, unreadable = _decode_into(files, recipes, title)
        kept = readable & keep(hashes.digests, readable) if keep else readable
        for recipe, aside, file, of_squares in zip(recipes, asides, files, moments, strict=True):
            if recipe.has_pixels and keep is not None:
                _copy_rows(file, np.flatnonzero(kept[readable]), aside / "images.npy")
            # Of what is not kept, hashes alone may stay.
            of_squares[~kept], hashes.sizes[~kept] = 0, 0
            arrays = hashes._asdict() | {"moments": of_squares, "kept": np.flatnonzero(kept)}
            _write_entry(recipe, aside, arrays, unreadable)


def _target(recipe: _Recipe, aside: Path, *, is_whole: bool) -> AbstractContextManager[IO[bytes]]:
    """Where squares go as they are decoded: to the entry, or to a file without a name if some of them may not stay."""
    if not recipe.has_pixels:
        return open(os.devnull, "w+b")  # noqa: PTH123
    return (aside / "images.npy").open("w+b") if is_whole else tempfile.TemporaryFile(dir=aside)


def _write_entry(
    recipe: _Recipe, aside: Path, arrays: Mapping[str, NDArray[Any]], unreadable: list[tuple[int, str]]
) -> None:
    """The rest of an entry whose pixels are written; then it gets its name."""
    for name, array in arrays.items():
        np.save(aside / f"{name}.npy", array)
    num_kept = len(arrays["kept"])
    what = f"{recipe.side} x {recipe.side} x {recipe.channels}, {recipe.fit}"
    meta = {
        "about": f"{counted(num_kept, 'image')} of {recipe.table.origin or 'a data set'}, "
        + (what if recipe.has_pixels and recipe.side else "hashes alone"),
        "unreadable": unreadable,
        "checksums": {path.name: _checksums(path) for path in sorted(aside.iterdir())},
    }
    (aside / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    try:
        aside.rename(recipe.entry)
    except OSError:
        if not recipe.entry.is_dir():  # another process may have been faster; its entry is as good
            raise


def _checksums(path: Path) -> list[int]:
    """The file's size in bytes, then the CRC-32 of each of its blocks."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        return [num_bytes, *(zlib.crc32(file.read(BLOCK_BYTES)) for _ in range(0, num_bytes, BLOCK_BYTES))]


def _matches(path: Path, checksums: list[int]) -> bool:
    num_bytes, *of_blocks = checksums
    if path.stat().st_size != num_bytes:
        return False
    spread = np.linspace(0, len(of_blocks) - 1, min(CHECKED_BLOCKS, len(of_blocks))).astype(int).tolist()
    with path.open("rb") as file:
        for block in spread:
            file.seek(block * BLOCK_BYTES)
            if zlib.crc32(file.read(BLOCK_BYTES)) != of_blocks[block]:
                return False
    return True


class _Hashes(NamedTuple):
    """Of each row of a table, zeros where it is unreadable; see `Decoded`."""

    digests: NDArray[np.uint8]
    sketches: NDArray[np.uint8]
    several_frames: NDArray[np.bool_]
    sizes: NDArray[np.int32]

    @classmethod
    def zeros(cls, num_rows: int) -> _Hashes:
        """Of so many unreadable images."""
        return cls(
            np.zeros((num_rows, 32), np.uint8),
            np.zeros((num_rows, SKETCH_BYTES), np.uint8),
            np.zeros(num_rows, bool),
            np.zeros((num_rows, 2), np.int32),
        )


class _Piece(NamedTuple):
    """Some consecutive rows of a table, decoded.

    Attributes:
        hashes: of each.
        moments: int64 (rows, C, 2) for each recipe.
        squares: for each recipe, uint8 (C, side, side) of each that is readable, one after another.
        unreadable: (row, reason) of the others.
        num_pixels: of the sources.
    """

    hashes: _Hashes
    moments: list[NDArray[np.int64]]
    squares: list[bytes]
    unreadable: list[tuple[int, str]]
    num_pixels: int


def _decode_into(
    files: Sequence[IO[bytes]], recipes: Sequence[_Recipe], title: str
) -> tuple[_Hashes, list[NDArray[np.int64]], NDArray[np.bool_], list[tuple[int, str]]]:
    """Writes the squares of all readable images, those of each recipe to its file, as a .npy, in the table's order.

    Written and not mapped, because a full disk is an error to a write and the end of the process to a map.

    Returns:
        Hashes; the moments of each recipe's squares; readable bool (N,); (row, reason) of the others.
    """
    table = recipes[0].table
    hashes, moments = _Hashes.zeros(len(table)), [np.zeros((len(table), r.channels, 2), np.int64) for r in recipes]
    arrays: Sequence[NDArray[Any]] = *hashes, *moments
    readable = np.ones(len(table), bool)
    unreadable: list[tuple[int, str]] = []
    largest = max(math.prod(recipe.shape) for recipe in recipes)
    pieces = list(_pieces(len(table), most=min(256, PIECE_BYTES // max(1, largest))))
    for file, recipe in zip(files, recipes, strict=True):
        _write_header(file, (len(table), *recipe.shape))
    with tqdm(
        total=len(table), desc=title or "decoding", unit=" images", file=terminal.stderr(), leave=False, disable=None
    ) as bar:
        decoded = _spread(lambda rows: _decode_piece(rows, recipes), pieces, len(table))
        for rows, piece in zip(pieces, decoded, strict=True):
            here = slice(rows.start, rows.stop)
            parts: Sequence[NDArray[Any]] = *piece.hashes, *piece.moments
            for whole, part in zip(arrays, parts, strict=True):
                whole[here] = part
            for file, squares in zip(files, piece.squares, strict=True):
                file.write(squares)
            unreadable += piece.unreadable
            bar.update(len(rows))
    readable[[row for row, _ in unreadable]] = False
    for file, recipe in zip(files, recipes, strict=True):
        file.seek(0)
        _write_header(file, (int(readable.sum()), *recipe.shape))
        file.flush()
    return hashes, moments, readable, unreadable


def _decode_piece(rows: range, recipes: Sequence[_Recipe]) -> _Piece:
    table, channels, fit = recipes[0].table, recipes[0].channels, recipes[0].fit
    sides = [recipe.side for recipe in recipes]
    hashes, moments_of = _Hashes.zeros(len(rows)), [np.zeros((len(rows), channels, 2), np.int64) for _ in sides]
    squares: list[list[bytes]] = [[] for _ in sides]
    unreadable, num_pixels = [], 0
    thumbnails, shorter_sides = np.zeros((len(rows), SIDE, SIDE), np.float32), np.zeros(len(rows), np.int64)
    for at, row in enumerate(rows):
        try:
            image = table.read(row)
        except UnreadableImageError as error:
            unreadable.append((row, str(error)))
            continue
        num_pixels += image.width * image.height
        hashes.digests[at] = np.frombuffer(digest(image), np.uint8)
        hashes.several_frames[at] = SEVERAL_FRAMES in image.info
        shorter_sides[at] = min(image.size)
        if not any(sides):
            thumbnails[at] = thumbnail(shrunk(image))
            continue
        hashes.sizes[at] = image.size
        thumbnails[at], made = thumbnail_and_squares(image, sides, channels, fit)
        for of_side, moments_at, square in zip(squares, moments_of, made, strict=True):
            moments_at[at] = moments(square)
            of_side.append(square.tobytes())
    hashes.sketches[:] = sketches(thumbnails, shorter_sides)
    return _Piece(hashes, moments_of, [b"".join(of_side) for of_side in squares], unreadable, num_pixels)


def _spread(work: Callable[[range], _Piece], pieces: Sequence[range], num_images: int) -> Iterator[_Piece]:
    """The work on each piece in order, by as many cores as pay for their start if all images are like the first."""
    if not pieces:
        return
    first = work(pieces[0])
    yield first
    seconds = SECONDS_PER_IMAGE + SECONDS_PER_PIXEL * (first.num_pixels or TYPICAL_PIXELS)
    num_paid = int(seconds * num_images / WORTH_PROCESSES)
    if CAN_FORK and num_paid:
        yield from ahead(work, pieces[1:], min(cores(), 1 + num_paid))
    elif seconds >= WORTH_THREADS:
        with ThreadPoolExecutor(cores()) as pool:
            yield from _in_order(pool, work, pieces[1:])
    else:
        yield from map(work, pieces[1:])


def _pieces(num_rows: int, most: int) -> Iterator[range]:
    """Consecutive rows, many of which are one piece of work because handing one over costs more than a small image.

    The first is one row, from which the others are judged. Towards the end pieces become smaller ("guided
    self-scheduling", Polychronopoulos and Kuck, 1987), so that the cores finish together.
    """
    start = 0
    while start < num_rows:
        share = (num_rows - start) // (8 * cores())
        size = max(1, min(most, share)) if start else 1
        yield range(start, start + size)
        start += size


def _in_order(pool: ThreadPoolExecutor, work: Callable[[In], Out], pieces: Iterable[In]) -> Iterator[Out]:
    """`pool.map`, but never more than a few pieces ahead of the reader, whose memory is not endless."""
    # Threads: Pillow's decoders and filters and hashlib all release the GIL.
    waiting: deque[Future[Out]] = deque()
    for piece in pieces:
        waiting.append(pool.submit(work, piece))
        if len(waiting) > 2 * cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    # NumPy pads its header so that the first number may change in place.
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _mapped(file: IO[bytes]) -> NDArray[np.uint8]:
    """Maps the .npy in an open file, which may have no name and may be closed afterwards."""
    file.seek(0)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return np.memmap(file, dtype, "r", file.tell(), shape)


def _copy_rows(decoded: IO[bytes], rows: NDArray[np.int64], path: Path) -> None:
    """Writes some of the squares in an open file, a .npy, to another."""
    images = _mapped(decoded)
    with path.open("wb") as file:
        _write_header(file, (len(rows), *images.shape[1:]))
        for chunk in gather(images, rows):
            file.write(chunk.tobytes())


def abandoned() -> list[Path]:
    """What killed processes left half-built in the cache folder; the next decoding clears it away too."""
    found = []
    for aside in cache_folder().glob(f"{ASIDE}*"):
        try:
            last_write = max(path.stat().st_mtime for path in (aside, *aside.iterdir()))
        except OSError:  # it is being finished, or cleared, by another process
            continue
        if time.time() - last_write > ABANDONED_AFTER:
            found.append(aside)
    return found
