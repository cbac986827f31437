"""The independent units of a sample: its images, or the groups (patients, panels, bursts) that they come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from imgcls.statistics.intervals import normal_quantile

MIN_GROUPS = 10
"""Groups below which no interval is given: with 8, those at 95 % held 92 to 99 % in simulations (docs/intervals.md)."""

MIN_EQUAL_GROUPS = 4
"""Effective number of groups below which no interval is given, however many there are: most images are in a few."""

TOO_FEW = f"fewer than {MIN_GROUPS} groups, or groups so unequal that they count as fewer than {MIN_EQUAL_GROUPS}"
"""What has no interval, in words for a report."""

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
        effective: number of units of equal size that would tell as much (Kish 1965); all of them where they are equal.
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
        self.effective = float(num_images)
        self._of_image = np.arange(num_images)
        if self.are_groups:
            names, self._of_image = np.unique(np.asarray(groups), return_inverse=True)
            self.num = len(names)
            self.effective = num_images**2 / float((np.bincount(self._of_image) ** 2).sum())

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the images of each unit: float64 (num, K) of values (N, K)."""
        if not self.are_groups:
            return values
        return np.stack([np.bincount(self._of_image, column, self.num) for column in values.T], axis=1)

    def left_out(self, influence: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.float64]:
        """By how much each score falls when a unit is left out: the delete-one-group jackknife, to first order.

        A large group pulls the score towards itself, so its own distance from it is too small; without the group it is
        not (MacKinnon, Nielsen & Webb 2023, Journal of Applied Econometrics 38:671-694).

        Args:
            influence: float64 (N, K), by how much each image moves K scores.
            among: bool (N, K), images that count in each.

        Returns:
            float64 (num, K). For images alone their influence.
        """
        sums = self.sums(influence)
        if not self.are_groups:
            return sums
        others = 1 - self.sums(among.astype(np.float64)) / np.maximum(1, among.sum(axis=0))
        moved: NDArray[np.float64] = np.divide(sums, others, out=np.zeros_like(sums), where=others > 0)
        return moved

    def num_with(self, images: NDArray[np.bool_]) -> int:
        """Number of units that have one of these images, bool (N,)."""
        return len(np.unique(self._of_image[images])) if self.are_groups else int(images.sum())

    def are_enough(self, *parts: NDArray[np.bool_]) -> bool:
        """Whether each part of the images, bool (N,), lies in enough groups for an interval; images alone always do."""
        if not self.are_groups:
            return True
        return self.effective >= MIN_EQUAL_GROUPS and min(map(self.num_with, parts)) >= MIN_GROUPS

    def design_effects(
        self, left_out: NDArray[np.float64], among: NDArray[np.bool_], variances: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How many images of these groups tell as much as one independent image (Kish 1965; Rao & Scott 1992).

        Rao & Scott, Biometrics 48:577-585: the variance between groups over that of independent images. It may come out
        below 1. Where all groups agree it is unknown, and taken as if the images of a group were all alike.

        Args:
            left_out: float64 (num, K), by how much K scores fall without each unit.
            among: bool (N, K), images that count in each.
            variances: float64 (K,), of the scores if images were independent.

        Returns:
            float64 (K,).
        """
        if not self.are_groups:
            return np.ones(len(variances))
        num_units = np.array([self.num_with(column) for column in among.T])
        between = (num_units - 1) / num_units * (left_out**2).sum(axis=0)
        known = (between > NEGLIGIBLE) & (variances > NEGLIGIBLE)
        sizes = self.sums(among.astype(np.float64))
        effects: NDArray[np.float64] = np.divide(
            between, variances, out=(sizes**2).sum(axis=0) / sizes.sum(axis=0), where=known
        )
        return effects

    def quantile(self, left_out: NDArray[np.float64]) -> float:
        """Student's quantile of a score that falls so much without each unit, (num,); the normal one for images alone.

        One degree of freedom fewer than the effective number of groups. A few groups that make most of the spread
        leave fewer, by Satterthwaite's formula with their kurtosis (Satterthwaite 1946, Biometrics Bulletin 2:110-114).
        """
        if not self.are_groups:
            return self._normal
        num, squares = self.num, left_out**2
        freedom = self.effective - 1
        if (total := float(squares.sum())) > NEGLIGIBLE:
            kurtosis = num * float(squares @ squares) / total**2
            freedom = min(freedom, 2 * num / (kurtosis - (num - 3) / (num - 1)))
        return float(student_t.ppf((1 + self.confidence) / 2, freedom))
