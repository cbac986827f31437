import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as oracle

from imgcls.reporting.rounding import ends, rounded, with_interval
from imgcls.statistics.calibration import expected_calibration_error, reliability
from imgcls.statistics.intervals import NO_INTERVAL, Interval, wilson
from imgcls.statistics.per_class import per_class
from imgcls.statistics.predictions import confusion
from imgcls.statistics.scores import score, score_logits


def drawn(seed, num_images, num_classes, skill=1.0):
    """Logits and labels in which every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % num_classes)
    logits = rng.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), labels] += skill
    return logits, labels


def one_hot(predictions, num_classes):
    return np.eye(num_classes)[predictions]


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed, num_classes):
    logits, labels = drawn(seed, 240, num_classes)
    probs = softmax(logits, axis=1)
    predictions = probs.argmax(axis=1)
    scores = score(probs, labels)
    assert scores.loss == pytest.approx(oracle.log_loss(labels, probs))
    assert scores.accuracy == oracle.accuracy_score(labels, predictions)
    assert scores.accuracy_interval == wilson(int((predictions == labels).sum()), 240)
    assert scores.balanced_accuracy == pytest.approx(oracle.balanced_accuracy_score(labels, predictions))
    assert scores.macro_f1 == pytest.approx(oracle.f1_score(labels, predictions, average="macro"))
    one_vs_rest = (
        oracle.roc_auc_score(labels, probs[:, 1])
        if num_classes == 2
        else oracle.roc_auc_score(labels, probs, multi_class="ovr", average="macro")
    )
    assert scores.auroc == pytest.approx(one_vs_rest)


def test_score_logits_agrees_with_score_of_their_softmax():
    logits, labels = drawn(3, 500, 4)
    from_logits, from_probs = score_logits(logits, labels), score(softmax(logits, axis=1), labels)
    assert from_logits.metrics("val") == pytest.approx(from_probs.metrics("val"), rel=1e-12)


def test_loss_of_logits_is_exact_where_the_probability_rounds_to_0():
    logits, labels = np.array([[0, 1000], [0, 1000]], np.float32), np.array([0, 1])
    assert score_logits(logits, labels).loss == 500
    assert score(np.array([[0.0, 1.0], [0.0, 1.0]]), labels).loss == pytest.approx(-math.log(np.finfo(float).eps) / 2)


def test_low_precision_changes_the_input_alone():
    logits, labels = drawn(5, 300, 5)
    coarse = logits.astype(np.float16)
    assert score_logits(coarse, labels) == score_logits(coarse.astype(np.float64), labels)
    assert score(softmax(logits, axis=1).astype(np.float16), labels).auroc == pytest.approx(
        score_logits(logits, labels).auroc, abs=1e-3
    )


@pytest.mark.parametrize("num_classes", [2, 5])
def test_auroc_of_a_missing_class_is_undefined_and_not_recorded(num_classes):
    logits, labels = drawn(7, 60, num_classes)
    present = labels != 1
    scores = score_logits(logits[present], labels[present])
    assert math.isnan(scores.auroc)
    assert set(scores.metrics("test")) == {
        "test/loss",
        "test/accuracy",
        "test/accuracy_low",
        "test/accuracy_high",
        "test/balanced_accuracy",
        "test/macro_f1",
        "test/ece",
    }
    assert np.isfinite(list(scores.metrics("test").values())).all()


def test_metrics_carry_the_names_of_the_record():
    scores = score_logits(*drawn(0, 30, 3))
    assert scores.metrics("test")["test/accuracy_low"] == scores.accuracy_low
    assert "val/auroc" in scores.metrics("val")


@pytest.mark.parametrize(
    ("labels", "predictions", "macro_f1"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),  # class 2 is neither present nor predicted
        ([0, 0, 1, 1], [0, 0, 1, 2], 5 / 9),  # predicted without being present: F1 0
        ([0, 0, 1, 2], [0, 0, 1, 1], 5 / 9),  # present without being predicted
    ],
)
def test_an_absent_class_counts_as_in_scikit_learn_and_as_in_the_class_table(labels, predictions, macro_f1):
    labels, predictions = np.array(labels), np.array(predictions)
    scores, table = score(one_hot(predictions, 3), labels), per_class(labels, predictions, ["a", "b", "c"])
    assert scores.macro_f1 == pytest.approx(macro_f1)
    assert scores.macro_f1 == pytest.approx(oracle.f1_score(labels, predictions, average="macro", zero_division=0))
    assert table["f1"].mean() == pytest.approx(scores.macro_f1)


def test_all_right():
    scores = score(one_hot([0, 1, 2, 1], 3), np.array([0, 1, 2, 1]))
    assert (scores.accuracy, scores.accuracy_high, scores.macro_f1, scores.auroc) == (1, 1, 1, 1)
    assert (scores.loss, scores.ece) == (0, 0)
    assert scores.accuracy_low == pytest.approx(wilson(4, 4).low)


def test_all_wrong():
    scores = score(one_hot([1, 0, 1, 0], 2), np.array([0, 1, 0, 1]))
    assert (scores.accuracy, scores.accuracy_low, scores.macro_f1, scores.auroc, scores.ece) == (0, 0, 0, 0, 1)


@pytest.mark.parametrize("label", [0, 1])
def test_one_image(label):
    scores = score(np.array([[0.75, 0.25]]), np.array([label]))
    assert scores.accuracy == 1 - label
    assert scores.loss == pytest.approx(-math.log([0.75, 0.25][label]))
    assert scores.ece == pytest.approx([0.25, 0.75][label])
    assert math.isnan(scores.auroc)


@pytest.mark.parametrize(
    ("probs", "labels", "complaint"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), "at least one image"),
        (np.full((2, 1), 1.0), np.zeros(2, np.int64), "K >= 2"),
        (np.full((3, 2), 0.5), np.zeros(2, np.int64), "for .2,. labels"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "reach from 0 to 2: give 0 to 1"),
        (np.full((2, 2), 0.5), np.array([-1, 0]), "reach from -1 to 0"),
        (np.full((2, 2), 0.5), np.array([0.0, 1.0]), "give integers"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 1]), "1 of 2 images have values that are not finite"),
        (np.array([[2.0, -1.0], [0.5, 0.5]]), np.array([0, 1]), "take score_logits for logits"),
        (np.array([[2.0, 3.0], [0.5, 0.5]]), np.array([0, 1]), "take score_logits for logits"),
    ],
)
def test_score_refuses_what_it_cannot_score(probs, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        score(probs, labels)


def test_score_logits_refuses_infinite_logits():
    with pytest.raises(ValueError, match="diverged"):
        score_logits(np.array([[0.0, np.inf]]), np.array([0]))


def test_per_class_agrees_with_scikit_learn_and_with_the_scores():
    logits, labels = drawn(11, 200, 4)
    predictions = logits.argmax(axis=1)
    table = per_class(labels, predictions, ["a", "b", "c", "d"])
    report = oracle.classification_report(labels, predictions, target_names=["a", "b", "c", "d"], output_dict=True)
    assert list(table["class"]) == ["a", "b", "c", "d"]
    for row in table.to_dict("records"):
        assert row["precision"] == pytest.approx(report[row["class"]]["precision"])
        assert row["recall"] == pytest.approx(report[row["class"]]["recall"])
        assert row["f1"] == pytest.approx(report[row["class"]]["f1-score"])
        assert row["num_images"] == 50
    scores = score_logits(logits, labels)
    assert table["f1"].mean() == pytest.approx(scores.macro_f1)
    assert table["recall"].mean() == pytest.approx(scores.balanced_accuracy)


def test_per_class_gives_0_where_undefined_and_nothing_for_what_is_nowhere():
    table = per_class(np.array([0, 0]), np.array([0, 1]), ["there", "absent", "neither"])
    assert table["precision"].tolist()[:2] == [1, 0]
    assert table["recall"].tolist()[:2] == [0.5, 0]
    assert table["num_images"].tolist() == [2, 0, 0]
    assert table.loc[2, ["precision", "recall", "f1"]].isna().all()


def test_confusion_has_truth_in_rows():
    matrix = confusion(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 2]), 3)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_confusion_refuses_a_class_out_of_range():
    with pytest.raises(ValueError, match="predictions reach from 0 to 3: give 0 to 2"):
        confusion(np.array([0, 1]), np.array([0, 3]), 3)


def test_ece_worked_by_hand():
    # Four bins. (0.5, 0.75]: confidence 0.6 and 0.7, one of two right: |0.5 - 0.65| = 0.15.
    # (0.75, 1]: confidence 0.8, 0.9 and 1.0, all right: |1 - 0.9| = 0.1. ECE = (2 * 0.15 + 3 * 0.1) / 5 = 0.12.
    confidence = np.array([0.6, 0.7, 0.8, 0.9, 1.0])
    bins = reliability(np.stack([confidence, 1 - confidence], axis=1), np.array([0, 1, 0, 0, 0]), num_bins=4)
    assert bins.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert bins.counts.tolist() == [0, 0, 2, 3]
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.65, 0.9])
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 0.5, 1])
    assert expected_calibration_error(bins) == pytest.approx(0.12)


def test_a_bin_holds_its_right_edge():
    bins = reliability(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 0]), num_bins=4)
    assert bins.counts.tolist() == [0, 1, 1, 0]


def test_confidence_that_rounds_above_1_stays_in_the_last_bin():
    over = np.float32(1) + np.finfo(np.float32).eps
    assert reliability(np.array([[over, 0]], np.float32), np.array([0])).counts.tolist() == [0] * 14 + [1]


def test_ece_agrees_with_a_loop_over_the_bins():
    logits, labels = drawn(13, 400, 6)
    probs = softmax(logits, axis=1)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert score(probs, labels).ece == pytest.approx(expected)


def test_reliability_needs_a_bin():
    with pytest.raises(ValueError, match="0 bins: give at least 1"):
        reliability(np.array([[0.5, 0.5]]), np.array([0]), num_bins=0)


@pytest.mark.parametrize(
    ("value", "half_width", "shown"),
    [
        (0.8742, 0.025, "0.87"),
        (0.8742, 0.0031, "0.874"),
        (0.8742, 0.2, "0.9"),
        (0.8742, 0.00004, "0.8742"),  # never more than four decimals
        (0.8742, 0.0, "0.8742"),
        (0.8742, 0.0096, "0.87"),  # 0.0096 is 0.01 to one digit
        (0.8742, 0.01, "0.87"),
        (0.8742, 0.0094, "0.874"),
        (1.0, 0.02, "1.00"),
        (0.999, 0.02, "0.999"),  # nothing is rounded up to perfection
        (0.966, 0.2, "0.97"),
        (0.99999, 0.00004, "0.99999"),
        (12.34, 3.0, "12"),
        (12.34, 30.0, "12"),
        (-0.001, 0.02, "0.00"),  # no minus in front of nothing
        (-0.013, 0.02, "-0.01"),
        (math.nan, 0.02, "–"),
    ],
)
def test_rounded(value, half_width, shown):
    assert rounded(value, Interval(-half_width, half_width)) == shown


def test_rounded_knows_the_width_alone():
    assert rounded(0.8742, Interval(0.8492, 0.8992)) == rounded(0.8742, Interval(0, 0.05)) == "0.87"


def test_a_score_without_an_interval_says_so():
    assert with_interval(0.8742, NO_INTERVAL) == "0.87 (–)"
    assert ends(NO_INTERVAL) == "–"


def test_too_few_groups_leave_the_accuracy_without_an_interval():
    logits, labels = drawn(0, 90, 2)
    scores = score_logits(logits, labels, [f"patient {i % 9}" for i in range(90)])
    assert math.isnan(scores.accuracy_interval.low)
    assert "val/accuracy_low" not in scores.metrics("val")
    assert scores.accuracy == score_logits(logits, labels).accuracy


def test_rounded_never_says_0_of_what_is_more():
    assert rounded(0.003, Interval(0.0001, 0.06)) == "0.003"
    assert rounded(0.003, Interval(-0.06, 0.06)) == "0.00"  # a difference: no more than its interval supports
