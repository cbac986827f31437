"""Which flips and turns leave the classes as they are, found from the images themselves.

If a class is as likely to be seen mirrored as not, the mean of (image - its mirror image) over the class is near zero.
Where images have a direction, as digits have, a large share of that difference is the same in all of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_IMAGES = 20
"""Images that a class needs, so that chance is told from a direction."""

MOST_DIRECTED, MOST_OF_A_CLASS = 0.04, 0.3
"""Largest systematic share of the difference between an image and its mirror image that counts as none, over all
classes and in a single one. Seen over all: solar cells 0.01; photographs of clothes 0.02 left to right, 0.06 to 0.08
upside down; Fashion-MNIST 0.26; digits 0.36. In a single class, at most: photographs 0.09 and 0.2, digits 0.7."""


class Directed(NamedTuple):
    """How much of the difference between images and what a flip makes of them is systematic.

    Attributes:
        overall: mean share over the images, each with the share of its class.
        largest: that of the most directed class.
    """

    overall: float
    largest: float

    @property
    def is_next_to_nothing(self) -> bool:
        """Whether the flip leaves every class as it is."""
        return self.overall <= MOST_DIRECTED and self.largest <= MOST_OF_A_CLASS


@dataclass(frozen=True)
class Symmetry:
    """The symmetry of images in their classes; None where there are too few images to see it.

    Attributes:
        across: when left and right change places.
        down: when top and bottom do.
        turned: when rows and columns do.
    """

    across: Directed | None
    down: Directed | None
    turned: Directed | None

    @property
    def allows_horizontal_flip(self) -> bool:
        """Whether the mirror image of an image looks like its class."""
        return self.across is not None and self.across.is_next_to_nothing

    @property
    def allows_vertical_flip(self) -> bool:
        """Whether an image upside down looks like its class."""
        return self.down is not None and self.down.is_next_to_nothing

    @property
    def allows_quarter_turns(self) -> bool:
        """Whether an image that is turned by 90 degrees looks like its class."""
        turned = self.turned is not None and self.turned.is_next_to_nothing
        return turned and self.allows_horizontal_flip and self.allows_vertical_flip


def symmetry_of(images: NDArray[np.float32], labels: NDArray[np.int64]) -> Symmetry:
    """The symmetry of images (N, S, S), any S, with labels int64 (N,)."""
    return Symmetry(
        _directed(images - images[:, :, ::-1], labels),
        _directed(images - images[:, ::-1], labels),
        _directed(images - images.transpose(0, 2, 1), labels),
    )


def _directed(differences: NDArray[np.float32], labels: NDArray[np.int64]) -> Directed | None:
    """The systematic share of the squared differences; None without a class that is large enough.

    Of n differences d, mean(d)^2 has the expectation share * mean(d^2) + (1 - share) * mean(d^2) / n, solved for share.
    """
    shares, weights = [], []
    for label in np.unique(labels):
        of_class = differences[labels == label].reshape(np.count_nonzero(labels == label), -1)
        num, power = len(of_class), float((of_class**2).sum(axis=1).mean())
        if num >= LEAST_IMAGES and power > 0:
            of_mean = float((of_class.mean(axis=0) ** 2).sum())
            shares.append((num * of_mean - power) / ((num - 1) * power))
            weights.append(num)
    if not shares:
        return None
    return Directed(max(0.0, float(np.average(shares, weights=weights))), max(0.0, *shares))
