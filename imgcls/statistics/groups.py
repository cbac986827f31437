"""Groups of images as the independent units of a sample: patients, panels, bursts; or else the images themselves."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from imgcls.statistics.intervals import CONFIDENCE, QUANTILE

MIN_GROUPS = 10
"""Smallest number of groups for an interval: with 8, 95 % intervals held 92 to 99 % in simulations."""

MIN_EQUAL_GROUPS = 4
"""Smallest effective number of groups for an interval: with fewer, most images are in a few of the groups."""

TOO_FEW = f"fewer than {MIN_GROUPS} groups, or groups so unequal that they count as fewer than {MIN_EQUAL_GROUPS}"
"""Reason why there is no interval, in words for a report."""

NEGLIGIBLE = 1e-12
"""Variance below which it is due to rounding alone."""


def too_few_groups(what: str) -> str:
    """Too few groups for an interval: why there is none, said of a subject such as `a class is`."""
    return f"{what} in {TOO_FEW}"


def about_groups(num_groups: int, *, has_intervals: bool) -> str:
    """Statistics of groups in a sentence: how many there are, and what follows for the intervals."""
    said = "the intervals count groups as independent, by a design effect (Rao and Scott 1992) with Student's t"
    if not has_intervals:
        said = f"no interval is given, because there are {TOO_FEW}"
    return f"The images come in {num_groups} groups, and {said}."


class Units:
    """Statistics of groups, or of single images, as independent units of a sample: how a score varies between them.

    The influence of an image is how much the image moves a score. Influences sum to 0, and the variance of the score is
    the sum of squares over independent units.

    Args:
        num_images: N.
        groups: N names of groups; none where every image stands for itself.

    Attributes:
        num: number of units, U.
        effective: number of units of equal size that would carry the same information (Kish 1965); equal to `num` where
            the sizes are equal.
        are_groups: whether images come in groups.

    Raises:
        ValueError: another number of groups than of images.
    """

    def __init__(self, num_images: int, groups: Sequence[str] = ()) -> None:
        if len(groups) not in (0, num_images):
            raise ValueError(f"{len(groups)} groups for {num_images} images: give one for each image, or none")
        self.are_groups = len(groups) > 0
        self.num = num_images
        self.effective = float(num_images)
        if self.are_groups:
            names, self._of_image = np.unique(np.asarray(groups), return_inverse=True)
            self.num = len(names)
            self.effective = num_images**2 / float((np.bincount(self._of_image) ** 2).sum())

    def sums(self, values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sums of values (N,) over the images of each unit: float64 (U,)."""
        sums: NDArray[np.float64] = values.astype(np.float64)
        if self.are_groups:
            sums = np.bincount(self._of_image, sums, self.num).astype(np.float64)
        return sums

    def left_out(self, influence: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How much the score falls when a unit is left out: the delete-one-group jackknife, to first order.

        A large group pulls the score towards itself, so the distance between the two is too small. The distance from
        the score of all other groups is not (MacKinnon, Nielsen & Webb 2023, Journal of Applied Econometrics
        38:671-694).

        Args:
            influence: float64 (N,), of each image on the score.
            among: bool (N,), images that the score is made of.

        Returns:
            float64 (U,); the influence itself where every image stands for itself.
        """
        sums = self.sums(influence)
        if not self.are_groups:
            return sums
        others = 1 - self.sums(among) / max(1, among.sum())
        moved: NDArray[np.float64] = np.divide(sums, others, out=np.zeros_like(sums), where=others > 0)
        return moved

    def num_with(self, images: NDArray[np.bool_]) -> int:
        """Number of units that have one of these images, bool (N,)."""
        return int((self.sums(images) > 0).sum())

    def are_enough(self, parts: Iterable[NDArray[np.bool_]]) -> bool:
        """Whether each part of the images, bool (N,), lies in enough groups for an interval; images alone always do."""
        if not self.are_groups:
            return True
        return self.effective >= MIN_EQUAL_GROUPS and min(map(self.num_with, parts)) >= MIN_GROUPS

    def design_effect(self, left_out: NDArray[np.float64], among: NDArray[np.bool_], variance: float) -> float:
        """Number of images of these groups that carry the information of one independent image.

        Kish 1965; Rao & Scott 1992, Biometrics 48:577-585: the variance between groups over that of independent images.
        It may be below 1. Where all groups agree it is unknown, and the images of a group are taken to be all alike.

        Args:
            left_out: float64 (U,), how much the score falls without each unit.
            among: bool (N,), images that the score is made of.
            variance: of the score if images were independent.
        """
        if not self.are_groups:
            return 1.0
        num = self.num_with(among)
        between = (num - 1) / num * float(left_out @ left_out)
        if between > NEGLIGIBLE and variance > NEGLIGIBLE:
            return between / variance
        sizes = self.sums(among)
        return float(sizes @ sizes / sizes.sum())

    def quantile(self, left_out: NDArray[np.float64]) -> float:
        """Student's quantile of a score, by how much it falls without each unit, (U,); the normal one for images alone.

        One degree of freedom fewer than the effective number of groups. A few groups that make most of the spread
        leave fewer, by Satterthwaite's formula with their kurtosis (Satterthwaite 1946, Biometrics Bulletin 2:110-114).
        """
        if not self.are_groups:
            return QUANTILE
        num, squares = self.num, left_out**2
        freedom = self.effective - 1
        if (total := float(squares.sum())) > NEGLIGIBLE:
            kurtosis = num * float(squares @ squares) / total**2
            freedom = min(freedom, 2 * num / (kurtosis - (num - 3) / (num - 1)))
        return float(student_t.ppf((1 + CONFIDENCE) / 2, freedom))
