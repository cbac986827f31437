"""How an image becomes the input of a trained network: all that inference needs besides weights and class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .decode import resize_squares, to_square

if TYPE_CHECKING:
    from imgcls.config.key_types import Fit


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a run's val and test images.

    Attributes:
        channels: C, 1 (grey) or 3 (RGB).
        image_size: S, side of the square that the network sees, in pixels.
        fit: how an image becomes a square; `data.fit`.
        mean: per channel, in [0, 1], which is subtracted.
        std: per channel, in (0, 1], by which the difference is divided.
        squares: format in which images become squares, recorded as `imgcls.squares`.
        decode_side: side of the square that is made from the image, in pixels. It differs from `image_size` only in
            format 1, which resized that square once more.
    """

    channels: int
    image_size: int
    fit: Fit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    squares: int
    decode_side: int

    def square(self, image: Image.Image) -> NDArray[np.uint8]:
        """A decoded image, upright, of mode `L` or `RGB`, as the network's input before normalisation: uint8 (C, S, S).

        The same pixels as those on which the run was scored.
        """
        made = to_square(image, self.decode_side, self.channels, self.fit)
        square: NDArray[np.uint8] = resize_squares(made[None], self.image_size)[0]
        return square

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        plain = asdict(self)
        return plain | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Preprocessing:
        """From what `to_plain` gave.

        Raises:
            KeyError: an entry is missing.
        """
        whole = {name: plain[name] for name in cls.__dataclass_fields__}
        return cls(**whole | {"mean": tuple(plain["mean"]), "std": tuple(plain["std"])})
