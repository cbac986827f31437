"""Decode once: every image of a table becomes uint8 on disk, memory-mapped ever after.

A cache entry is a folder named by what it was made from. It is written aside and renamed, so a reader sees a
whole one or none. Pixels that are not to stay (a test split) only ever lie in a file without a name, which ends
with the process, however that ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from imgcls.data.decode import UnreadableImageError, difference_hash, digest, to_square
from imgcls.data.labelled import LabelledImages, gather
from imgcls.data.sources import ImageTable
from imgcls.errors import DataError

FORMAT = "4"
"""Part of every key: raise it when the pixels or hashes that decoding gives change."""

PIECE_BYTES = 2**22
"""Squares that one piece of work makes."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a write after which what a killed process left half-built is cleared away."""


@dataclass(frozen=True)
class Decoded:
    """A decoded table.

    Attributes:
        digests: uint8 (N, 32), SHA-256 of each image's source pixels; zeros where unreadable.
        perceptual: uint64 (N,), difference hash of each image; 0 where unreadable.
        kept: int64 (M,), rows of the table whose pixels are here, ascending.
        images: uint8 (M, C, side, side), memory-mapped.
        unreadable: (row, reason) of each image left out.
    """

    digests: NDArray[np.uint8]
    perceptual: NDArray[np.uint64]
    kept: NDArray[np.int64]
    images: NDArray[np.uint8]
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
        )

    def offenders(self, table: ImageTable) -> list[str]:
        """`path: reason` of each unreadable image."""
        return [f"{table.path(row)}: {reason}" for row, reason in self.unreadable]


Keep = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.bool_]]
"""(digests (N, 32), readable (N,)) -> which rows' pixels to keep."""

Piece = tuple[bytes, list[tuple[int, str]]]
"""Squares of a few rows, and (row, reason) of those that are unreadable."""


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
    key = hashlib.sha256("|".join((FORMAT, table.stamp, str(side), str(channels), keep_name)).encode()).hexdigest()
    entry = cache_folder() / key[:32]
    if not entry.is_dir():
        with _writing() as folder:
            _clear_abandoned(folder)
            _build(entry, table, side, channels, keep, title)
    meta = json.loads((entry / "meta.json").read_text())
    return Decoded(
        digests=np.load(entry / "digests.npy"),
        perceptual=np.load(entry / "perceptual.npy"),
        kept=np.load(entry / "kept.npy"),
        images=np.load(entry / "images.npy", mmap_mode="r"),
        unreadable=tuple((int(row), str(reason)) for row, reason in meta["unreadable"]),
    )


def decode_and_forget(table: ImageTable, side: int, channels: int, *, title: str = "") -> Decoded:
    """Decodes a table and leaves nothing behind: its pixels are gone when the result is.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    with _writing() as folder, tempfile.TemporaryFile(dir=folder) as file:
        hashes, readable, unreadable = _decode_into(file, table, side, channels, title)
        return Decoded(*hashes, np.flatnonzero(readable), _mapped(file), tuple(unreadable))


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
        with _writing() as folder, tempfile.TemporaryDirectory(prefix="building-", dir=folder) as aside:
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


def _build(entry: Path, table: ImageTable, side: int, channels: int, keep: Keep | None, title: str) -> None:
    aside = Path(tempfile.mkdtemp(prefix="building-", dir=entry.parent))
    try:
        with (aside / "images.npy").open("w+b") as file:
            if keep is None:
                hashes, kept_mask, unreadable = _decode_into(file, table, side, channels, title)
            else:
                with tempfile.TemporaryFile(dir=aside) as nameless:
                    hashes, readable, unreadable = _decode_into(nameless, table, side, channels, title)
                    kept_mask = readable & keep(hashes.digests, readable)
                    _copy_rows(_mapped(nameless), np.flatnonzero(kept_mask[readable]), file)
        np.save(aside / "digests.npy", hashes.digests)
        np.save(aside / "perceptual.npy", hashes.perceptual)
        np.save(aside / "kept.npy", np.flatnonzero(kept_mask))
        (aside / "meta.json").write_text(json.dumps({"unreadable": unreadable}))
        try:
            aside.rename(entry)
        except OSError:
            if not entry.is_dir():  # another process may have been faster; its entry is as good
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Hashes(NamedTuple):
    """Of each row of a table, zeros where it is unreadable."""

    digests: NDArray[np.uint8]
    perceptual: NDArray[np.uint64]


def _decode_into(
    file: IO[bytes], table: ImageTable, side: int, channels: int, title: str
) -> tuple[_Hashes, NDArray[np.bool_], list[tuple[int, str]]]:
    """Writes the squares of all readable images to `file`, as a .npy, in the order of the table.

    Written and not mapped, because a full disk is an error to a write and the end of the process to a map.

    Returns:
        Hashes; readable bool (N,); (row, reason) of the others.
    """
    hashes = _Hashes(np.zeros((len(table), 32), np.uint8), np.zeros(len(table), np.uint64))
    readable = np.ones(len(table), bool)
    unreadable: list[tuple[int, str]] = []

    def work(rows: range) -> Piece:
        squares, refused = [], []
        for row in rows:
            try:
                image = table.read(row)
            except UnreadableImageError as error:
                refused.append((row, str(error)))
                continue
            hashes.digests[row] = np.frombuffer(digest(image), np.uint8)
            hashes.perceptual[row] = difference_hash(image)
            if side:
                squares.append(to_square(image, side, channels).tobytes())
        return b"".join(squares), refused

    # Many small images are one piece of work, because handing one over costs more than decoding it does; but there are
    # several pieces for each core.
    share = len(table) // (8 * (os.cpu_count() or 1))
    size = max(1, min(256, share, PIECE_BYTES // max(1, channels * side * side)))
    pieces = [range(start, min(start + size, len(table))) for start in range(0, len(table), size)]
    _write_header(file, (len(table), channels, side, side))
    bar = tqdm(total=len(table), desc=title or "decoding", unit=" images", file=sys.stderr, leave=False, disable=None)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows, (squares, refused) in zip(pieces, _in_order(pool, work, pieces), strict=True):
            file.write(squares)
            unreadable += refused
            bar.update(len(rows))
    readable[[row for row, _ in unreadable]] = False
    file.seek(0)
    _write_header(file, (int(readable.sum()), channels, side, side))
    file.flush()
    return hashes, readable, unreadable


def _in_order(pool: ThreadPoolExecutor, work: Callable[[range], Piece], pieces: list[range]) -> Iterator[Piece]:
    """`pool.map`, but never more than a few pieces ahead of the reader, whose memory is not endless."""
    # Threads: Pillow's decoders and filters and hashlib all release the GIL.
    waiting: deque[Future[Piece]] = deque()
    for piece in pieces:
        waiting.append(pool.submit(work, piece))
        if len(waiting) > 2 * (os.cpu_count() or 1):
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


def _clear_abandoned(folder: Path) -> None:
    for aside in folder.glob("building-*"):
        try:
            last_write = max(path.stat().st_mtime for path in (aside, *aside.iterdir()))
        except OSError:  # it is being finished, or cleared, by another process
            continue
        if time.time() - last_write > ABANDONED_AFTER:
            shutil.rmtree(aside, ignore_errors=True)
