"""Images that are decoded each time they are asked for, because the cache has no room for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.config.key_types import Fit
from imgcls.data.decode import digest, resize_squares, to_square
from imgcls.errors import DataError, UnreadableImageError


@dataclass(frozen=True)
class PixelsOnDemand:
    """Pixels that are decoded on demand: stands in for a uint8 array (M, C, side, side), and gives the same numbers.

    Attributes:
        read: row of the source -> image.
        path: row of the source -> where the image is, for people.
        kept: int64 (M,), rows of the source.
        digests: uint8 (M, 32), of the source pixels as they were when they were hashed.
        side: of the squares as they would have been cached.
        channels: 1 or 3.
        fit: how an image becomes a square.
        image_size: side to which the squares are resized then; 0 leaves them.
    """

    read: Callable[[int], Image.Image]
    path: Callable[[int], str]
    kept: NDArray[np.int64]
    digests: NDArray[np.uint8]
    side: int
    channels: int
    fit: Fit = "crop"
    image_size: int = 0

    dtype: ClassVar = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that this stands in for."""
        side = self.image_size or self.side
        return len(self.kept), self.channels, side, side

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decodes some rows, uint8 (len(rows), C, side, side).

        Raises:
            DataError: an image that has gone or changed since it was hashed.
        """
        squares = np.empty((len(rows), self.channels, self.side, self.side), np.uint8)
        for square, row in zip(squares, rows, strict=True):
            square[:] = self._square(int(row))
        return resize_squares(squares, self.shape[-1])

    def _square(self, row: int) -> NDArray[np.uint8]:
        path = self.path(int(self.kept[row]))
        try:
            image = self.read(int(self.kept[row]))
        except UnreadableImageError as error:
            raise DataError(f"{path} can no longer be read: {error}; put it back, and start again") from error
        if digest(image) != self.digests[row].tobytes():
            raise DataError(f"{path} has changed since the run began; start again")
        return to_square(image, self.side, self.channels, self.fit)
