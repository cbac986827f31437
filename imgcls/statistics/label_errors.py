"""Labels that are likely wrong, found from a classifier's predictions of images that it was not trained on."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.statistics.predictions import check_classes


def label_errors(labels: NDArray[np.integer], probs: NDArray[np.floating]) -> pd.DataFrame:
    """Label errors by confident learning (Northcutt et al. 2021, arXiv 1911.00068), the most likely one first.

    A class's threshold is the mean probability that it gets on the images labelled with it. An image is counted for the
    most probable of the classes whose thresholds its probabilities reach. Where that is another class than its label,
    the label is likely wrong. Images are ranked by the probability of their label ("self-confidence"), lowest first.

    Args:
        labels: int64 (N,), in [0, K).
        probs: float (N, K), of images that the classifier was not trained on.

    Returns:
        A row for each image that is predicted otherwise than labelled, or whose label is likely wrong: `row` in
        [0, N), `suggested`, the class in [0, K) for which it is counted, or else the predicted one; `prob_label` and
        `prob_suggested` in [0, 1]; `is_likely`.

    Raises:
        ValueError: other shapes or ranges, no images.
    """
    check_classes("labels", labels, probs.shape[1])
    rows = np.arange(len(labels))
    counted = _confident_classes(labels, probs)
    is_likely = (counted >= 0) & (counted != labels)
    suggested = np.where(is_likely, counted, probs.argmax(axis=1))
    table = pd.DataFrame({
        "row": rows,
        "suggested": suggested,
        "prob_label": probs[rows, labels],
        "prob_suggested": probs[rows, suggested],
        "is_likely": is_likely,
    })  # fmt: skip
    ranked: pd.DataFrame = table[suggested != labels].sort_values("prob_label", kind="stable", ignore_index=True)
    return ranked


def _confident_classes(labels: NDArray[np.integer], probs: NDArray[np.floating]) -> NDArray[np.int64]:
    """int64 (N,): the most probable class whose threshold an image reaches; -1 where it reaches none."""
    own = np.zeros(probs.shape[1])
    np.add.at(own, labels, probs[np.arange(len(labels)), labels])
    num_images = np.bincount(labels, minlength=probs.shape[1])
    thresholds = np.divide(own, num_images, out=np.full(len(own), np.inf), where=num_images > 0)
    # A mean of equal probabilities may be larger than each of them in its last bit.
    reached = np.where(probs >= thresholds - 1e-6, probs, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)
