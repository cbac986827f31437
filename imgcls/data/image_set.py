"""Sets of labelled images, one image a row: as a source lists them, then with their hashes, then with their pixels.

A set that was hashed cannot read its images any more. So no picture comes out of the hashes of a test split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.data.decode_on_demand import PixelsOnDemand
from imgcls.data.sketches import SKETCH_BYTES

Split = Literal["train", "val", "test"]

Pixels = NDArray[np.uint8] | PixelsOnDemand
"""Squares uint8 (M, C, side, side), indexed by an int64 array: mapped, in memory, or decoded when asked for."""

CHUNK_BYTES = 2**24
"""Bytes of pixels that are in memory at a time where a whole split is read."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """An image set: labelled images, one in each row.

    Attributes:
        keys: a stable name for each image: a path relative to the source, or an index.
        labels: int64 (N,), indices into the class names.
        groups: name of each image's group; empty where images stand for themselves.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("keys", "labels", "groups")

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: tuple[str, ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """The images in these rows, in the order given."""
        chosen = np.asarray(rows, np.int64)
        return replace(self, **{name: _chosen(getattr(self, name), chosen) for name in self.COLUMNS})

    def named(self, keys: Sequence[str]) -> Self:
        """The images with these keys, in this order."""
        row = {key: i for i, key in enumerate(self.keys)}
        return self.rows([row[key] for key in keys])


def _chosen(column: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(column, Hashes):
        return column.rows(rows)
    if isinstance(column, tuple):
        return tuple(column[row] for row in rows.tolist()) if column else ()
    return None if column is None else column[rows]


def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class SourceImages(ImageSet):
    """An image set that a source lists and can read; nothing is decoded before it is asked for.

    Attributes:
        read: row -> upright 8-bit image, mode `L` or `RGB`; raises UnreadableImageError.
        stamp: of the images' content, for names of what is cached of them; known without decoding an image.
        origin: what a key is relative to: a folder, or the name of a data set.
        header: row -> width and height in pixels, from the header of the image's file alone; raises
            UnreadableImageError. None where the images are not files of many sizes.
        earlier_stamp: by which earlier versions named what is cached of them; "" where it is the same.
        is_outdated: whether the files have changed since they were listed.
    """

    read: Callable[[int], Image.Image]
    stamp: str
    origin: str = ""
    header: Callable[[int], tuple[int, int]] | None = None
    earlier_stamp: str = ""
    is_outdated: Callable[[], bool] = _never

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """The images in these rows, in the order given."""
        chosen, header = [int(row) for row in rows], self.header
        return replace(
            super().rows(chosen),
            read=lambda row: self.read(chosen[row]),
            stamp=hash_of(self.stamp, *map(str, chosen)),
            earlier_stamp=self.earlier_stamp and hash_of(self.earlier_stamp, *map(str, chosen)),
            header=None if header is None else lambda row: header(chosen[row]),
        )

    def path(self, row: int) -> str:
        """Where the image is, for people."""
        return str(Path(self.origin, self.keys[row]))


def array_table(images: NDArray[np.uint8], labels: NDArray[Any], stamp: str, prefix: str = "") -> SourceImages:
    """An image set of a source's arrays, which are in memory already: uint8 (N, H, W) or (N, H, W, 3)."""
    keys = tuple(f"{prefix}{i}" for i in range(len(images)))
    stamp = hash_of(stamp, hashlib.sha256(images.tobytes()).hexdigest())
    return SourceImages(keys, np.asarray(labels, np.int64), lambda i: Image.fromarray(images[i]), stamp)


class Hashes(NamedTuple):
    """What is known of an image set without its pixels; zeros where an image cannot be read.

    Attributes:
        digests: uint8 (N, 32), SHA-256 of the source pixels.
        sketches: uint8 (N, 272), by which copies are recognised, see `sketches`.
        several_frames: bool (N,), whether the image is the first of several frames or pages of its file.
        sizes: int32 (N, 2), width and height; zeros too where no pixels were asked for.
    """

    digests: NDArray[np.uint8]
    sketches: NDArray[np.uint8]
    several_frames: NDArray[np.bool_]
    sizes: NDArray[np.int32]

    @classmethod
    def zeros(cls, num_rows: int) -> Hashes:
        """Of so many unreadable images."""
        return cls(
            np.zeros((num_rows, 32), np.uint8),
            np.zeros((num_rows, SKETCH_BYTES), np.uint8),
            np.zeros(num_rows, bool),
            np.zeros((num_rows, 2), np.int32),
        )

    def rows(self, rows: NDArray[np.int64]) -> Hashes:
        """Of the images in these rows."""
        return Hashes._make(column[rows] for column in self)


@dataclass(frozen=True, eq=False)
class HashedImages(ImageSet):
    """An image set of readable images of which only hashes are known."""

    COLUMNS: ClassVar[tuple[str, ...]] = (*ImageSet.COLUMNS, "hashes")

    hashes: Hashes

    @property
    def digests(self) -> NDArray[np.uint8]:
        """uint8 (N, 32), SHA-256 of the source pixels."""
        return self.hashes.digests

    @property
    def sketches(self) -> NDArray[np.uint8]:
        """uint8 (N, 272)."""
        return self.hashes.sketches

    @property
    def num_several_frames(self) -> int:
        """How many of the images are the first frame or page of several."""
        return int(self.hashes.several_frames.sum())

    def in_content_order(self) -> Self:
        """Sorted by (digest, label, key), so that equal images train alike whatever their files are called."""
        order = sorted(range(len(self)), key=lambda i: (self.digests[i].tobytes(), int(self.labels[i]), self.keys[i]))
        return self.rows(order)


@dataclass(frozen=True, eq=False)
class DecodedImages(HashedImages):
    """An image set with its pixels, such as a split. A selection of its rows shares them: a memory map stays one.

    Attributes:
        stored: uint8 (M, C, side, side).
        at: int64 (N,), index into `stored` for each image.
        known_moments: what `moments` gives; None where they have to be counted.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (*HashedImages.COLUMNS, "at", "known_moments")

    stored: Pixels
    at: NDArray[np.int64]
    known_moments: NDArray[np.int64] | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (N, C, side, side), gathered into memory."""
        return self.stored[self.at]

    @property
    def moments(self) -> NDArray[np.int64]:
        """int64 (N, C, 2): sum and sum of squares of the levels of each channel of each square."""
        if self.known_moments is not None:
            return self.known_moments
        return np.concatenate([np.stack([moments(square) for square in chunk]) for chunk in self.chunks()])

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """`pixels`, some images at a time."""
        yield from gather(self.stored, self.at)


def moments(square: NDArray[np.uint8]) -> NDArray[np.int64]:
    """An image set's moments, of one image: int64 (C, 2), sum and sum of squares of the levels of each channel."""
    levels = square.reshape(len(square), -1).astype(np.int64)
    return np.stack((levels.sum(axis=1), (levels * levels).sum(axis=1)), axis=1)


def gather(images: Pixels, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """An image set's pixels in some rows, `images[rows]`, gathered a few megabytes at a time."""
    size = max(1, CHUNK_BYTES // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(rows), size):
        yield images[rows[start : start + size]]


def fingerprint(splits: Mapping[str, HashedImages], class_names: Sequence[str]) -> str:
    """An image set's fingerprint, or several's: 16 hex digits of SHA-256 over (split, class, digest), in any order."""
    lines = sorted(
        f"{split}\t{class_names[label]}\t{digest.tobytes().hex()}"
        for split, images in splits.items()
        for label, digest in zip(images.labels, images.digests, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def hash_of(*parts: str) -> str:
    """An image set's hash, by which it is known: SHA-256 of the parts, in hexadecimal."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
