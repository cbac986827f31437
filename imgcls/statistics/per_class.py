"""Precision, recall and F1 of each class."""

import math
from collections.abc import Sequence
from itertools import compress

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.statistics.predictions import check_classes
from imgcls.statistics.score_intervals import hits_interval


def per_class(
    labels: NDArray[np.integer],
    predictions: NDArray[np.integer],
    class_names: Sequence[str],
    groups: Sequence[str] = (),
) -> pd.DataFrame:
    """Scores per class: precision, recall and F1 of each against the rest.

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
