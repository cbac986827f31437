"""The independent units of a sample: its images, or the groups (patients, panels, bursts) that they come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from imgcls.statistics.intervals import normal_quantile

MIN_GROUPS = 10
"""Groups below which no interval is given: with 8, those at 95 % held 92 to 99 % in simulations (docs/intervals.md)."""

NEGLIGIBLE = 1e-12
"""A variance below it is rounding."""


class Units:
    """The independent units of a sample, and how the scores vary between them.

    A score is described by its influence: by how much each image moves it, summing to 0. Its variance is then the sum
    of squares over independent units.

    Args:
        num_images: N.
        groups: N names of groups; none where every image stands for itself.
        confidence: of the intervals, in (0, 1).

    Attributes:
        num: number of units.
        are_groups: whether images come in groups.
        confidence: as given.

    Raises:
        ValueError: another number of groups than of images, or the confidence out of range.
    """

    def __init__(self, num_images: int, groups: Sequence[str] = (), confidence: float = 0.95) -> None:
        if len(groups) not in (0, num_images):
            raise ValueError(f"{len(groups)} groups for {num_images} images: give one for each image, or none")
        self._normal = normal_quantile(confidence)
        self.confidence = confidence
        self.are_groups = len(groups) > 0
        self.num = num_images
        self._of_image = np.arange(num_images)
        if self.are_groups:
            names, self._of_image = np.unique(np.asarray(groups), return_inverse=True)
            self.num = len(names)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the images of each unit: float64 (num, K) of values (N, K)."""
        if not self.are_groups:
            return values
        return np.stack([np.bincount(self._of_image, column, self.num) for column in values.T], axis=1)

    def num_with(self, images: NDArray[np.bool_]) -> int:
        """Number of units that have one of these images, bool (N,)."""
        return len(np.unique(self._of_image[images])) if self.are_groups else int(images.sum())

    def are_enough(self, *parts: NDArray[np.bool_]) -> bool:
        """Whether each part of the images, bool (N,), lies in enough groups for an interval; images alone always do."""
        return not self.are_groups or min(map(self.num_with, parts)) >= MIN_GROUPS

    def design_effects(
        self, sums: NDArray[np.float64], among: NDArray[np.bool_], variances: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How many images of these groups tell as much as one independent image (Kish 1965; Rao & Scott 1992).

        Rao & Scott, Biometrics 48:577-585: the variance between groups over that of independent images. It may come out
        below 1. Where all groups agree it is unknown, and a group counts as one image.

        Args:
            sums: float64 (num, K), influence of each unit on K scores.
            among: bool (N, K), images that count in each.
            variances: float64 (K,), of the scores if images were independent.

        Returns:
            float64 (K,).
        """
        if not self.are_groups:
            return np.ones(len(variances))
        num_units = np.array([self.num_with(column) for column in among.T])
        between = num_units / np.maximum(1, num_units - 1) * (sums**2).sum(axis=0)
        known = (between > NEGLIGIBLE) & (variances > NEGLIGIBLE)
        effects: NDArray[np.float64] = np.divide(between, variances, out=among.sum(axis=0) / num_units, where=known)
        return effects

    def quantile(self, sums: NDArray[np.float64]) -> float:
        """Student's quantile of a score with this influence of its units, (num,); the normal one for images alone.

        At most one degree of freedom fewer than there are groups. A few groups that make most of the spread leave
        fewer, by Satterthwaite's formula with their kurtosis (Satterthwaite 1946, Biometrics Bulletin 2:110-114).
        """
        if not self.are_groups:
            return self._normal
        num, squares = self.num, sums**2
        freedom = float(num - 1)
        if (total := float(squares.sum())) > NEGLIGIBLE:
            kurtosis = num * float(squares @ squares) / total**2
            freedom = min(freedom, 2 * num / (kurtosis - (num - 3) / (num - 1)))
        return float(student_t.ppf((1 + self.confidence) / 2, freedom))
