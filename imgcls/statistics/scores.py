"""Scores of a classifier on the images of a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from imgcls.statistics.calibration import check_probs, expected_calibration_error, reliability
from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.statistics.predictions import check_scored
from imgcls.statistics.score_intervals import hits_interval


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


def score(probs: NDArray[np.floating], labels: NDArray[np.integer]) -> Scores:
    """Scores probabilities. `score_logits` is exact where a probability has rounded to 0: prefer it.

    Args:
        probs: float (N, K), K >= 2, rows summing to 1. For the loss they are clipped from below at float64's epsilon,
            so a hard 0 on the true class costs 36 nats, as in scikit-learn.
        labels: int64 (N,), in [0, K).

    Raises:
        ValueError: other shapes or ranges, no images, values that are not finite.
    """
    check_probs(probs, labels)
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
