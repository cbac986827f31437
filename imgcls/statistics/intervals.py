"""Intervals of a proportion, of a difference of two, and of a mean over seeds."""

import math
from collections.abc import Sequence
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


def wilson(num_correct: int, num_images: int, quantile: float = QUANTILE) -> Interval:
    """Wilson's score interval of a proportion, without continuity correction (Wilson 1927; Newcombe 1998, method 3).

    Args:
        num_correct: from 0 to `num_images`.
        num_images: at least 1.
        quantile: number of standard errors from the proportion to either end.

    Returns:
        An interval within [0, 1].

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
    """Wilson's interval of an accuracy that was counted on so many images, none of which come in groups."""
    return wilson(round(accuracy * num_images), num_images)


def wilson_ends(
    shares: NDArray[np.float64], num_trials: NDArray[np.float64], quantiles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ends of Wilson's score intervals of K proportions: each lies so many standard errors from the observed share.

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
    confidence of the two intervals given.

    Args:
        first: a proportion in [0, 1].
        first_interval: its Wilson interval.
        second: a proportion of other images.
        second_interval: its Wilson interval.

    Returns:
        An interval within [-1, 1].
    """
    below = math.hypot(first - first_interval.low, second_interval.high - second)
    above = math.hypot(first_interval.high - first, second - second_interval.low)
    return Interval(first - second - below, first - second + above)


def mean_interval(
    values: Sequence[float], *, step: float = 0.0, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Interval | None:
    """95% Student's t interval of the mean that the values are drawn around, such as scores of several seeds.

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
    values: Sequence[float], num_images: int, *, is_share: bool, of_differences: bool = False
) -> Interval | None:
    """The 95 % interval of the mean of a metric over seeds, each of which was scored on the same images.

    Args:
        values: the metric of each seed.
        num_images: behind each value.
        is_share: whether values of the metric lie in [0, 1].
        of_differences: the values are differences of the metric between two configurations, paired by seed.

    Returns:
        The interval; None for a single seed, or where nothing is known of the spread.
    """
    if len(values) < 2:
        return None
    if not is_share:
        return mean_interval(values)
    bounds = DIFFERENCES_OF_SHARES if of_differences else SHARES
    return mean_interval(values, step=1 / num_images, bounds=bounds)


NO_INTERVAL = Interval(math.nan, math.nan)
"""Stands where a score has no interval, such as that of images in too few groups."""
