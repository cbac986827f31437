"""Decode once: every image of a table becomes uint8 on disk, memory-mapped ever after.

A cache entry is a folder named by what it was made from. It is written aside and renamed, so a reader sees a
whole one or none, and its checksums are looked at when it is opened. Where an entry would not fit the budget, the
least recently used ones make room; what is larger than the budget leaves its hashes alone, and is decoded anew each
time. Pixels that are not to stay (a test split) only ever lie in a file without a name, which ends with the
process, however that ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ByteSize, TypeAdapter, ValidationError
from tqdm import tqdm

from imgcls import terminal
from imgcls.data.ahead import CAN_FORK, ahead, cores
from imgcls.data.decode import UnreadableImageError, difference_hash, digest, hash_and_square, resize_squares
from imgcls.data.formats import FORMATS
from imgcls.data.labelled import LabelledImages, Pixels, gather, moments
from imgcls.data.sources import ImageTable
from imgcls.data.undecoded import Undecoded
from imgcls.errors import ConfigError, DataError

log = logging.getLogger(__name__)

FORMAT = "7"
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

BLOCK_BYTES = 2**24
"""What one checksum is of."""

CHECKED_BLOCKS = 16
"""Blocks of a file that opening an entry reads, spread over it: all of 256 MiB, and a tenth of a second of more."""


@dataclass(frozen=True)
class Decoded:
    """A decoded table.

    Attributes:
        digests: uint8 (N, 32), SHA-256 of each image's source pixels; zeros where unreadable.
        perceptual: uint64 (N,), difference hash of each image; 0 where unreadable.
        moments: int64 (N, C, 2), sum and sum of squares of each channel of each square; zeros where unreadable.
        kept: int64 (M,), rows of the table whose pixels are here, ascending.
        images: uint8 (M, C, side, side), memory-mapped, or decoded anew where the budget has no room for them.
        unreadable: (row, reason) of each image left out.
    """

    digests: NDArray[np.uint8]
    perceptual: NDArray[np.uint64]
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
            perceptual=self.perceptual[rows],
            groups=tuple(table.groups[row] for row in rows) if table.groups else (),
            moments=self.moments[rows],
        )

    def offenders(self, table: ImageTable) -> list[str]:
        """`path: reason` of each unreadable image."""
        return [f"{table.path(row)}: {reason}" for row, reason in self.unreadable]


Keep = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.bool_]]
"""(digests (N, 32), readable (N,)) -> which rows' pixels to keep."""

In = TypeVar("In")
Out = TypeVar("Out")


def cache_folder() -> Path:
    """`IMGCLS_CACHE`, else `imgcls` in the user's cache folder."""
    if named := os.environ.get("IMGCLS_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgcls"


def decode(
    table: ImageTable, side: int, channels: int, *, keep: Keep | None = None, keep_name: str = "all", title: str = ""
) -> Decoded:
    """Decodes a table, or maps what an earlier call left.

    Args:
        table: N images.
        side: of the squares, in pixels. 0 keeps no pixels and gives hashes alone.
        channels: 1 or 3.
        keep: chooses the rows whose pixels are written, out of the readable ones; all of them by default.
        keep_name: names that choice in the cache's key.
        title: what the progress bar says.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    of_what = FORMAT, " ".join(FORMATS), table.stamp, str(side), str(channels), keep_name
    key = hashlib.sha256("|".join(of_what).encode()).hexdigest()[:32]
    entry = cache_folder() / key
    if (found := _open(entry, table, side, channels)) is not None:
        return found
    num_bytes = len(table) * channels * side * side
    with _writing() as folder:
        for aside in abandoned():
            shutil.rmtree(aside, ignore_errors=True)
        stays = side > 0 and _make_room(num_bytes)
        if side and not stays:
            entry = folder / f"{key}-hashes"
            log.info(
                "%s of %d x %d pixels need %s, more than the %s that the cache may take (IMGCLS_CACHE_BYTES): they are "
                "decoded anew in each epoch", _counted(len(table)), side, side, in_words(num_bytes), in_words(budget()),
            )  # fmt: skip
        if (found := _open(entry, table, side, channels)) is None:
            _build(entry, table, side, channels, keep, title, stays=stays or not side)
            found = _open(entry, table, side, channels)
    if found is None:
        raise DataError(f"what was just written to {entry} cannot be read back; check the disk, or set IMGCLS_CACHE")
    return found


def decode_and_forget(table: ImageTable, side: int, channels: int, *, title: str = "") -> Decoded:
    """Decodes a table and leaves nothing behind: its pixels are gone when the result is.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    with _writing() as folder, tempfile.TemporaryFile(dir=folder) as file:
        hashes, readable, unreadable = _decode_into(file, table, side, channels, title)
        return Decoded(*hashes, np.flatnonzero(readable), _mapped(file), tuple(unreadable))


def resized(images: LabelledImages, side: int) -> LabelledImages:
    """The same images at another size; these very ones where they have it.

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
        raise DataError(
            f"the cache of decoded images cannot be written to {folder}: {error.strerror or error}; "
            "make room, or name another folder in IMGCLS_CACHE"
        ) from error


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
        """For people, in local time."""
        return f"{datetime.fromtimestamp(self.used).astimezone():%Y-%m-%d %H:%M}"

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


def _make_room(num_bytes: int) -> bool:
    """Whether an entry of this size fits the budget, for which older ones leave if they must."""
    most = budget()
    if num_bytes > most:
        return False
    for entry in prune(most - num_bytes):
        log.info("removed %s from the cache of decoded images (%s)", entry.about, in_words(entry.num_bytes))
    return True


def _entry(path: Path) -> Entry | None:
    try:
        if path.is_file():
            return Entry(path, path.stat().st_size, path.stat().st_mtime, "findings of a search for leaks")
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


def _counted(num_images: int) -> str:
    return f"{num_images} image{'' if num_images == 1 else 's'}"


def in_words(num_bytes: int) -> str:
    """Such as `1.2GB`."""
    return ByteSize(num_bytes).human_readable(decimal=True)


# --- one entry ------------------------------------------------------------------------------------------------------


def _open(entry: Path, table: ImageTable, side: int, channels: int) -> Decoded | None:
    """Reads an entry; None where there is none, or none that is whole."""
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if damaged := [name for name, sums in meta["checksums"].items() if not _matches(entry / name, sums)]:
            raise ValueError(f"{', '.join(damaged)}: not what was written")
        hashes = _Hashes(*(np.load(entry / f"{name}.npy") for name in _Hashes._fields))
        kept = np.load(entry / "kept.npy")
        images: Pixels = np.load(entry / "images.npy", mmap_mode="r")
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
    if side and images.shape[-1] != side:  # hashes alone
        images = Undecoded(table, kept, hashes.digests[kept], side, channels)
    return Decoded(*hashes, kept, images, tuple((int(row), str(reason)) for row, reason in meta["unreadable"]))


def _build(
    entry: Path, table: ImageTable, side: int, channels: int, keep: Keep | None, title: str, *, stays: bool
) -> None:
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=entry.parent))
    try:
        with (aside / "images.npy").open("w+b") as file:
            if keep is None and stays:
                hashes, kept_mask, unreadable = _decode_into(file, table, side, channels, title)
            else:
                with tempfile.TemporaryFile(dir=aside) if stays else open(os.devnull, "w+b") as nameless:  # noqa: PTH123
                    hashes, readable, unreadable = _decode_into(nameless, table, side, channels, title)
                    kept_mask = readable & keep(hashes.digests, readable) if keep else readable
                    if stays:
                        _copy_rows(_mapped(nameless), np.flatnonzero(kept_mask[readable]), file)
                    else:
                        _write_header(file, (int(kept_mask.sum()), channels, 0, 0))
        hashes.moments[~kept_mask] = 0  # of what is not kept, hashes alone may stay
        for name, array in hashes._asdict().items():
            np.save(aside / f"{name}.npy", array)
        np.save(aside / "kept.npy", np.flatnonzero(kept_mask))
        meta = {
            "about": f"{_counted(int(kept_mask.sum()))} of {table.origin or 'a data set'}, "
            + (f"{side} x {side} x {channels}" if stays and side else "hashes alone"),
            "unreadable": unreadable,
            "checksums": {path.name: _checksums(path) for path in sorted(aside.iterdir())},
        }
        (aside / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            aside.rename(entry)
        except OSError:
            if not entry.is_dir():  # another process may have been faster; its entry is as good
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
    """Of each row of a table, zeros where it is unreadable."""

    digests: NDArray[np.uint8]
    perceptual: NDArray[np.uint64]
    moments: NDArray[np.int64]

    @classmethod
    def zeros(cls, num_rows: int, channels: int) -> _Hashes:
        """Of so many unreadable images."""
        return cls(
            np.zeros((num_rows, 32), np.uint8),
            np.zeros(num_rows, np.uint64),
            np.zeros((num_rows, channels, 2), np.int64),
        )


class _Piece(NamedTuple):
    """Some consecutive rows of a table, decoded.

    Attributes:
        hashes: of each.
        squares: uint8 (C, side, side) of each that is readable, one after another.
        unreadable: (row, reason) of the others.
        num_pixels: of the sources.
    """

    hashes: _Hashes
    squares: bytes
    unreadable: list[tuple[int, str]]
    num_pixels: int


def _decode_into(
    file: IO[bytes], table: ImageTable, side: int, channels: int, title: str
) -> tuple[_Hashes, NDArray[np.bool_], list[tuple[int, str]]]:
    """Writes the squares of all readable images to `file`, as a .npy, in the order of the table.

    Written and not mapped, because a full disk is an error to a write and the end of the process to a map.

    Returns:
        Hashes; readable bool (N,); (row, reason) of the others.
    """
    hashes = _Hashes.zeros(len(table), channels)
    readable = np.ones(len(table), bool)
    unreadable: list[tuple[int, str]] = []
    pieces = list(_pieces(len(table), most=min(256, PIECE_BYTES // max(1, channels * side * side))))
    _write_header(file, (len(table), channels, side, side))
    with tqdm(
        total=len(table), desc=title or "decoding", unit=" images", file=terminal.stderr(), leave=False, disable=None
    ) as bar:
        decoded = _spread(lambda rows: _decode_piece(table, rows, side, channels), pieces, len(table))
        for rows, piece in zip(pieces, decoded, strict=True):
            here = slice(rows.start, rows.stop)
            hashes.digests[here], hashes.perceptual[here], hashes.moments[here] = piece.hashes
            file.write(piece.squares)
            unreadable += piece.unreadable
            bar.update(len(rows))
    readable[[row for row, _ in unreadable]] = False
    file.seek(0)
    _write_header(file, (int(readable.sum()), channels, side, side))
    file.flush()
    return hashes, readable, unreadable


def _decode_piece(table: ImageTable, rows: range, side: int, channels: int) -> _Piece:
    hashes, squares, unreadable, num_pixels = _Hashes.zeros(len(rows), channels), [], [], 0
    for at, row in enumerate(rows):
        try:
            image = table.read(row)
        except UnreadableImageError as error:
            unreadable.append((row, str(error)))
            continue
        num_pixels += image.width * image.height
        hashes.digests[at] = np.frombuffer(digest(image), np.uint8)
        if not side:
            hashes.perceptual[at] = difference_hash(image)
            continue
        hashes.perceptual[at], square = hash_and_square(image, side, channels)
        hashes.moments[at] = moments(square)
        squares.append(square.tobytes())
    return _Piece(hashes, b"".join(squares), unreadable, num_pixels)


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


def _copy_rows(images: NDArray[np.uint8], rows: NDArray[np.int64], file: IO[bytes]) -> None:
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
