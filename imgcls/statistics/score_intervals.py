"""95% intervals of a classifier's scores, for other images of the same kind and the same classifier.

With groups, groups are the independent units. docs/intervals.md shows what each interval covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import sem, skew

from imgcls.statistics.groups import Units, too_few_groups
from imgcls.statistics.intervals import Interval, correlations, interval_of_mean, wilson, wilson_ends
from imgcls.statistics.predictions import Predictions

MIN_IMAGES_FOR_LOSS = 100
"""Images below which the loss has no interval: among fewer, a rare large loss is too likely to be missing."""

MIN_MINORITY_FOR_LOSS = 8
"""Images outside the largest class below which the loss has no interval, since the few large losses are theirs."""


def of_accuracy(of: Predictions) -> Interval | str:
    """A score's 95% interval: the accuracy's, from predictions, or why there is none."""
    return _accuracy(of.hits, of.units)


def hits_interval(hits: NDArray[np.bool_], groups: Sequence[str] = ()) -> Interval | None:
    """A score's 95% interval: the accuracy's, from hits, with a design effect where images come in groups.

    Args:
        hits: bool (N,), N >= 1, whether each image is predicted right.
        groups: name of each image's group; none where every image stands for itself.

    Returns:
        The interval; None where there are too few groups for one.
    """
    found = _accuracy(hits, Units(len(hits), groups))
    return found if isinstance(found, Interval) else None


def _accuracy(hits: NDArray[np.bool_], units: Units) -> Interval | str:
    if not units.are_groups:
        return wilson(int(hits.sum()), len(hits))
    everything = [np.ones(len(hits), np.bool_)]
    if not units.are_enough(everything):
        return too_few_groups("the images are")
    return _Shares.of(hits, everything, units).interval_of_mean(units)


def of_balanced_accuracy(of: Predictions) -> Interval | str:
    """A score's 95% interval: the balanced accuracy's, or why there is none."""
    is_of = [of.labels == label for label in np.unique(of.labels)]
    if not of.units.are_enough(is_of):
        return too_few_groups("a class is")
    return _Shares.of(of.hits, is_of, of.units).interval_of_mean(of.units)


def of_macro_f1(of: Predictions) -> Interval | str:
    """A score's 95% interval: the macro-F1's, or why there is none.

    F1 is 2 J / (1 + J), with Jaccard's J: the share of hits among the images that are or are called of a class.
    """
    labels, classes, units = of.labels, of.classes, of.units
    if not units.are_enough(labels == label for label in np.unique(labels)):
        return too_few_groups("a class is")
    parts = [(labels == label) | (classes == label) for label in np.union1d(labels, classes)]
    shares = _Shares.of(of.hits, parts, units)
    slopes = 2 / (1 + shares.values) ** 2  # the derivative of F1 by J
    # A mistake lowers the F1 of two classes: of both where there are two, else of one in K - 1 others.
    correlation = correlations(shares.left_out, between_unmoved=1 / max(1, len(parts) - 1))
    quantile = units.quantile(slopes @ shares.left_out / len(parts))
    return interval_of_mean(_f1(shares.values), lambda at: _f1(shares.ends(at)), correlation, quantile)


def _f1(jaccard: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * jaccard / (1 + jaccard)


@dataclass(frozen=True)
class _Shares:
    """K shares of images that are predicted right, each among other images of the same sample.

    Attributes:
        values: float64 (K,).
        num_trials: float64 (K,), independent images behind each.
        left_out: float64 (K, U), how much each share falls without each independent unit.
    """

    values: NDArray[np.float64]
    num_trials: NDArray[np.float64]
    left_out: NDArray[np.float64]

    @classmethod
    def of(cls, hits: NDArray[np.bool_], parts: Sequence[NDArray[np.bool_]], units: Units) -> _Shares:
        """Of the hits, bool (N,), among each of K parts of the images, bool (N,)."""
        values, num_trials = np.empty((2, len(parts)))
        left_out = np.empty((len(parts), units.num))
        for row, part in enumerate(parts):
            num_images = part.sum()
            values[row] = value = hits[part].mean()
            left_out[row] = units.left_out((hits - value) * part / num_images, part)
            num_trials[row] = num_images / units.design_effect(left_out[row], part, value * (1 - value) / num_images)
        return cls(values, num_trials, left_out)

    def ends(self, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ends of the shares' Wilson intervals at signed quantiles, (K,)."""
        return wilson_ends(self.values, self.num_trials, quantiles)

    def interval_of_mean(self, units: Units) -> Interval:
        """Of the mean of the shares."""
        quantile = units.quantile(self.left_out.mean(axis=0))
        return interval_of_mean(self.values, self.ends, correlations(self.left_out), quantile)


def of_loss(of: Predictions) -> Interval | str:
    """A score's 95% interval: the loss's, or why there is none."""
    losses, labels, units = -of.log_probs(of.labels), of.labels, of.units
    everything = np.ones(len(losses), np.bool_)
    if not units.are_enough([everything]):
        return too_few_groups("the images are")
    if len(losses) < MIN_IMAGES_FOR_LOSS:
        return f"fewer than {MIN_IMAGES_FOR_LOSS} images"
    if len(labels) - np.bincount(labels).max() < MIN_MINORITY_FOR_LOSS:
        return f"fewer than {MIN_MINORITY_FOR_LOSS} images outside the largest class"
    mean = float(losses.mean())
    left_out = units.left_out((losses - mean) / len(losses), everything)
    # One for each independent unit, with the same mean; of images alone their losses.
    values = mean + (units.num - units.are_groups) * (left_out - left_out.mean())
    if np.ptp(values) <= 1e-9 * mean:
        return "all losses are equal"
    quantile = units.quantile(left_out)
    # A loss has no upper limit, so the upper end allows for one more value as large as the largest.
    return Interval(max(0.0, _hall_end(values, -quantile)), _hall_end(np.append(values, values.max()), quantile))


def _hall_end(values: NDArray[np.float64], quantile: float) -> float:
    """An end of the t interval of a mean, corrected for skewness (Hall 1992, J. R. Stat. Soc. B 54:221-228).

    Args:
        values: float64 (U,), not all equal.
        quantile: below 0 for the lower end, above 0 for the upper.
    """
    of_mean = float(skew(values)) / math.sqrt(len(values))
    if abs(of_mean) > 1e-6:
        quantile = -3 / of_mean * (float(np.cbrt(1 - of_mean * (quantile + of_mean / 6))) - 1)
    return float(values.mean()) + quantile * float(sem(values))
