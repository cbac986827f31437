"""Decoded images with their labels: what a split is once it is ready to train on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imgcls.data.decode_on_demand import Undecoded
from imgcls.data.sketches import SKETCH_BYTES

Pixels = NDArray[np.uint8] | Undecoded
"""Squares uint8 (M, C, side, side), mapped, in memory, or yet to be decoded; rows are asked for by an int64 array."""

CHUNK_BYTES = 2**24
"""What passes through memory at a time where a whole split is read."""


class LabelledImages:
    """One split. A selection of its rows shares its pixels: a memory map stays one.

    Args:
        pixels: uint8 (M, C, side, side).
        labels: int64 (N,).
        keys: name of each image in its source.
        digests: uint8 (N, 32), SHA-256 of the source pixels.
        sketches: uint8 (N, 272), see `sketches`; by default 0, which says nothing.
        groups: name of each image's group, or none where images stand for themselves.
        moments: int64 (N, C, 2), what `moments` gives of each square; by default they are counted when asked for.
        at: int64 (N,), row of `pixels` that is each image's; by default the first is the first's, and so on.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: NDArray[np.int64],
        keys: tuple[str, ...],
        digests: NDArray[np.uint8],
        *,
        sketches: NDArray[np.uint8] | None = None,
        groups: tuple[str, ...] = (),
        moments: NDArray[np.int64] | None = None,
        at: NDArray[np.int64] | None = None,
    ) -> None:
        self.stored = pixels
        self.labels = labels
        self.keys = keys
        self.digests = digests
        self.sketches = np.zeros((len(labels), SKETCH_BYTES), np.uint8) if sketches is None else sketches
        self.groups = groups
        self._moments = moments
        self.at = np.arange(len(labels)) if at is None else at

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (N, C, side, side), gathered into memory."""
        return self.stored[self.at]

    @property
    def moments(self) -> NDArray[np.int64]:
        """int64 (N, C, 2): sum and sum of squares of the levels of each square's channels."""
        if self._moments is None:
            self._moments = np.concatenate([np.stack([moments(square) for square in chunk]) for chunk in self.chunks()])
        return self._moments

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """`pixels`, some images at a time."""
        yield from gather(self.stored, self.at)

    def in_content_order(self) -> LabelledImages:
        """Sorted by (digest, label), so that equal images train alike whatever their files are called."""
        return self.rows(content_order(self.digests, self.labels, self.keys))

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> LabelledImages:
        """A selection, in the order given."""
        chosen = np.asarray(rows, np.int64)
        return LabelledImages(
            self.stored,
            self.labels[chosen],
            tuple(self.keys[i] for i in chosen),
            self.digests[chosen],
            sketches=self.sketches[chosen],
            groups=tuple(self.groups[i] for i in chosen) if self.groups else (),
            moments=None if self._moments is None else self._moments[chosen],
            at=self.at[chosen],
        )

    def named(self, keys: Sequence[str]) -> LabelledImages:
        """The images of these names, in this order."""
        row = {key: i for i, key in enumerate(self.keys)}
        return self.rows([row[key] for key in keys])

    def with_pixels(self, pixels: Pixels, at: NDArray[np.int64] | None = None) -> LabelledImages:
        """The same images with other pixels, such as those of another size.

        Args:
            pixels: uint8 (M, C, side, side).
            at: int64 (N,), as the class has it.
        """
        return LabelledImages(
            pixels, self.labels, self.keys, self.digests, sketches=self.sketches, groups=self.groups, at=at
        )

    def __len__(self) -> int:
        return len(self.labels)


def moments(square: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 (C, 2): sum and sum of squares of the levels of each channel of a square, uint8 (C, side, side)."""
    levels = square.reshape(len(square), -1).astype(np.int64)
    return np.stack((levels.sum(axis=1), (levels * levels).sum(axis=1)), axis=1)


def content_order(digests: NDArray[np.uint8], labels: NDArray[np.int64], keys: Sequence[str]) -> list[int]:
    """Rows by (digest, label), and by name where those are equal."""
    return sorted(range(len(labels)), key=lambda i: (digests[i].tobytes(), int(labels[i]), keys[i]))


def gather(images: Pixels, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """`images[rows]`, a few megabytes at a time."""
    size = max(1, CHUNK_BYTES // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(rows), size):
        yield images[rows[start : start + size]]


def fingerprint(rows: Iterable[tuple[str, str, NDArray[np.uint8]]]) -> str:
    """Sixteen hex digits of SHA-256 over (split, class, digest), whatever the order of the rows."""
    lines = sorted(f"{split}\t{name}\t{digest.tobytes().hex()}" for split, name, digest in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
