"""Scores of a classifier on the images of a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import compress

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, recall_score, roc_auc_score

from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.statistics.score_intervals import check_classes, check_scored, hits_interval

NUM_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Scores:
    """What a split says about a classifier.

    Attributes:
        loss: mean cross-entropy in nats.
        accuracy: share of images predicted right, in [0, 1].
        accuracy_low: lower end of the 95% interval of the accuracy: Wilson's, with a design effect for images in
            groups. NaN where there are too few groups for one.
        accuracy_high: its upper end, or NaN.
        balanced_accuracy: mean recall of the classes that have images, in [0, 1].
        macro_f1: mean F1 of the classes that are present or predicted, in [0, 1], as in scikit-learn with
            zero_division=0: one that is predicted without being present counts 0.
        auroc: area under the ROC curve, in [0, 1]: of class 1 for two classes, else the mean of each class against
            the rest. NaN where a class has no images, since then it is undefined.
        ece: expected calibration error over 15 bins, in [0, 1].
    """

    loss: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    macro_f1: float
    auroc: float
    ece: float

    @property
    def accuracy_interval(self) -> Interval:
        """The 95% interval of the accuracy; its ends are NaN where there is none."""
        return Interval(self.accuracy_low, self.accuracy_high)

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float], split: str) -> Scores:
        """What `metrics` gave, read back from the record."""
        return cls(**{field.name: metrics.get(f"{split}/{field.name}", math.nan) for field in fields(cls)})

    def metrics(self, split: str) -> dict[str, float]:
        """The scores under their names in the record, such as `test/accuracy_low`; an undefined AUROC is left out."""
        return {f"{split}/{name}": value for name, value in asdict(self).items() if not math.isnan(value)}


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in B equal-width bins of confidence.

    Attributes:
        edges: float64 (B + 1,), from 0 to 1. A bin holds its right edge, not its left.
        confidence: float64 (B,), mean of the highest probability; NaN where a bin is empty.
        accuracy: float64 (B,), share predicted right; NaN where a bin is empty.
        counts: int64 (B,), images.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]


def score(probs: NDArray[np.floating], labels: NDArray[np.integer]) -> Scores:
    """Scores probabilities. `score_logits` is exact where a probability has rounded to 0: prefer it.

    Args:
        probs: float (N, K), K >= 2, rows summing to 1. For the loss they are clipped from below at float64's epsilon,
            so a hard 0 on the true class costs 36 nats, as in scikit-learn.
        labels: int64 (N,), in [0, K).

    Raises:
        ValueError: other shapes or ranges, no images, values that are not finite.
    """
    _check_probs(probs, labels)
    exact = probs.astype(np.float64)
    return _scores(exact, np.log(np.clip(exact, np.finfo(np.float64).eps, 1)), labels, ())


def score_logits(logits: NDArray[np.floating], labels: NDArray[np.integer], groups: Sequence[str] = ()) -> Scores:
    """Scores logits, in float64 whatever their type.

    Args:
        logits: float (N, K), K >= 2, any finite values.
        labels: int64 (N,), in [0, K).
        groups: name of each image's group; none where every image stands for itself.

    Raises:
        ValueError: other shapes or ranges, no images, values that are not finite.
    """
    check_scored(logits, labels)
    log_probs = log_softmax(logits.astype(np.float64), axis=1)
    return _scores(np.exp(log_probs), log_probs, labels, groups)


def per_class(
    labels: NDArray[np.integer],
    predictions: NDArray[np.integer],
    class_names: Sequence[str],
    groups: Sequence[str] = (),
) -> pd.DataFrame:
    """Precision, recall and F1 of each class against the rest.

    Args:
        labels: int64 (N,), in [0, K).
        predictions: int64 (N,), in [0, K).
        class_names: K names.
        groups: name of each image's group; none where every image stands for itself.

    Returns:
        K rows in the order of `class_names`: `class`; `precision`, `recall` and `f1` in [0, 1], 0 where there is
        nothing to divide by (scikit-learn's zero_division=0); `num_images` of the class. All three are NaN for a class
        that is neither present nor predicted, so that the mean of `f1` is the macro-F1. `recall_low` and `recall_high`
        are the ends of the recall's 95 % interval, NaN where a class has no images or too few groups.

    Raises:
        ValueError: other shapes or ranges, no images.
    """
    num_classes = len(class_names)
    check_classes("labels", labels, num_classes)
    check_classes("predictions", predictions, num_classes)
    precision, recall, f1, num_images = precision_recall_fscore_support(
        labels, predictions, labels=np.arange(num_classes), zero_division=0
    )
    scores = pd.DataFrame({"precision": precision, "recall": recall, "f1": f1}, dtype=np.float64)
    scores[~np.isin(np.arange(num_classes), np.union1d(labels, predictions))] = math.nan
    scores.insert(0, "class", list(class_names))
    intervals = [_recall_interval(labels == label, predictions == label, groups) for label in range(num_classes)]
    return scores.assign(
        num_images=num_images, recall_low=[of.low for of in intervals], recall_high=[of.high for of in intervals]
    )


def _recall_interval(is_of: NDArray[np.bool_], is_called: NDArray[np.bool_], groups: Sequence[str]) -> Interval:
    if not is_of.any():
        return NO_INTERVAL
    return hits_interval(is_called[is_of], list(compress(groups, is_of))) or NO_INTERVAL


def confusion(labels: NDArray[np.integer], predictions: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Counts images by true and predicted class.

    Args:
        labels: int64 (N,), in [0, K).
        predictions: int64 (N,), in [0, K).
        num_classes: K.

    Returns:
        int64 (K, K), row = true class, column = predicted class.

    Raises:
        ValueError: other shapes or ranges, no images.
    """
    check_classes("labels", labels, num_classes)
    check_classes("predictions", predictions, num_classes)
    matrix: NDArray[np.int64] = confusion_matrix(labels, predictions, labels=np.arange(num_classes)).astype(np.int64)
    return matrix


def reliability(probs: NDArray[np.floating], labels: NDArray[np.integer], num_bins: int = NUM_BINS) -> Reliability:
    """Bins images by confidence, the highest of their probabilities (Guo et al. 2017, arXiv 1706.04599).

    Args:
        probs: float (N, K), K >= 2, rows summing to 1.
        labels: int64 (N,), in [0, K).
        num_bins: B, at least 1.

    Raises:
        ValueError: other shapes or ranges, no images, values that are not finite.
    """
    _check_probs(probs, labels)
    if num_bins < 1:
        raise ValueError(f"{num_bins} bins: give at least 1")
    confidence = probs.max(axis=1).astype(np.float64)
    edges = np.linspace(0, 1, num_bins + 1)
    # The inner edges alone: a sum that rounds to just over 1 stays in the last bin.
    bins = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(bins, minlength=num_bins).astype(np.int64)

    def mean_in_bins(values: NDArray[np.generic]) -> NDArray[np.float64]:
        means = np.full(num_bins, np.nan)
        np.divide(np.bincount(bins, weights=values, minlength=num_bins), counts, out=means, where=counts > 0)
        return means

    return Reliability(edges, mean_in_bins(confidence), mean_in_bins(probs.argmax(axis=1) == labels), counts)


def expected_calibration_error(bins: Reliability) -> float:
    """Mean distance of confidence to accuracy, each bin weighted by its images, in [0, 1].

    Equation 3 of Guo et al. 2017, arXiv 1706.04599.
    """
    return float(np.nansum(bins.counts * np.abs(bins.accuracy - bins.confidence)) / bins.counts.sum())


def _scores(
    probs: NDArray[np.float64], log_probs: NDArray[np.float64], labels: NDArray[np.integer], groups: Sequence[str]
) -> Scores:
    num_images, num_classes = probs.shape
    predictions = probs.argmax(axis=1)
    num_correct = int((predictions == labels).sum())
    accuracy = hits_interval(predictions == labels, groups) or NO_INTERVAL
    present = np.unique(labels)
    return Scores(
        loss=float(-log_probs[np.arange(num_images), labels].mean()),
        accuracy=num_correct / num_images,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        # balanced_accuracy_score is this too, with a warning whenever an absent class is predicted.
        balanced_accuracy=float(recall_score(labels, predictions, labels=present, average="macro", zero_division=0)),
        macro_f1=float(f1_score(labels, predictions, average="macro", zero_division=0)),
        auroc=_auroc(probs, labels) if len(present) == num_classes else math.nan,
        ece=expected_calibration_error(reliability(probs, labels)),
    )


def _auroc(probs: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    if probs.shape[1] == 2:
        return float(roc_auc_score(labels, probs[:, 1]))
    # One column per class is the same mean as multi_class="ovr", which refuses rows that sum to 1 only in float16.
    return float(roc_auc_score(labels[:, None] == np.arange(probs.shape[1]), probs, average="macro"))


def _check_probs(probs: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
    check_scored(probs, labels)
    # As loose as half precision needs, far too tight for logits.
    if probs.min() < 0 or np.abs(probs.sum(axis=1, dtype=np.float64) - 1).max() > 0.01:
        raise ValueError("probs must be at least 0 and sum to 1 in each row: take score_logits for logits")
