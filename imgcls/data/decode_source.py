"""Decodes a whole source in one pass: every image is read once, hashed, and made a square of each size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.config.key_types import Fit
from imgcls.data.cache_folder import cache_folder
from imgcls.data.decode import SEVERAL_FRAMES, digest, shrunk, shrunk_is_enough, to_square
from imgcls.data.decode_workers import images_of_a_piece, spread
from imgcls.data.image_formats import FORMATS
from imgcls.data.image_set import Hashes, SourceImages, moments
from imgcls.data.sketches import SIDE, sketches, thumbnail
from imgcls.errors import UnreadableImageError
from imgcls.progress import Progress

FORMAT = "10"
"""Version in the key of every cache entry: raise it when the pixels or hashes that decoding gives change."""


class _Piece(NamedTuple):
    """Some consecutive rows of a source, decoded.

    Attributes:
        moments: int64 (rows, C, 2) for each recipe.
        squares: for each recipe, uint8 (C, side, side) of each readable image, one after another.
        unreadable: (row, reason) of the others.
        num_pixels: of all the images as they were read.
    """

    hashes: Hashes
    moments: list[NDArray[np.int64]]
    squares: list[bytes]
    unreadable: list[tuple[int, str]]
    num_pixels: int


def decode_into(
    files: Sequence[IO[bytes]], recipes: Sequence[Recipe], title: str
) -> tuple[Hashes, list[NDArray[np.int64]], NDArray[np.bool_], list[tuple[int, str]]]:
    """Decodes a source: writes the squares of all readable images in order, those of each recipe to its file, a .npy.

    Written and not mapped, because a full disk is an error to a write and the end of the process to a map.

    Returns:
        Hashes; the moments of each recipe's squares; readable bool (N,); (row, reason) of the others.
    """
    table = recipes[0].table
    hashes, moments = Hashes.zeros(len(table)), [np.zeros((len(table), r.channels, 2), np.int64) for r in recipes]
    arrays: Sequence[NDArray[Any]] = *hashes, *moments
    readable = np.ones(len(table), bool)
    unreadable: list[tuple[int, str]] = []
    largest = max(math.prod(recipe.shape) for recipe in recipes)
    most = images_of_a_piece(largest)
    for file, recipe in zip(files, recipes, strict=True):
        write_header(file, (len(table), *recipe.shape))
    with Progress(len(table), title or "decoding") as bar:
        decoded = spread(lambda rows: _decode_piece(rows, recipes), len(table), most, lambda piece: piece.num_pixels)
        for rows, piece in decoded:
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
        write_header(file, (int(readable.sum()), *recipe.shape))
        file.flush()
    return hashes, moments, readable, unreadable


def _decode_piece(rows: range, recipes: Sequence[Recipe]) -> _Piece:
    table, channels, fit = recipes[0].table, recipes[0].channels, recipes[0].fit
    sides = [recipe.side for recipe in recipes]
    hashes, moments_of = Hashes.zeros(len(rows)), [np.zeros((len(rows), channels, 2), np.int64) for _ in sides]
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


def thumbnail_and_squares(
    image: Image.Image, sides: Sequence[int], channels: int, fit: Fit = "crop"
) -> tuple[NDArray[np.float32], list[NDArray[np.uint8]]]:
    """A decoded image's `thumbnail`, and its `to_square` for each side, in one pass over a large image."""
    small = shrunk(image)
    squares = [to_square(small if shrunk_is_enough(side) else image, side, channels, fit) for side in sides]
    return thumbnail(small), squares


def write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Writes the header of a decoded source's file, a .npy of uint8, or changes its first number in place."""
    # NumPy pads its header so that the first number may change in place.
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def mapped(file: IO[bytes]) -> NDArray[np.uint8]:
    """Maps a decoded source's squares, a .npy in an open file, which may have no name and may be closed afterwards."""
    file.seek(0)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return np.memmap(file, dtype, "r", file.tell(), shape)


# --- one entry ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Recipe:
    """What to decode of a source, which names a cache entry: its squares at one size.

    Attributes:
        side: of the squares, in pixels; 0 for hashes alone.
        keep_name: names the choice of rows whose pixels are kept.
        has_pixels: False where the budget has room for their hashes alone.
    """

    table: SourceImages
    side: int
    channels: int
    fit: Fit
    keep_name: str = "all"
    has_pixels: bool = True

    @property
    def entry(self) -> Path:
        """Folder of the cache entry. If only an earlier version made one, it is that one."""
        entry = self._entry(self.table.stamp)
        earlier = self._entry(self.table.earlier_stamp) if self.table.earlier_stamp else entry
        return earlier if earlier.is_dir() and not entry.is_dir() else entry

    def _entry(self, stamp: str) -> Path:
        squares = str(self.side), str(self.channels), self.fit
        parts = FORMAT, " ".join(FORMATS), stamp, *squares, self.keep_name
        key = hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
        return cache_folder() / (key if self.has_pixels else f"{key}-hashes")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one square."""
        return self.channels, self.side, self.side

    @property
    def num_bytes(self) -> int:
        """Bytes of all squares."""
        return len(self.table) * math.prod(self.shape)
