"""The area under the ROC curve and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.groups import too_few_groups
from imgcls.statistics.intervals import Interval, correlations, interval_of_mean
from imgcls.statistics.predictions import Predictions

PRIOR_PLACEMENTS = 10
"""Misplaced images on either side at which DeLong's variance of the AUROC counts as much as that of Newcombe."""


def auroc(of: Predictions) -> float:
    """AUROC of class 1 for two classes, else the mean of K classes against the rest; NaN where a class has no images.

    It is the share of pairs of a positive and a negative image in which the positive has the higher probability; a tie
    counts half (Hanley & McNeil 1982, Radiology 143:29-36).
    """
    if not of.counts[1].all():
        return math.nan
    areas = []
    for label in _ranked(of):
        scores, is_positive = np.exp(of.log_probs(label)), of.labels == label
        areas.append(_share_below(scores[is_positive], scores[~is_positive]).mean())
    return float(np.mean(areas))


def auroc_interval(of: Predictions) -> Interval | str:
    """95% interval of the AUROC, or why there is none."""
    labels, units = of.labels, of.units
    if not of.counts[1].all():
        return "a class has no images"
    is_of = [labels == label for label in range(of.num_classes)]
    if not units.are_enough(is_of):
        return too_few_groups("a class is")
    ranked = _ranked(of)
    everything = np.ones(len(labels), np.bool_)
    values, positives, negatives, widening = np.empty((4, len(ranked)))
    left_out = np.empty((len(ranked), units.num))  # how much each AUROC falls without each unit
    for row, label in enumerate(ranked):
        is_positive = is_of[label]
        ranking = _Ranking.of(np.exp(of.log_probs(label)), is_positive)
        values[row], widening[row] = ranking.auroc, ranking.widening
        left_out[row] = units.left_out(ranking.influence * is_positive, is_positive)
        left_out[row] += units.left_out(ranking.influence * ~is_positive, ~is_positive)
        effect = units.design_effect(left_out[row], everything, float(ranking.influence @ ranking.influence))
        positives[row], negatives[row] = is_positive.sum() / effect, (~is_positive).sum() / effect

    def ends(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        return _newcombe_ends(values, positives, negatives, quantiles * np.sqrt(widening))

    return interval_of_mean(values, ends, correlations(left_out), units.quantile(left_out.mean(axis=0)))


def _ranked(of: Predictions) -> range:
    """The classes that are ranked against the rest."""
    return range(1, 2) if of.num_classes == 2 else range(of.num_classes)


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
