"""The sealed test split. This module alone reads its images, and only `evaluation/judge.py` may call `open`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.data import cache
from imgcls.data.decode import resize_squares
from imgcls.data.labelled import LabelledImages, fingerprint
from imgcls.data.sources import ImageTable
from imgcls.errors import UnreadableImagesError


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
    """Test images behind two doors: `hashes`, which is no look, and `open`, which is one.

    Args:
        table: the test images, undecoded.
        class_names: name of each label.
        decode_side: at which train is kept; the images go through the same resizing.
        image_size: side that the model sees, in pixels.
        channels: 1 or 3.
        skip_unreadable: leave unreadable images out instead of refusing them.
    """

    def __init__(
        self,
        table: ImageTable,
        class_names: tuple[str, ...],
        *,
        decode_side: int,
        image_size: int,
        channels: int,
        skip_unreadable: bool = False,
    ) -> None:
        self._table = table
        self._class_names = class_names
        self._decode_side = decode_side
        self._image_size = image_size
        self._channels = channels
        self._skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.hashes())

    def hashes(self) -> NDArray[np.uint8]:
        """Digests of the source pixels, uint8 (N, 32), and nothing else of the images.

        Raises:
            UnreadableImagesError: naming every unreadable test image.
        """
        return self._decode(0).digests

    def fingerprint(self) -> str:
        """Content hash of the test split: sixteen hex digits over (class, source pixels) of its images."""
        decoded = self._decode(0)
        names = [self._class_names[label] for label in decoded.labels]
        return fingerprint(("test", name, digest) for name, digest in zip(names, decoded.digests, strict=True))

    def open(self, look: Look) -> LabelledImages:
        """Decodes the test images. This is a look: write it down in the tracker first.

        Args:
            look: the record that the tracker already holds.
        """
        assert look.run_id, "a look needs its record before the split is opened"
        images = self._decode(self._decode_side).in_content_order()
        return images.with_pixels(resize_squares(images.pixels, self._image_size))

    def _decode(self, side: int) -> LabelledImages:
        title = "decoding test images" if side else "hashing test images"
        decoded = cache.decode(self._table, side, self._channels, title=title)
        if decoded.unreadable and not self._skip_unreadable:
            raise UnreadableImagesError(decoded.offenders(self._table))
        return decoded.labelled(self._table)
