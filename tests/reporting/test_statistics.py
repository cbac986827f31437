import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn import metrics as oracle

from imgcls.reporting.statistics import (
    RESAMPLES_AT_ONCE,
    Interval,
    McNemar,
    _draw,
    _percentile_interval,
    _resample_images,
    _resample_matrix,
    confusion,
    difference_interval,
    expected_calibration_error,
    holm,
    mcnemar,
    mean_interval,
    paired_difference_interval,
    per_class,
    reliability,
    rounded,
    score,
    score_intervals,
    score_logits,
    wilson,
)


def drawn(seed, num_images, num_classes, skill=1.0):
    """Logits and labels in which every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % num_classes)
    logits = rng.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), labels] += skill
    return logits, labels


def one_hot(predictions, num_classes):
    return np.eye(num_classes)[predictions]


# Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("num_correct", "num_images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_intervals(num_correct, num_images, low, high):
    interval = wilson(num_correct, num_images)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_solves_its_own_equation():
    # Each end is a proportion from which the observed one lies exactly 1.96 standard errors away (Wilson 1927).
    for end in (wilson(37, 90).low, wilson(37, 90).high):
        assert abs(37 / 90 - end) / math.sqrt(end * (1 - end) / 90) == pytest.approx(1.959963984540054)


@pytest.mark.parametrize(("num_correct", "num_images"), [(0, 1), (1, 1), (5, 5), (0, 10**6), (10**6, 10**6)])
def test_wilson_stays_within_0_and_1_at_the_edges(num_correct, num_images):
    interval = wilson(num_correct, num_images)
    assert 0 <= interval.low <= num_correct / num_images <= interval.high <= 1
    assert interval.half_width > 0


def test_wilson_widens_with_confidence_and_narrows_with_images():
    assert wilson(80, 100, 0.99).half_width > wilson(80, 100).half_width > wilson(800, 1000).half_width


@pytest.mark.parametrize(("num_correct", "num_images"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(num_correct, num_images):
    with pytest.raises(ValueError, match=f"{num_correct} right of {num_images} images"):
        wilson(num_correct, num_images)


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_wilson_refuses_impossible_confidence(confidence):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        wilson(1, 2, confidence)


# Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_difference_gives_newcombes_published_intervals(first, second, low, high):
    interval = difference_interval(first[0] / first[1], wilson(*first), second[0] / second[1], wilson(*second))
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


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


def test_rounded_never_says_0_of_what_is_more():
    assert rounded(0.003, Interval(0.0001, 0.06)) == "0.003"
    assert rounded(0.003, Interval(-0.06, 0.06)) == "0.00"  # a difference: no more than its interval supports


def right_or_wrong(both, only_first, only_second, neither):
    """Which of these images the first classifier predicts right, and which the second."""
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    return first, second


@pytest.mark.parametrize(
    ("counts", "p_value", "digits"),
    [
        # Media for tuberculosis, Armitage & Berry 1994, p. 127; exact as in the manual of StatsDirect.
        ((20, 12, 2, 16), 0.0129, 4),
        # Cavo et al. 2012, in Fagerland, Lydersen & Laake 2017, chapter 8; exact as in the R package contingencytables.
        ((59, 6, 16, 80), 0.052479, 6),
    ],
)
def test_mcnemar_gives_published_p_values(counts, p_value, digits):
    test = mcnemar(*right_or_wrong(*counts))
    assert (test.only_first, test.only_second) == counts[1:3]
    assert round(test.p_value, digits) == p_value


def test_mcnemar_knows_only_the_images_on_which_one_is_right():
    # Five heads of five, or five tails: 2 / 2^5.
    assert mcnemar(*right_or_wrong(0, 5, 0, 0)) == McNemar(5, 0, 0.0625)
    assert mcnemar(*right_or_wrong(9000, 0, 5, 700)) == McNemar(0, 5, 0.0625)
    assert mcnemar(*right_or_wrong(1, 7, 7, 3)).p_value == 1


def test_mcnemar_of_a_classifier_with_itself():
    assert mcnemar(*right_or_wrong(3, 0, 0, 2)) == McNemar(0, 0, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        (np.array([True]), np.array([True, False]), "1 against 2 images"),
        (np.array([True]), np.array([1]), "second_correct is int64"),
        (np.array([[True]]), np.array([True]), "first_correct is bool .1, 1."),
        (np.zeros(0, bool), np.zeros(0, bool), "at least one image"),
    ],
)
def test_mcnemar_refuses_what_is_not_paired(first, second, complaint):
    with pytest.raises(ValueError, match=complaint):
        mcnemar(first, second)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635-2650, table III, method 10, as other projects quote it. The row
        # (1, 97, 1, 1) is left out: they quote 0.8736, and the formula in 40 digits gives 0.87367.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((0, 29, 1, 0), 0.6666, 0.9882),
        ((2, 98, 0, 0), 0.9178, 0.9945),
        ((1, 98, 0, 1), 0.9171, 0.9916),
        ((0, 30, 0, 0), 0.8395, 1.0000),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((30, 0, 0, 24), -0.0358, 0.0358),
        # Cavo et al. 2012 as above, from the tests of contingencytables. Its correlation is positive.
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_paired_difference_gives_published_intervals(counts, low, high):
    interval = paired_difference_interval(*counts)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_paired_difference_stays_in_range_around_the_difference_and_mirrors():
    for both, first, second, neither in np.ndindex(4, 4, 4, 4):
        if num_images := both + first + second + neither:
            interval = paired_difference_interval(both, first, second, neither)
            assert -1 <= interval.low <= (first - second) / num_images <= interval.high <= 1
            assert interval.half_width > 0
            mirrored = paired_difference_interval(both, second, first, neither)
            assert (-mirrored.high, -mirrored.low) == pytest.approx((interval.low, interval.high))


def test_paired_difference_is_narrower_than_that_of_independent_images():
    paired = paired_difference_interval(700, 60, 40, 200)
    independent = difference_interval(0.76, wilson(760, 1000), 0.74, wilson(740, 1000))
    assert paired.half_width < 0.6 * independent.half_width
    assert paired_difference_interval(700, 60, 40, 200, 0.99).half_width > paired.half_width


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (5, -1, 2, 3)])
def test_paired_difference_refuses_impossible_counts(counts):
    with pytest.raises(ValueError, match="sum to at least 1"):
        paired_difference_interval(*counts)


def test_paired_difference_refuses_impossible_confidence():
    with pytest.raises(ValueError, match="confidence 95 is not between 0 and 1"):
        paired_difference_interval(1, 2, 3, 4, 95)


# From R's multtest, mt.rawp2adjp(proc="Holm"), as in the tests of statsmodels (test_multi.py, res_multtest1).
MULTTEST = [
    (0.838541367553, 1.0),
    (0.642193923795, 1.0),
    (0.680845947633, 1.0),
    (0.967833824309, 1.0),
    (0.71626938238, 1.0),
    (0.177096952723, 1.0),
    (5.23656777208e-05, 5.23656777208e-04),
    (0.0202732688798, 0.1419128821586),
    (0.00028140506198, 0.00253264555782),
    (0.0149877310796, 0.1199018486368),
]


def test_holm_gives_published_values_in_the_order_given():
    raw, adjusted = zip(*MULTTEST, strict=True)
    assert holm(raw) == pytest.approx(adjusted, rel=1e-12)
    # Three times 0.02 is more than twice 0.025 and once 0.04, which may not fall below it.
    assert holm([0.02, 0.04, 0.025]) == pytest.approx([0.06, 0.06, 0.06])


def test_holm_of_one_test_and_of_none():
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@pytest.mark.parametrize("p_value", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(p_value):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, p_value])


def test_mean_interval_gives_students_published_interval():
    # Student 1908: extra sleep, first drug minus second; R prints this for t.test(extra ~ group, sleep, paired = TRUE).
    interval = mean_interval([-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4])
    assert (interval.low, interval.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_mean_interval_of_two_seeds_is_wide():
    # Mean 0.88, standard error 0.01, and 12.706 in every table of t with one degree of freedom.
    interval = mean_interval([0.87, 0.89])
    assert (interval.low, interval.high) == pytest.approx((0.88 - 0.12706, 0.88 + 0.12706), abs=5e-6)
    assert mean_interval([0.87, 0.89], 0.99).half_width == pytest.approx(0.63657, abs=5e-6)


def test_mean_interval_of_equal_values_has_no_width():
    assert mean_interval([0.1, 0.1, 0.1]) == Interval(0.1, 0.1)


@pytest.mark.parametrize("values", [[], [0.9], [0.9, math.nan], [0.9, math.inf]])
def test_mean_interval_refuses_values_without_a_spread(values):
    with pytest.raises(ValueError, match="at least two finite numbers"):
        mean_interval(values)


def test_mean_interval_refuses_impossible_confidence():
    with pytest.raises(ValueError, match="not between 0 and 1"):
        mean_interval([1.0, 2.0], 95)


def unbalanced(seed, sizes, skill=1.0, decimals=None):
    """Logits and labels with so many images of each class, shuffled; few decimals give ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    logits = rng.normal(size=(len(labels), len(sizes)))
    logits[np.arange(len(labels)), labels] += skill
    return (logits if decimals is None else logits.round(decimals)), labels


def weighted_auroc(labels, probs, weights):
    if probs.shape[1] == 2:
        return oracle.roc_auc_score(labels, probs[:, 1], sample_weight=weights)
    return np.mean(
        [oracle.roc_auc_score(labels == k, probs[:, k], sample_weight=weights) for k in range(probs.shape[1])]
    )


@pytest.mark.parametrize("decimals", [None, 0], ids=["distinct", "tied"])
@pytest.mark.parametrize("sizes", [(40, 25), (2, 60), (30, 1, 15, 20)], ids=str)
def test_resampled_auroc_and_loss_agree_with_scikit_learn_on_the_same_resamples(sizes, decimals):
    logits, labels = unbalanced(1, sizes, decimals=decimals)
    log_probs = log_softmax(logits, axis=1)
    losses = -log_probs[np.arange(len(labels)), labels]
    probs = np.exp(log_probs)
    resampled = _resample_images(probs, losses, labels, 12, np.random.default_rng(3))

    order = np.lexsort((losses, labels))
    counts = _draw(np.array(sizes), 12, np.random.default_rng(3))
    for i in range(12):
        assert resampled["auroc"][i] == pytest.approx(weighted_auroc(labels[order], probs[order], counts[:, i]))
        loss = oracle.log_loss(labels[order], probs[order], sample_weight=counts[:, i])
        assert resampled["loss"][i] == pytest.approx(loss)


def test_resamples_keep_the_classes_sizes_and_treat_images_alike():
    counts = _draw(np.array([6, 0, 1, 30]), 4000, np.random.default_rng(0))
    assert counts.shape == (37, 4000)
    assert (counts[:6].sum(axis=0) == 6).all() and (counts[6] == 1).all() and (counts[7:].sum(axis=0) == 30).all()
    # An image is drawn as often as a die of six shows one number in six throws.
    for image in range(6):
        seen = np.bincount(counts[image].astype(int), minlength=7)[:4]
        expected = stats.binom(6, 1 / 6).pmf(np.arange(4)) * 4000
        assert (
            stats.chisquare(np.append(seen, 4000 - seen.sum()), np.append(expected, 4000 - expected.sum())).pvalue
            > 0.001
        )


def test_resampled_confusion_matrices_score_as_resampled_images_do_in_scikit_learn():
    # Class 3 has no images but is predicted: it counts in the macro-F1 alone.
    logits, labels = unbalanced(2, (60, 12, 25))
    predictions = logits.argmax(axis=1)
    predictions[:3] = 3
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(labels == k) for k in range(3)]
    slow = {"balanced_accuracy": [], "macro_f1": []}
    for _ in range(400):
        drawn = np.concatenate([rng.choice(images, len(images)) for images in members])
        truth, predicted = labels[drawn], predictions[drawn]
        slow["balanced_accuracy"].append(
            oracle.recall_score(truth, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
        )
        slow["macro_f1"].append(oracle.f1_score(truth, predicted, average="macro", zero_division=0))
    fast = _resample_matrix(confusion(labels, predictions, 4), 8000, rng)
    for name, values in slow.items():
        assert stats.ks_2samp(values, fast[name]).pvalue > 0.01
        assert np.std(fast[name]) == pytest.approx(np.std(values), rel=0.1)


def test_intervals_of_auroc_and_loss_agree_with_scipys_bootstrap():
    # The classes' losses differ, so that an unstratified bootstrap would give a wider interval.
    logits, labels = unbalanced(4, (90, 60))
    logits[:, 0] += 1
    margin, losses = logits[:, 1] - logits[:, 0], -log_softmax(logits, axis=1)[np.arange(150), labels]

    def auroc(negative, positive, axis):
        return stats.mannwhitneyu(positive, negative, axis=axis).statistic / 5400

    def loss(negative, positive, axis):
        return (negative.sum(axis=axis) + positive.sum(axis=axis)) / 150

    intervals = score_intervals(logits, labels, num_resamples=10_000)
    for name, values, statistic in (("auroc", margin, auroc), ("loss", losses, loss)):
        expected = stats.bootstrap(
            (values[labels == 0], values[labels == 1]),
            statistic,
            n_resamples=10_000,
            batch=500,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        ends = intervals[name].low, intervals[name].high
        # Ten thousand resamples find an end of an interval within some 2% of its half-width.
        assert ends == pytest.approx((expected.low, expected.high), abs=0.08 * intervals[name].half_width)


def test_interval_of_balanced_accuracy_is_that_of_the_binomials_it_adds_up():
    labels = np.repeat([0, 1], [50, 20])
    predictions = np.where(np.arange(70) % 5 == 0, 1 - labels, labels)
    first, second = (stats.binom(n, 0.8).pmf(np.arange(n + 1)) for n in (50, 20))
    values = np.add.outer(np.arange(51) / 50, np.arange(21) / 20).ravel() / 2
    order = np.argsort(values)
    cumulated = np.outer(first, second).ravel()[order].cumsum()
    low, high = (values[order][np.searchsorted(cumulated, level)] for level in (0.025, 0.975))
    interval = score_intervals(5 * one_hot(predictions, 2), labels, num_resamples=20_000)["balanced_accuracy"]
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_score_intervals_hold_the_scores_and_take_the_accuracys_from_wilson(num_classes):
    logits, labels = drawn(0, 400, num_classes)
    scores, intervals = score_logits(logits, labels), score_intervals(logits, labels)
    assert list(intervals) == ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss"]
    assert intervals["accuracy"] == scores.accuracy_interval
    for name, interval in intervals.items():
        assert interval.low < getattr(scores, name) < interval.high
    wider = score_intervals(logits, labels, confidence=0.99)
    assert all(wider[name].half_width > interval.half_width for name, interval in intervals.items())


def test_score_intervals_repeat_with_the_seed_and_in_any_order_of_the_images():
    logits, labels = drawn(1, 300, 3)
    intervals = score_intervals(logits, labels, seed=5)
    assert score_intervals(logits, labels, seed=5) == intervals
    other = score_intervals(logits, labels, seed=6)
    assert all(other[name] != intervals[name] for name in ("balanced_accuracy", "macro_f1", "auroc", "loss"))
    shuffled = np.random.default_rng(0).permutation(300)
    for name, interval in score_intervals(logits[shuffled], labels[shuffled], seed=5).items():
        assert (interval.low, interval.high) == pytest.approx((intervals[name].low, intervals[name].high), rel=1e-12)


def test_score_intervals_draw_every_resample_asked_for():
    logits, labels = drawn(2, 30, 2)
    assert RESAMPLES_AT_ONCE == 64
    log_probs = log_softmax(logits, axis=1)
    for num_resamples in (64, 65, 100):
        values = _resample_images(
            np.exp(log_probs), -log_probs[np.arange(30), labels], labels, num_resamples, np.random.default_rng(0)
        )
        assert len(values["auroc"]) == len(values["loss"]) == len(np.unique(values["loss"])) == num_resamples


@pytest.mark.parametrize("num_classes", [2, 4])
def test_without_a_class_there_is_no_interval_of_the_auroc(num_classes):
    logits, labels = drawn(7, 80, num_classes)
    present = labels != 1
    intervals = score_intervals(logits[present], labels[present])
    expected = {"accuracy", "balanced_accuracy", "macro_f1", "loss"}
    assert set(intervals) == expected


def test_where_resamples_cannot_vary_no_certainty_is_claimed():
    # No mistakes, every positive above every negative, and losses that differ.
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.5], [0.0, 3.0]])
    assert set(score_intervals(logits, np.array([0, 0, 1, 1]))) == {"accuracy", "loss"}
    # All wrong alike.
    assert set(score_intervals(logits, np.array([1, 1, 0, 0]))) == {"accuracy", "loss"}
    # One image of each class.
    assert set(score_intervals(logits[1:3], np.array([0, 1]))) == {"accuracy"}
    assert set(score_intervals(logits[:1], np.array([1]))) == {"accuracy"}


def test_equal_losses_do_not_vary_by_the_rounding_of_their_mean():
    logits = np.tile([0.1, 0.7, 0.2], (70, 1))
    assert set(score_intervals(logits, np.full(70, 0))) == {"accuracy"}


def test_score_intervals_take_half_precision_and_many_classes():
    logits, labels = drawn(8, 600, 200, skill=4.0)
    intervals = score_intervals(logits.astype(np.float16), labels, num_resamples=100)
    scores = score_logits(logits.astype(np.float16), labels)
    assert set(intervals) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss"}
    assert intervals["macro_f1"].low < scores.macro_f1 < intervals["macro_f1"].high


def test_score_intervals_refuse_what_they_cannot_resample():
    logits, labels = drawn(0, 20, 2)
    with pytest.raises(ValueError, match=r"39 resamples cannot show the tails beyond 0\.95: give at least 40"):
        score_intervals(logits, labels, num_resamples=39)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        score_intervals(logits, labels, confidence=95)
    with pytest.raises(ValueError, match="diverged"):
        score_intervals(logits * np.inf, labels)
    with pytest.raises(ValueError, match="reach from 1 to 2: give 0 to 1"):
        score_intervals(logits, labels + 1)


# A thousand test splits like that of the solar cells: 656 images, 56% sound and 44% not, of which a classifier finds
# nine and eight in ten. Of a thousand intervals with 95% coverage, 930 to 970 hold the truth in all but 4 of 1,000
# such simulations.
SHARES, RECALLS, NUM_IMAGES, NUM_SPLITS = (0.56, 0.44), (0.9, 0.8), 656, 1000


@pytest.mark.parametrize("seed", range(3))
def test_wilson_intervals_cover_as_they_promise(seed):
    truth = float(np.dot(SHARES, RECALLS))
    correct = np.random.default_rng(seed).binomial(NUM_IMAGES, truth, NUM_SPLITS)
    covering = 0
    for num_correct, num_splits in zip(*np.unique(correct, return_counts=True), strict=True):
        interval = wilson(int(num_correct), NUM_IMAGES)
        covering += num_splits * (interval.low <= truth <= interval.high)
    assert 930 <= covering <= 970


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_balanced_accuracy_cover_as_they_promise(seed):
    rng = np.random.default_rng(seed)
    truth = np.mean(RECALLS)
    covering = 0
    for sizes in rng.multinomial(NUM_IMAGES, SHARES, NUM_SPLITS):
        correct = rng.binomial(sizes, RECALLS)
        matrix = np.array([[correct[0], sizes[0] - correct[0]], [sizes[1] - correct[1], correct[1]]])
        interval = _percentile_interval(_resample_matrix(matrix, 2000, rng)["balanced_accuracy"], 0.95)
        covering += interval.low <= truth <= interval.high
    assert 930 <= covering <= 970
