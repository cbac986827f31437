"""Two classifiers on the same images: tests, and the interval of the difference of their accuracies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from imgcls.statistics.groups import Units
from imgcls.statistics.intervals import QUANTILE, Interval, wilson_ends


@dataclass(frozen=True)
class McNemar:
    """McNemar's paired test of two classifiers on the same images.

    Attributes:
        only_first: images that the first alone predicts right.
        only_second: images that the second alone predicts right.
        p_value: two-sided, in (0, 1]: how often two equally good classifiers would differ at least so much.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_], groups: Sequence[str] = ()) -> McNemar:
    """The paired test whether two classifiers are right equally often, by the images on which exactly one of them is.

    The exact conditional test: such an image is the first's or the second's with probability 1/2 each (McNemar 1947,
    Psychometrika 12:153-157, with the binomial in place of its approximation). Images of a group are not independent,
    so with groups the balance of each whole group is the first's or the second's with probability 1/2: Fisher's test of
    sign changes, which is McNemar's where each image is a group. Its p-value counts half of the ties with what was
    observed (mid-p), since few groups leave few possible sums. It knows nothing of how much another training of the
    same two would differ.

    Args:
        first_correct: bool (N,), N >= 1, whether the first classifier is right on each image.
        second_correct: bool (N,), the same images in the same order.
        groups: name of each image's group; none where every image stands for itself.

    Returns:
        The two counts and the p-value, 1 where no image is predicted right by exactly one of them.

    Raises:
        ValueError: other shapes or types, no images.
    """
    _check_paired(first_correct, second_correct)
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((second_correct & ~first_correct).sum())
    if groups:
        units = Units(len(first_correct), groups)
        balances = units.sums(first_correct.astype(float) - second_correct)
        return McNemar(only_first, only_second, _sign_change_p_value(np.abs(balances).astype(int), int(balances.sum())))
    num_either = only_first + only_second
    p_value = float(binomtest(only_first, num_either).pvalue) if num_either else 1.0
    return McNemar(only_first, only_second, p_value)


def paired_interval(
    first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_], groups: Sequence[str] = ()
) -> Interval | None:
    """Paired accuracies' difference: its 95% interval, with a design effect where images come in groups.

    The four counts are divided by the design effect of the difference (Rao & Scott 1992, Biometrics 48:577-585), and
    the quantile is Student's.

    Args:
        first_correct: bool (N,), N >= 1, whether the first classifier is right on each image.
        second_correct: bool (N,), the same images in the same order.
        groups: name of each image's group; none where every image stands for itself.

    Returns:
        The interval; None where there are too few groups for one.

    Raises:
        ValueError: other shapes or types, no images.
    """
    _check_paired(first_correct, second_correct)
    units, num_images = Units(len(first_correct), groups), len(first_correct)
    everything = np.ones(num_images, np.bool_)
    if not units.are_enough([everything]):
        return None
    differences = first_correct.astype(float) - second_correct
    influence = (differences - differences.mean()) / num_images
    left_out = units.left_out(influence, everything)
    effect = units.design_effect(left_out, everything, float(influence @ influence))
    cells = (
        first_correct & second_correct,
        first_correct & ~second_correct,
        second_correct & ~first_correct,
        ~first_correct & ~second_correct,
    )
    both, only_first, only_second, neither = (int(cell.sum()) / effect for cell in cells)
    return paired_difference_interval(both, only_first, only_second, neither, units.quantile(left_out))


def holm(p_values: Sequence[float]) -> list[float]:
    """Paired tests, several at once: adjusts their p-values for their number, by Holm's method.

    Holm's step-down procedure (Holm 1979, Scandinavian Journal of Statistics 6:65-70): rejecting where the adjusted
    value is at most a rejects one true hypothesis or more with probability at most a, however the tests depend on each
    other.

    Args:
        p_values: each in [0, 1].

    Returns:
        As many, in the order given, each at least its own p-value and at most 1.

    Raises:
        ValueError: a p-value out of range.
    """
    raw = np.asarray(p_values, np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"p-values {list(p_values)}: give numbers from 0 to 1")
    order = np.argsort(raw)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return [float(value) for value in adjusted]


def paired_difference_interval(
    both: float, only_first: float, only_second: float, neither: float, quantile: float = QUANTILE
) -> Interval:
    """Paired accuracies' difference from counts of images: its interval, the first minus the second.

    Newcombe's hybrid score interval with the corrected correlation (Newcombe 1998, Statistics in Medicine
    17:2635-2650, method 10). It does not narrow to a point where the two never differ.

    Args:
        both: images that both predict right; counts need not be whole. The four sum to more than 0.
        only_first: images that the first alone predicts right.
        only_second: images that the second alone predicts right.
        neither: images that both predict wrong.
        quantile: standard errors from the difference to either end.
    """
    num = both + only_first + only_second + neither
    shares, trials = np.array([both + only_first, both + only_second]) / num, np.full(2, num)
    lows, highs = (wilson_ends(shares, trials, np.full(2, q)) for q in (-quantile, quantile))
    phi = _corrected_phi(both, only_first, only_second, neither)

    def length(to_first: float, to_second: float) -> float:
        return math.sqrt(to_first**2 - 2 * phi * to_first * to_second + to_second**2)

    difference = float(shares[0] - shares[1])
    below = length(float(shares[0] - lows[0]), float(highs[1] - shares[1]))
    above = length(float(highs[0] - shares[0]), float(shares[1] - lows[1]))
    return Interval(difference - below, difference + above)


def _corrected_phi(both: float, only_first: float, only_second: float, neither: float) -> float:
    """The correlation of the two classifiers' being right, moved towards 0 where positive; 0 where undefined."""
    margins = (both + only_first, only_second + neither, both + only_second, only_first + neither)
    if 0 in margins:
        return 0.0
    determinant = both * neither - only_first * only_second
    if determinant > 0:
        determinant = max(determinant - (both + only_first + only_second + neither) / 2, 0)
    return determinant / math.prod(math.sqrt(margin) for margin in margins)


def _sign_change_p_value(sizes: NDArray[np.int64], observed: int) -> float:
    """How often the sum of the sizes with signs by chance is farther from 0 than observed; as far counts half."""
    total = int(sizes.sum())
    probabilities = np.zeros(2 * total + 1)  # of the sums -total .. total
    probabilities[total] = 1
    for size in sizes[sizes > 0]:
        probabilities = (np.roll(probabilities, size) + np.roll(probabilities, -size)) / 2
    distances = np.abs(np.arange(-total, total + 1))
    beyond, as_far = (
        float(probabilities[where].sum()) for where in (distances > abs(observed), distances == abs(observed))
    )
    return beyond + as_far / 2 if total else 1.0


def _check_paired(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> None:
    for name, correct in (("first_correct", first_correct), ("second_correct", second_correct)):
        if correct.ndim != 1 or not len(correct) or correct.dtype != np.bool_:
            raise ValueError(f"{name} is {correct.dtype} {correct.shape}: give bool (N,) of at least one image")
    if len(first_correct) != len(second_correct):
        raise ValueError(f"{len(first_correct)} against {len(second_correct)} images: give the same images twice")
