"""The sealed test split. This module alone reads its images, and only `evaluation/judge.py` may call `open`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.data import cache
from imgcls.data.decode import resize_squares
from imgcls.data.labelled import LabelledImages, fingerprint
from imgcls.data.sources import ImageTable
from imgcls.errors import DataError


@dataclass(frozen=True)
class Look:
    """An opening of a test split that the tracker already knows of.

    Attributes:
        run_id: the evaluation run under which the look was written down.
        number: the how-manieth opening of this test split, from 1.
    """

    run_id: str
    number: int


class HeldOut:
    """Test images behind two doors: `hashes`, which is no look, and `open`, which is one."""

    def __init__(
        self, table: ImageTable, class_names: tuple[str, ...], *, decode_side: int, image_size: int, channels: int
    ) -> None:
        self._table = table
        self._class_names = class_names
        self._decode_side = decode_side
        self._image_size = image_size
        self._channels = channels

    def __len__(self) -> int:
        return len(self._table)

    def hashes(self) -> NDArray[np.uint8]:
        """Digests of the source pixels, uint8 (N, 32), and nothing else of the images.

        Raises:
            DataError: listing every unreadable test image.
        """
        decoded = cache.decode(self._table, 0, self._channels, title="hashing test images")
        if decoded.unreadable:
            offenders = [f"  {self._table.keys[row]}: {reason}" for row, reason in decoded.unreadable]
            raise DataError("\n".join(["unreadable images in the test split:", *offenders]))
        return decoded.digests

    def fingerprint(self) -> str:
        """Content hash of the test split: sixteen hex digits over (class, source pixels) of its images."""
        names = [self._class_names[label] for label in self._table.labels]
        return fingerprint(("test", name, digest) for name, digest in zip(names, self.hashes(), strict=True))

    def open(self, look: Look) -> LabelledImages:
        """Decodes the test images. This is a look: write it down in the tracker first.

        Args:
            look: the record that the tracker already holds.
        """
        assert look.run_id and look.number >= 1, "a look needs its record before the split is opened"
        decoded = cache.decode(self._table, self._decode_side, self._channels, title="decoding test images")
        images = LabelledImages.in_content_order(
            decoded.images, self._table.labels, self._table.keys, decoded.digests
        )
        return images.with_pixels(resize_squares(images.pixels, self._image_size))
