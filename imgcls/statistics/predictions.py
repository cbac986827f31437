"""What a classifier says of images, beside the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix


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


VALUES_AT_ONCE = 10**6
"""Logits that are turned into float64 log-probabilities at once."""


class LogProbs:
    """Log-probabilities of logits (N, K) in float64, class by class: all at once they need twice the logits' memory."""

    def __init__(self, logits: NDArray[np.floating]) -> None:
        self._logits = logits
        self._highest: NDArray[np.float64] = logits.max(axis=1).astype(np.float64)
        blocks = np.array_split(logits, -(-logits.size // VALUES_AT_ONCE))
        self._of_highest = np.concatenate([log_softmax(one.astype(np.float64), axis=1).max(axis=1) for one in blocks])

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self._logits.shape[1])

    def of(self, classes: int | NDArray[np.integer]) -> NDArray[np.float64]:
        """Of one class, or of a class for each image, (N,): float64 (N,), the same bits as SciPy's `log_softmax`."""
        chosen: NDArray[np.float64] = self._logits[np.arange(len(self._logits)), classes].astype(np.float64)
        log_probs: NDArray[np.float64] = chosen - self._highest + self._of_highest
        return log_probs


def check_scored(values: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
    """Refuses logits or probabilities that cannot be scored against these labels.

    Raises:
        ValueError: other shapes than (N, K) and (N,), N >= 1, K >= 2; a label out of range; values that are not finite.
    """
    if values.ndim != 2 or values.shape[1] < 2 or len(values) != len(labels):
        raise ValueError(f"{values.shape} values for {labels.shape} labels: give (N, K), K >= 2, and (N,)")
    check_classes("labels", labels, values.shape[1])
    if num_bad := int((~np.isfinite(values)).any(axis=1).sum()):
        raise ValueError(f"{num_bad} of {len(values)} images have values that are not finite: the model has diverged")


def check_classes(name: str, classes: NDArray[np.integer], num_classes: int) -> None:
    """Refuses whatever does not name a class for each image.

    Args:
        name: of the classes in the message, such as `labels`.
        classes: int64 (N,), N >= 1, in [0, K).
        num_classes: K.

    Raises:
        ValueError: another shape, type or range.
    """
    if classes.ndim != 1 or not len(classes) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"{name} are {classes.dtype} {classes.shape}: give integers (N,) of at least one image")
    if classes.min() < 0 or classes.max() >= num_classes:
        raise ValueError(f"{name} reach from {classes.min()} to {classes.max()}: give 0 to {num_classes - 1}")
