"""Decoded images with their labels: what a split is once it is ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imgcls.data.decode import resize_squares

CHUNK_BYTES = 2**24
"""What passes through memory at a time where a whole split is read."""


class LabelledImages:
    """One split, decoded. A selection of its rows shares its pixels: a memory map stays one.

    Args:
        pixels: uint8 (M, C, side, side), mapped or in memory.
        labels: int64 (N,).
        keys: name of each image in its source.
        digests: uint8 (N, 32), SHA-256 of the source pixels.
        perceptual: uint64 (N,), difference hashes; by default 0, which says nothing.
        groups: name of each image's group, or none where images stand for themselves.
        at: int64 (N,), row of `pixels` that is each image's; by default the first is the first's, and so on.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        keys: tuple[str, ...],
        digests: NDArray[np.uint8],
        *,
        perceptual: NDArray[np.uint64] | None = None,
        groups: tuple[str, ...] = (),
        at: NDArray[np.int64] | None = None,
    ) -> None:
        self.stored = pixels
        self.labels = labels
        self.keys = keys
        self.digests = digests
        self.perceptual = np.zeros(len(labels), np.uint64) if perceptual is None else perceptual
        self.groups = groups
        self.at = np.arange(len(labels)) if at is None else at

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (N, C, side, side), gathered into memory."""
        return self.stored[self.at]

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
            perceptual=self.perceptual[chosen],
            groups=tuple(self.groups[i] for i in chosen) if self.groups else (),
            at=self.at[chosen],
        )

    def named(self, keys: Sequence[str]) -> LabelledImages:
        """The images of these names, in this order."""
        row = {key: i for i, key in enumerate(self.keys)}
        return self.rows([row[key] for key in keys])

    def resized(self, side: int) -> LabelledImages:
        """The same images at another size, in memory; this very split where they have that size."""
        if self.stored.shape[-1] == side:
            return self
        small = np.empty((len(self), self.stored.shape[1], side, side), np.uint8)
        done = 0
        for chunk in self.chunks():
            small[done : done + len(chunk)] = resize_squares(chunk, side)
            done += len(chunk)
        return LabelledImages(
            small, self.labels, self.keys, self.digests, perceptual=self.perceptual, groups=self.groups
        )

    def __len__(self) -> int:
        return len(self.labels)


def content_order(digests: NDArray[np.uint8], labels: NDArray[np.int64], keys: Sequence[str]) -> list[int]:
    """Rows by (digest, label), and by name where those are equal."""
    return sorted(range(len(labels)), key=lambda i: (digests[i].tobytes(), int(labels[i]), keys[i]))


def gather(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """`images[rows]`, a few megabytes at a time."""
    size = max(1, CHUNK_BYTES // max(1, images[:1].size))
    for start in range(0, len(rows), size):
        yield images[rows[start : start + size]]


def fingerprint(rows: Iterable[tuple[str, str, NDArray[np.uint8]]]) -> str:
    """Sixteen hex digits of SHA-256 over (split, class, digest), whatever the order of the rows."""
    lines = sorted(f"{split}\t{name}\t{digest.tobytes().hex()}" for split, name, digest in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
