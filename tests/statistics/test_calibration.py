import numpy as np
import pytest
from scipy.special import softmax

from imgcls.metrics import score
from imgcls.statistics.calibration import expected_calibration_error, reliability
from imgcls.statistics.predictions import Predictions
from tests.test_metrics import drawn


def test_ece_worked_by_hand():
    # Four bins. (0.5, 0.75]: confidence 0.6 and 0.7, one of two right: |0.5 - 0.65| = 0.15.
    # (0.75, 1]: confidence 0.8, 0.9 and 1.0, all right: |1 - 0.9| = 0.1. ECE = (2 * 0.15 + 3 * 0.1) / 5 = 0.12.
    confidence = np.array([0.6, 0.7, 0.8, 0.9, 1.0])
    bins = reliability(confidence, np.array([True, False, True, True, True]), num_bins=4)
    assert bins.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert bins.counts.tolist() == [0, 0, 2, 3]
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.65, 0.9])
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 0.5, 1])
    assert expected_calibration_error(bins) == pytest.approx(0.12)


def test_a_bin_holds_its_right_edge():
    bins = reliability(np.array([0.75, 0.5]), np.array([True, True]), num_bins=4)
    assert bins.counts.tolist() == [0, 1, 1, 0]


def test_confidence_that_rounds_above_1_stays_in_the_last_bin():
    over = np.float32(1) + np.finfo(np.float32).eps
    assert reliability(np.array([over]), np.array([True])).counts.tolist() == [0] * 14 + [1]


def test_ece_agrees_with_a_loop_over_the_bins():
    logits, labels = drawn(13, 400, 6)
    probs = softmax(logits, axis=1)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert score(Predictions(logits, labels))["ece"] == pytest.approx(expected)


def test_reliability_needs_a_bin():
    with pytest.raises(ValueError, match="0 bins: give at least 1"):
        reliability(np.array([0.5]), np.array([True]), num_bins=0)
