"""Decoded images with their labels: what a split is once it is ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledImages:
    """One split, decoded.

    Attributes:
        pixels: uint8 (N, C, side, side).
        labels: int64 (N,).
        keys: name of each image in its source.
        digests: uint8 (N, 32), SHA-256 of the source pixels.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]
    digests: NDArray[np.uint8]

    def in_content_order(self) -> LabelledImages:
        """Sorted by (digest, label), so that equal images train alike whatever their files are called."""
        rows = range(len(self.labels))
        return self.rows(sorted(rows, key=lambda i: (self.digests[i].tobytes(), int(self.labels[i]), self.keys[i])))

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> LabelledImages:
        """A selection, in the order given."""
        keys = tuple(self.keys[i] for i in rows)
        return LabelledImages(self.pixels[rows], self.labels[rows], keys, self.digests[rows])

    def with_pixels(self, pixels: NDArray[np.uint8]) -> LabelledImages:
        """The same images at another size."""
        return replace(self, pixels=pixels)

    def __len__(self) -> int:
        return len(self.labels)


def fingerprint(rows: Iterable[tuple[str, str, NDArray[np.uint8]]]) -> str:
    """Sixteen hex digits of SHA-256 over (split, class, digest), whatever the order of the rows."""
    lines = sorted(f"{split}\t{name}\t{digest.tobytes().hex()}" for split, name, digest in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
