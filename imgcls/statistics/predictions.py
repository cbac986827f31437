"""What a classifier says of the images of a split, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from imgcls.statistics.groups import Units

VALUES_AT_ONCE = 10**6
"""Logits that are turned into float64 log-probabilities at once."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a classifier on the images of a split, beside the truth; what scores share is computed once.

    Attributes:
        logits: float (N, K), K >= 2, finite; probabilities are computed in float64 whatever their type.
        labels: int64 (N,), in [0, K).
        groups: name of each image's group; none where every image stands for itself.
    """

    logits: NDArray[np.floating]
    labels: NDArray[np.integer]
    groups: Sequence[str] = ()

    def check(self) -> None:
        """Refuses predictions that cannot be scored.

        Raises:
            ValueError: other shapes than (N, K) and (N,), N >= 1, K >= 2; a label out of range; values that are not
                finite.
        """
        logits, labels = self.logits, self.labels
        if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(labels):
            raise ValueError(f"{logits.shape} values for {labels.shape} labels: give (N, K), K >= 2, and (N,)")
        check_classes("labels", labels, self.num_classes)
        if num_bad := int((~np.isfinite(logits)).any(axis=1).sum()):
            raise ValueError(
                f"{num_bad} of {len(logits)} images have values that are not finite: the model has diverged"
            )

    def at(self, temperature: float) -> Predictions:
        """Predictions of the same images with logits, float64, that are divided by a temperature above 0."""
        return self if temperature == 1 else replace(self, logits=self.logits.astype(np.float64) / temperature)

    @property
    def num_classes(self) -> int:
        """K, the classes that predictions are among."""
        return int(self.logits.shape[1])

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """int64 (N,), the predicted class of each image."""
        classes: NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Bool (N,), whether each image is predicted right."""
        hits: NDArray[np.bool_] = self.classes == self.labels
        return hits

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """int64 (3, K): images of each class that are predicted right, that are there, and that are called so."""
        each = self.labels[self.hits], self.labels, self.classes
        return np.stack([np.bincount(classes, minlength=self.num_classes) for classes in each])

    @cached_property
    def units(self) -> Units:
        """The independent units: images or groups."""
        return Units(len(self.labels), self.groups)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """float64 (N,), the highest probability of each image."""
        confidence: NDArray[np.float64] = np.exp(self._highest_log_probs)
        return confidence

    @cached_property
    def _highest(self) -> NDArray[np.float64]:
        highest: NDArray[np.float64] = self.logits.max(axis=1).astype(np.float64)
        return highest

    @cached_property
    def _highest_log_probs(self) -> NDArray[np.float64]:
        blocks = np.array_split(self.logits, -(-self.logits.size // VALUES_AT_ONCE))
        highest: NDArray[np.float64] = np.concatenate(
            [log_softmax(one.astype(np.float64), axis=1).max(axis=1) for one in blocks]
        )
        return highest

    def log_probs(self, classes: int | NDArray[np.integer]) -> NDArray[np.float64]:
        """Of one class, or of a class for each image, (N,): float64 (N,), the same bits as SciPy's `log_softmax`.

        One class at a time, since all of them need twice the memory of float32 logits.
        """
        chosen: NDArray[np.float64] = self.logits[np.arange(len(self.logits)), classes].astype(np.float64)
        log_probs: NDArray[np.float64] = chosen - self._highest + self._highest_log_probs
        return log_probs

    def confusion(self) -> NDArray[np.int64]:
        """int64 (K, K), images by true class (row) and predicted class (column)."""
        from sklearn.metrics import confusion_matrix  # takes a second to import, and many verbs need no matrix

        matrix: NDArray[np.int64] = confusion_matrix(self.labels, self.classes, labels=np.arange(self.num_classes))
        return matrix


def check_classes(name: str, classes: NDArray[np.integer], num_classes: int) -> None:
    """Checks predictions, or labels: refuses those that do not name a class for each image.

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
