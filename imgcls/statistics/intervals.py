"""Intervals of a proportion, of a difference of two, of a mean of scores of the same images, of a mean over seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import sem
from scipy.stats import t as student_t

CONFIDENCE = 0.95
"""Confidence of every interval."""

QUANTILE = float(ndtri((1 + CONFIDENCE) / 2))
"""Standard errors from a score to the ends of its interval: 1.96, the normal distribution's quantile."""

SHARES = (0.0, 1.0)
"""The least and the greatest value of a share."""

DIFFERENCES_OF_SHARES = (-1.0, 1.0)
"""The least and the greatest value of a difference of two shares."""

MAX_ROUNDS = 50
"""Largest number of rounds of the iteration; it takes about five."""

TOLERANCE = 1e-7
"""Change of an end, in the unit of the score, below which the iteration ends."""

Ends = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(K,) signed quantiles -> (K,) ends of the scores' own intervals at these quantiles."""


@dataclass(frozen=True)
class Interval:
    """A 95% confidence interval, both ends included.

    Attributes:
        low: in the unit of the score.
        high: at least `low`.
    """

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the ends."""
        return (self.high - self.low) / 2


NO_INTERVAL = Interval(math.nan, math.nan)
"""Stands where a score has no interval, such as that of images in too few groups."""


def wilson(num_correct: int, num_images: int, quantile: float = QUANTILE) -> Interval:
    """Interval of a proportion by Wilson, without continuity correction (Wilson 1927; Newcombe 1998, method 3).

    Args:
        num_correct: from 0 to `num_images`.
        num_images: at least 1.
        quantile: number of standard errors from the proportion to either end.

    Raises:
        ValueError: a count out of range.
    """
    if not 0 <= num_correct <= num_images or num_images < 1:
        raise ValueError(
            f"{num_correct} right of {num_images} images is not a proportion: give 0 <= right <= images >= 1"
        )
    share, trials = np.full(2, num_correct / num_images), np.full(2, float(num_images))
    low, high = wilson_ends(share, trials, np.array([-quantile, quantile]))
    return Interval(float(low), float(high))


def accuracy_interval(accuracy: float, num_images: int) -> Interval:
    """Interval of a proportion by Wilson's method: an accuracy of so many images, none of which come in groups."""
    return wilson(round(accuracy * num_images), num_images)


def wilson_ends(
    shares: NDArray[np.float64], num_trials: NDArray[np.float64], quantiles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ends of intervals of K proportions by Wilson's method: each lies so many standard errors from the observed share.

    Args:
        shares: float64 (K,), in [0, 1].
        num_trials: float64 (K,), above 0, and not necessarily whole.
        quantiles: float64 (K,): below 0 for a lower end, above 0 for an upper one.

    Returns:
        float64 (K,), in [0, 1].
    """
    weights = quantiles**2 / num_trials
    centres = (shares + weights / 2) / (1 + weights)
    half_widths = np.sqrt(weights * (shares * (1 - shares) + weights / 4)) / (1 + weights)
    ends = centres + np.sign(quantiles) * half_widths
    # Certain in exact arithmetic; rounding may miss it by the last digit.
    ends[((shares == 0) & (quantiles <= 0)) | (ends < 0)] = 0
    ends[((shares == 1) & (quantiles >= 0)) | (ends > 1)] = 1
    return np.where(quantiles == 0, shares, ends)


def difference_interval(first: float, first_interval: Interval, second: float, second_interval: Interval) -> Interval:
    """Interval of `first - second`, two independent proportions, from their Wilson intervals.

    Newcombe's hybrid score interval (Newcombe 1998, Statistics in Medicine 17:873-890, method 10), at the
    confidence of the two intervals given. It lies within [-1, 1].
    """
    below = math.hypot(first - first_interval.low, second_interval.high - second)
    above = math.hypot(first_interval.high - first, second - second_interval.low)
    return Interval(first - second - below, first - second + above)


def correlations(left_out: NDArray[np.float64], between_unmoved: float = 0.0) -> NDArray[np.float64]:
    """Intervals of K scores, joined to their mean's, need these correlations: of how much each falls without a unit.

    Args:
        left_out: float64 (K, U).
        between_unmoved: correlation of any two scores that no unit moves, such as those without a mistake. A score that
            no unit moves is independent of one that is moved.

    Returns:
        float64 (K, K).
    """
    products = left_out @ left_out.T
    lengths = np.sqrt(np.diag(products))
    is_moved = lengths > 1e-12
    found = np.where(np.outer(~is_moved, ~is_moved), between_unmoved, 0.0)
    np.divide(products, np.outer(lengths, lengths), out=found, where=np.outer(is_moved, is_moved))
    np.fill_diagonal(found, 1)
    return found


def interval_of_mean(
    values: NDArray[np.float64], ends: Ends, correlation: NDArray[np.float64], quantile: float
) -> Interval:
    """Interval of the mean of K scores of the same images, joined from their intervals.

    An end is the mean of K values that together lie `quantile` standard errors from the observed ones, in the direction
    in which the mean moves most: each score goes to the end of its own interval at a smaller quantile, and the standard
    errors are those at the ends. One score keeps its own interval. The idea is that of MOVER (Zou & Donner 2008,
    Statistics in Medicine 27:1693-1702), which goes to the ends at the whole quantile and thereby overstates the
    skewness of a mean of many; for independent proportions it is the score interval of Martín Andrés, Álvarez Hernández
    & Herranz Tejedor (2011, Statistical Methods in Medical Research 20:369-387).

    Args:
        values: float64 (K,), the scores.
        ends: gives the ends of their own intervals.
        correlation: float64 (K, K), of the scores.
        quantile: above 0.
    """

    def end(sign: int) -> float:
        steps = np.full(len(values), 1 / math.sqrt(len(values)))  # of one standard error in all, as if independent
        reached, before = math.inf, math.nan
        for _ in range(MAX_ROUNDS):
            quantiles = sign * quantile * steps
            moved = ends(quantiles)
            reached = float(moved.mean())
            errors = np.divide(moved - values, quantiles, out=np.zeros_like(values), where=quantiles != 0)
            pulls = correlation @ np.maximum(errors, 0)
            spread = math.sqrt(max(0.0, float(errors @ pulls)))
            if spread == 0 or abs(reached - before) < TOLERANCE:
                break
            before, steps = reached, pulls / spread
        return reached

    return Interval(end(-1), end(1))


def mean_interval(
    values: Sequence[float], *, step: float = 0.0, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Interval | None:
    """Interval of the mean that values are drawn around, such as scores of several seeds: Student's t, 95%.

    A share of n images moves in steps of 1/n, and few seeds often agree to the step. Their spread is then unknown, not
    0. A count that is sometimes one whole number and sometimes the next has a standard deviation of up to half a step
    (Popoviciu's inequality), so no smaller one is assumed.

    Args:
        values: at least two, finite.
        step: distance of neighbouring values, such as 1/n for shares of n images; 0 for values without steps.
        bounds: the least and the greatest value that a mean can have. The interval ends there at the latest.

    Returns:
        The interval; None where values without steps are all equal, since nothing is known of their spread then.

    Raises:
        ValueError: fewer than two values, or one that is not finite or out of bounds.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values {list(values)} have no known spread: give at least two finite numbers")
    if min(values) < bounds[0] or max(values) > bounds[1]:
        raise ValueError(f"values {list(values)} leave the bounds {bounds}")
    # The mean of equal values may round to something else, and their spread to something above 0.
    spread = 0.0 if min(values) == max(values) else float(sem(values))
    spread = max(spread, step / 2 / math.sqrt(len(values)))
    if spread == 0:
        return None
    mean = min(max(float(np.mean(values)), min(values)), max(values))
    half_width = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread
    return Interval(max(mean - half_width, bounds[0]), min(mean + half_width, bounds[1]))


def interval_over_seeds(
    values: Sequence[float], *, is_share: bool, num_counted: int | None = None, of_differences: bool = False
) -> Interval | None:
    """Interval of the mean of a metric over seeds, each of which was scored on the same images: 95%.

    Args:
        values: the metric of each seed.
        is_share: whether values of the metric lie in [0, 1].
        num_counted: images of which each value is a count, as an accuracy is; None for other metrics.
        of_differences: the values are differences of the metric between two configurations, paired by seed.

    Returns:
        The interval; None for a single seed, or where nothing is known of the spread.
    """
    if len(values) < 2:
        return None
    if not is_share:
        return mean_interval(values)
    bounds = DIFFERENCES_OF_SHARES if of_differences else SHARES
    return mean_interval(values, step=1 / num_counted if num_counted else 0.0, bounds=bounds)
