"""Likely label errors against cleanlab, by the authors of confident learning."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues

from imgcls.statistics.label_errors import label_errors


def made(seed, num_images=400, num_classes=5):
    """Probabilities that lean towards the truth, and labels of which some are other ones."""
    draws = np.random.default_rng(seed)
    truth = draws.integers(0, num_classes, num_images)
    logits = draws.normal(size=(num_images, num_classes)) + 2.5 * np.eye(num_classes)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(draws.random(num_images) < 0.1, draws.integers(0, num_classes, num_images), truth)
    return labels, probs


@pytest.mark.parametrize("seed", range(5))
def test_likely_errors_and_their_order_are_cleanlabs(seed):
    labels, probs = made(seed)
    found = label_errors(labels, probs)
    expected = find_label_issues(
        labels, probs, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert len(expected) > 10
    assert found["row"][found["is_likely"]].tolist() == expected.tolist()
    rows = found["row"].to_numpy()
    np.testing.assert_array_equal(found["prob_label"], probs[rows, labels[rows]])
    np.testing.assert_array_equal(found["prob_suggested"], probs[rows, found["suggested"]])
    assert set(np.flatnonzero(probs.argmax(axis=1) != labels)) <= set(rows)


@pytest.mark.parametrize(
    ("labels", "probs", "rows"),
    [
        ([0, 1], [[0.9, 0.1], [0.2, 0.8]], []),
        ([0, 0, 1], [[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]], [1]),
        ([0, 0], [[0.9, 0.1], [0.4, 0.6]], [1]),  # no image is labelled 1, so nothing is as a class-1 image usually is
    ],
)
def test_small_cases_by_hand(labels, probs, rows):
    found = label_errors(np.array(labels), np.array(probs))
    assert found["row"].tolist() == rows
    assert found["is_likely"].tolist() == [len(set(labels)) == 2 for _ in rows]


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(ValueError, match="labels reach from 0 to 2"):
        label_errors(np.array([0, 2]), np.full((2, 2), 0.5))
