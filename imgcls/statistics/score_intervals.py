"""Intervals of a classifier's scores, for other images of the same kind and the same classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import sem, skew

from imgcls.statistics.groups import TOO_FEW, Units, about_groups
from imgcls.statistics.interval_of_mean import correlations, interval_of_mean
from imgcls.statistics.intervals import Interval, wilson, wilson_ends
from imgcls.statistics.predictions import LogProbs, check_scored

MIN_IMAGES_FOR_LOSS = 100
"""Images below which the loss has no interval: among fewer, a rare large loss is too likely to be missing."""


MIN_MINORITY_FOR_LOSS = 8
"""Images outside the largest class below which the loss has no interval, since the few large losses are theirs."""


PRIOR_PLACEMENTS = 10
"""Misplaced images on either side at which DeLong's variance of the AUROC counts as much as that of Newcombe."""


METHODS = {
    "accuracy": "Wilson's score interval",
    "balanced_accuracy": "Wilson's score interval of each class's recall, joined to that of their mean",
    "macro_f1": "Wilson's score interval of each class's F1, joined to that of their mean",
    "auroc": "Newcombe's method 5 (2006), with DeLong's variance where images suffice",
    "loss": "Hall's (1992) skewness-corrected t interval",
}
"""Score -> the method of its interval, in words for a report."""


@dataclass(frozen=True)
class ScoreIntervals:
    """Intervals of the scores of one split.

    Attributes:
        intervals: score -> its interval, where one holds.
        missing: score -> why it has none, in words for a report.
        num_groups: groups that the images come in; None where every image stands for itself.
    """

    intervals: dict[str, Interval] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    num_groups: int | None = None

    @property
    def about_groups(self) -> str:
        """What was done for images in groups, as a sentence; empty for images alone."""
        if self.num_groups is None:
            return ""
        return about_groups(self.num_groups, has_intervals=bool(self.intervals))


def score_intervals(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    groups: Sequence[str] = (),
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of the scores that `score_logits` gives, where one holds: see `explained_intervals`."""
    return explained_intervals(logits, labels, groups=groups, confidence=confidence).intervals


def explained_intervals(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    groups: Sequence[str] = (),
    confidence: float = 0.95,
) -> ScoreIntervals:
    """Intervals of the scores that `score_logits` gives, and why a score has none.

    `METHODS` names the methods and docs/intervals.md shows what each of them covers. With groups, groups are the
    independent units. The calibration error gets no interval, since it is biased upwards. Memory: one float64 for each
    image and class, twice float32 logits, and 24 bytes for each two classes.

    Args:
        logits: float (N, K), K >= 2, finite.
        labels: int64 (N,), in [0, K).
        groups: name of each image's group; none where every image stands for itself.
        confidence: in (0, 1).

    Returns:
        Intervals of `accuracy`, `balanced_accuracy`, `macro_f1`, `auroc` and `loss`, each in `intervals` or `missing`.

    Raises:
        ValueError: other shapes or ranges, no images, values that are not finite.
    """
    check_scored(logits, labels)
    units = Units(len(labels), groups, confidence)
    log_probs, predictions = LogProbs(logits), logits.argmax(axis=1)
    found = {
        "accuracy": _accuracy(predictions == labels, units),
        "balanced_accuracy": _balanced_accuracy(labels, predictions, units),
        "macro_f1": _macro_f1(labels, predictions, units),
        "auroc": _auroc(log_probs, labels, units),
        "loss": _loss(-log_probs.of(labels), labels, units),
    }
    return ScoreIntervals(
        {name: one for name, one in found.items() if isinstance(one, Interval)},
        {name: one for name, one in found.items() if isinstance(one, str)},
        units.num if units.are_groups else None,
    )


def hits_interval(hits: NDArray[np.bool_], groups: Sequence[str] = ()) -> Interval | None:
    """95% interval of an accuracy: Wilson's, with a design effect where images come in groups.

    Args:
        hits: bool (N,), N >= 1, whether each image is predicted right.
        groups: name of each image's group; none where every image stands for itself.

    Returns:
        The interval; None where there are too few groups for one.
    """
    found = _accuracy(hits, Units(len(hits), groups))
    return found if isinstance(found, Interval) else None


# --- shares -----------------------------------------------------------------------------------------------------


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
        """Wilson's."""
        return wilson_ends(self.values, self.num_trials, quantiles)

    def interval_of_mean(self, units: Units) -> Interval:
        """Of the mean of the shares."""
        quantile = units.quantile(self.left_out.mean(axis=0))
        return interval_of_mean(self.values, self.ends, correlations(self.left_out), quantile)


def _accuracy(hits: NDArray[np.bool_], units: Units) -> Interval | str:
    if not units.are_groups:
        return wilson(int(hits.sum()), len(hits), units.confidence)
    everything = [np.ones(len(hits), np.bool_)]
    if not units.are_enough(everything):
        return _too_few_groups("the images are")
    return _Shares.of(hits, everything, units).interval_of_mean(units)


def _balanced_accuracy(labels: NDArray[np.integer], predictions: NDArray[np.integer], units: Units) -> Interval | str:
    is_of = [labels == label for label in np.unique(labels)]
    if not units.are_enough(is_of):
        return _too_few_groups("a class is")
    return _Shares.of(predictions == labels, is_of, units).interval_of_mean(units)


def _macro_f1(labels: NDArray[np.integer], predictions: NDArray[np.integer], units: Units) -> Interval | str:
    """F1 is 2 J / (1 + J), with Jaccard's J: the share of hits among the images that are or are called of a class."""
    if not units.are_enough(labels == label for label in np.unique(labels)):
        return _too_few_groups("a class is")
    parts = [(labels == label) | (predictions == label) for label in np.union1d(labels, predictions)]
    shares = _Shares.of(predictions == labels, parts, units)
    slopes = 2 / (1 + shares.values) ** 2  # the derivative of F1 by J
    # A mistake lowers the F1 of two classes: of both where there are two, else of one in K - 1 others.
    correlation = correlations(shares.left_out, between_unmoved=1 / max(1, len(parts) - 1))
    quantile = units.quantile(slopes @ shares.left_out / len(parts))
    return interval_of_mean(_f1(shares.values), lambda at: _f1(shares.ends(at)), correlation, quantile)


def _f1(jaccard: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * jaccard / (1 + jaccard)


# --- AUROC ------------------------------------------------------------------------------------------------------


def _auroc(log_probs: LogProbs, labels: NDArray[np.integer], units: Units) -> Interval | str:
    """Of class 1 for two classes, else the mean of K classes, each against the rest."""
    num_classes = log_probs.num_classes
    is_of = [labels == label for label in range(num_classes)]
    if not all(one.any() for one in is_of):
        return "a class has no images"
    if not units.are_enough(is_of):
        return _too_few_groups("a class is")
    ranked = range(1, 2) if num_classes == 2 else range(num_classes)
    everything = np.ones(len(labels), np.bool_)
    values, positives, negatives, widening = np.empty((4, len(ranked)))
    left_out = np.empty((len(ranked), units.num))  # how much each AUROC falls without each unit
    for row, label in enumerate(ranked):
        is_positive = is_of[label]
        ranking = _Ranking.of(np.exp(log_probs.of(label)), is_positive)
        values[row], widening[row] = ranking.auroc, ranking.widening
        left_out[row] = units.left_out(ranking.influence * is_positive, is_positive)
        left_out[row] += units.left_out(ranking.influence * ~is_positive, ~is_positive)
        effect = units.design_effect(left_out[row], everything, float(ranking.influence @ ranking.influence))
        positives[row], negatives[row] = is_positive.sum() / effect, (~is_positive).sum() / effect

    def ends(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        return _newcombe_ends(values, positives, negatives, quantiles * np.sqrt(widening))

    return interval_of_mean(values, ends, correlations(left_out), units.quantile(left_out.mean(axis=0)))


@dataclass(frozen=True)
class _Ranking:
    """A class against the rest.

    Attributes:
        auroc: in [0, 1].
        influence: float64 (N,), how much each image moves it.
        widening: its variance divided by that of Newcombe's model.
    """

    auroc: float
    influence: NDArray[np.float64]
    widening: float

    @classmethod
    def of(cls, scores: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> _Ranking:
        """Of scores, float64 (N,), of which those of the positives should be high."""
        placements = np.empty(len(scores))  # share of the other side on the right side of an image
        placements[is_positive] = _share_below(scores[is_positive], scores[~is_positive])
        placements[~is_positive] = 1 - _share_below(scores[~is_positive], scores[is_positive])
        positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
        num = np.where(is_positive, positives, negatives)
        auroc = float(placements[is_positive].mean())
        influence = (placements - auroc) / num
        # DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837-845.
        variance = float((influence**2 * num / np.maximum(1, num - 1)).sum())
        imperfect = placements < 1
        known = min((imperfect & is_positive).sum(), (imperfect & ~is_positive).sum()) / PRIOR_PLACEMENTS
        model = float(_newcombe_variance(np.array(auroc), np.array(positives), np.array(negatives)))
        return cls(auroc, influence, (1 + known * variance / model) / (1 + known) if model > 0 else 1.0)


def _share_below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the others, (M,), below each value, (N,); those that are equal count half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(others))


def _newcombe_variance(
    auroc: NDArray[np.float64], positives: NDArray[np.floating], negatives: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Of the AUROC by method 5 of Newcombe 2006, Statistics in Medicine 25:559-573, after Hanley & McNeil 1982."""
    others = np.maximum(0, (positives + negatives) / 2 - 1)
    shape = (1 - auroc) / (2 - auroc) + auroc / (1 + auroc)
    variance: NDArray[np.float64] = auroc * (1 - auroc) * (1 + others * shape) / (positives * negatives)
    return variance


def _newcombe_ends(
    values: NDArray[np.float64],
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    quantiles: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The AUROCs from which those observed lie so many standard errors away, by bisection."""
    inner, outer = values, np.where(quantiles > 0, 1.0, 0.0)
    for _ in range(30):
        middle = (inner + outer) / 2
        is_beyond = (values - middle) ** 2 > quantiles**2 * _newcombe_variance(middle, positives, negatives)
        outer, inner = np.where(is_beyond, middle, outer), np.where(is_beyond, inner, middle)
    return np.where(quantiles == 0, values, np.where(outer == np.round(outer), outer, inner))


# --- loss -------------------------------------------------------------------------------------------------------


def _loss(losses: NDArray[np.float64], labels: NDArray[np.integer], units: Units) -> Interval | str:
    everything = np.ones(len(losses), np.bool_)
    if not units.are_enough([everything]):
        return _too_few_groups("the images are")
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


# --- what is refused --------------------------------------------------------------------------------------------


def _too_few_groups(what: str) -> str:
    return f"{what} in {TOO_FEW}"
