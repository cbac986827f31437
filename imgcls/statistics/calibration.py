"""Calibration of a classifier: confidence against accuracy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Reliability:
    """Calibration of a classifier: confidence against accuracy, in B equal-width bins of confidence.

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


def reliability(confidence: NDArray[np.floating], hits: NDArray[np.bool_], num_bins: int = NUM_BINS) -> Reliability:
    """Computes the calibration of a classifier in bins of confidence (Guo et al. 2017, arXiv 1706.04599).

    Args:
        confidence: float (N,), the highest probability of each image.
        hits: bool (N,), whether each image is predicted right.
        num_bins: B, at least 1.

    Raises:
        ValueError: no bins.
    """
    if num_bins < 1:
        raise ValueError(f"{num_bins} bins: give at least 1")
    confidence = confidence.astype(np.float64)
    edges = np.linspace(0, 1, num_bins + 1)
    # The inner edges alone: a sum that rounds to just over 1 stays in the last bin.
    bins = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(bins, minlength=num_bins).astype(np.int64)

    def mean_in_bins(values: NDArray[np.generic]) -> NDArray[np.float64]:
        means = np.full(num_bins, np.nan)
        np.divide(np.bincount(bins, weights=values, minlength=num_bins), counts, out=means, where=counts > 0)
        return means

    return Reliability(edges, mean_in_bins(confidence), mean_in_bins(hits), counts)


def expected_calibration_error(bins: Reliability) -> float:
    """Expected calibration error: mean distance of confidence to accuracy, each bin weighted by its images.

    Equation 3 of Guo et al. 2017, arXiv 1706.04599.
    """
    return float(np.nansum(bins.counts * np.abs(bins.accuracy - bins.confidence)) / bins.counts.sum())
