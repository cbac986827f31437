"""Intervals of scores: their equations, their edges, and how often they hold the truth."""

import math
import tracemalloc
from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn import metrics as oracle

from benchmarks.coverage import of_groups, of_pairs, of_two_classes, simulate
from imgcls.metrics import score
from imgcls.statistics.groups import MIN_GROUPS, TOO_FEW, Units, about_groups
from imgcls.statistics.intervals import wilson
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.score_intervals import hits_interval

SCORES = ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss"]


def scored(logits, labels, groups=()):
    return score(Predictions(logits, labels, groups))


def score_intervals(logits, labels, groups=()):
    return scored(logits, labels, groups).intervals


def drawn(seed, sizes, skill=1.0):
    """Logits and labels with so many images of each class, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    logits = rng.normal(size=(len(labels), len(sizes)))
    logits[np.arange(len(labels)), labels] += skill
    return logits, labels


def of_predictions(predictions, num_classes):
    return 5.0 * np.eye(num_classes)[predictions]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_intervals_hold_the_scores_and_take_the_accuracys_from_wilson(num_classes):
    logits, labels = drawn(0, [400 // num_classes] * num_classes)
    scores, intervals = scored(logits, labels), score_intervals(logits, labels)
    assert list(intervals) == SCORES
    num_right = round(scores["accuracy"] * 400)
    assert intervals["accuracy"] == wilson(num_right, 400) == scores.interval("accuracy")
    for name, interval in intervals.items():
        assert interval.low < scores[name] < interval.high


def test_intervals_are_the_same_in_any_order_of_the_images():
    logits, labels = drawn(1, (120, 90, 90))
    groups = np.array([f"group {i % 30}" for i in range(300)])
    order = np.random.default_rng(0).permutation(300)
    for names in ((), groups):
        one = score_intervals(logits, labels, groups=names)
        other = score_intervals(logits[order], labels[order], groups=names[order] if len(names) else ())
        for name in SCORES:
            assert (one[name].low, one[name].high) == pytest.approx((other[name].low, other[name].high), rel=1e-6)


def test_an_end_of_the_balanced_accuracy_solves_the_score_equation():
    """At an end the recalls lie 1.96 standard errors away; the standard errors are those at the end, found by scipy."""
    labels = np.repeat([0, 1], [50, 20])
    predictions = np.where(np.arange(70) % 5 == 0, 1 - labels, labels)
    interval = score_intervals(of_predictions(predictions, 2), labels)["balanced_accuracy"]
    observed, sizes = np.array([0.8, 0.8]), np.array([50, 20])

    def distance(recalls):
        return ((observed - recalls) ** 2 * sizes / (recalls * (1 - recalls))).sum()

    for end, sign in ((interval.low, 1), (interval.high, -1)):
        # The lowest and the highest mean of recalls that the images do not contradict at 1.96 standard errors.
        found = minimize(
            lambda recalls, sign=sign: sign * recalls.mean(),
            observed,
            bounds=[(0.01, 0.99)] * 2,
            constraints={"type": "ineq", "fun": lambda recalls: 1.959963985**2 - distance(recalls)},
        )
        # The profile and its first-order direction differ in the third decimal.
        assert end == pytest.approx(found.x.mean(), abs=0.004)


# Newcombe 2006, Statistics in Medicine 25:559-573, method 5: the ends solve (A - a)^2 = z^2 V(a).
@pytest.mark.parametrize(("sizes", "skill"), [((12, 9), 2.0), ((57, 3), 1.0), ((200, 200), 1.0)])
def test_small_samples_have_newcombes_auroc_interval(sizes, skill):
    logits, labels = drawn(2, sizes, skill)
    interval = score_intervals(logits, labels)["auroc"]
    auroc = oracle.roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    negatives, positives = sizes
    others = (negatives + positives) / 2 - 1
    for end in (interval.low, interval.high):
        shape = (1 - end) / (2 - end) + end / (1 + end)
        variance = end * (1 - end) * (1 + others * shape) / (negatives * positives)
        # DeLong's variance has its say where images suffice, so large samples are near and small ones nearer.
        assert abs(auroc - end) / math.sqrt(variance) == pytest.approx(1.96, rel=0.15)


def test_large_samples_have_delongs_auroc_interval():
    logits, labels = drawn(3, (3000, 3000))
    margin = logits[:, 1] - logits[:, 0]
    interval = score_intervals(logits, labels)["auroc"]
    found = stats.bootstrap(
        (margin[labels == 0], margin[labels == 1]),
        lambda negative, positive: stats.mannwhitneyu(positive, negative).statistic / 9e6,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    assert interval.half_width == pytest.approx(1.96 * found.standard_error, rel=0.12)


def test_loss_has_halls_interval():
    """Hall's transformation of the standardised mean is normal: at the ends it is 1.96."""
    logits, labels = drawn(4, (200, 200))
    losses = -log_softmax(logits, axis=1)[np.arange(400), labels]
    interval = score_intervals(logits, labels)["loss"]
    skewness = stats.skew(losses) / math.sqrt(400)
    standardised = (losses.mean() - interval.low) / stats.sem(losses)
    transformed = standardised + skewness * standardised**2 / 3 + skewness**2 * standardised**3 / 27 + skewness / 6
    assert transformed == pytest.approx(1.96, abs=0.01)
    assert interval.high - losses.mean() > losses.mean() - interval.low


@pytest.mark.parametrize("num_classes", [2, 4])
def test_without_a_class_there_is_no_interval_of_the_auroc(num_classes):
    logits, labels = drawn(7, [120 // num_classes * 2] * num_classes)
    found = scored(logits[labels != 1], labels[labels != 1])
    assert found.missing["auroc"] == "a class has no images"
    assert "accuracy" in found.intervals and "auroc" not in found.intervals


def test_no_mistake_claims_no_certainty():
    logits, labels = drawn(5, (150, 150), skill=20.0)
    intervals = score_intervals(logits, labels)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert intervals[name].high == 1 and 0.95 < intervals[name].low < 0.995, name


def test_two_classes_without_a_mistake_have_the_macro_f1_of_their_accuracy():
    """A mistake would lower the F1 of both, so as many mistakes as the accuracy allows lower their mean as much."""
    labels = np.arange(200) % 2
    found = score_intervals(np.eye(2)[labels] * 4, labels)
    assert found["macro_f1"].low == pytest.approx(found["accuracy"].low, abs=5e-4)


@pytest.mark.parametrize("num_classes", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in (3, 10))])
def test_macro_f1_holds_where_samples_often_have_no_mistake(num_classes):
    """At least 93 %, up to three standard errors of 400 samples: 1.3 % of 200 images are mistaken, for any other."""
    rng, labels = np.random.default_rng(6), np.arange(200) % num_classes
    held = []
    for _ in range(400):
        called = (labels + (rng.random(200) < 0.013) * rng.integers(1, num_classes, 200)) % num_classes
        held.append(score_intervals(np.eye(num_classes)[called], labels)["macro_f1"].low <= 0.987)
    assert np.mean(held) > 0.93 - 3 * 0.0128


def test_all_wrong_claims_no_certainty():
    labels = np.repeat([0, 1], 60)
    intervals = score_intervals(of_predictions(1 - labels, 2), labels)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert intervals[name].low == 0 and 0.01 < intervals[name].high < 0.2, name


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [((30, 29), "fewer than 100 images"), ((200, 7), "fewer than 8 images outside the largest class")],
)
def test_losses_of_few_images_have_no_interval(sizes, reason):
    found = scored(*drawn(0, sizes))
    assert found.missing == {"loss": reason}
    assert set(found.intervals) | set(found.missing) == set(SCORES)


def test_equal_losses_do_not_vary_by_the_rounding_of_their_mean():
    logits = np.tile([0.0, 0.0], (170, 1)) + 0.1
    found = scored(logits, np.arange(170) % 2)
    assert found.missing["loss"] == "all losses are equal"


def test_one_image_has_an_interval_of_its_accuracy():
    assert set(score_intervals(np.array([[2.0, 0.0]]), np.array([1]))) == {"accuracy", "balanced_accuracy", "macro_f1"}


def test_intervals_of_half_precision_and_many_classes():
    logits, labels = drawn(8, [3] * 200, skill=4.0)
    scores, intervals = (
        scored(logits.astype(np.float16), labels),
        score_intervals(logits.astype(np.float16), labels),
    )
    assert set(intervals) == set(SCORES)
    assert intervals["macro_f1"].low < scores["macro_f1"] < intervals["macro_f1"].high


def test_intervals_need_two_and_a_half_times_the_memory_of_float32_logits():
    logits, labels = drawn(9, [100] * 200)
    logits = logits.astype(np.float32)
    tracemalloc.start()
    score_intervals(logits, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * logits.nbytes


@pytest.mark.parametrize(
    ("logits", "labels", "complaint"),
    [
        (np.full((4, 2), np.inf), np.array([0, 1, 0, 1]), "diverged"),
        (np.zeros((4, 2)), np.array([0, 1, 0, 2]), "reach from 0 to 2: give 0 to 1"),
        (np.zeros((4, 2)), np.array([0.0, 1, 0, 1]), "give integers"),
        (np.zeros((4, 1)), np.array([0, 0, 0, 0]), "K >= 2"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one image"),
    ],
)
def test_what_cannot_be_scored_is_refused(logits, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_intervals(logits, labels)


def test_other_numbers_of_groups_are_refused():
    logits, labels = drawn(0, (10, 10))
    with pytest.raises(ValueError, match="19 groups for 20 images"):
        score_intervals(logits, labels, groups=["a"] * 19)


# --- groups -----------------------------------------------------------------------------------------------------


def test_identical_images_of_a_group_count_once():
    """Ten copies of each image, as groups, tell what the images alone tell, but for Student's quantile."""
    hits = np.random.default_rng(0).random(200) < 0.8
    copied = hits_interval(np.repeat(hits, 10), [f"group {i // 10}" for i in range(2000)])
    alone = wilson(int(hits.sum()), 200)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.002)


def test_groups_that_say_nothing_cost_nothing():
    hits = np.random.default_rng(1).random(2000) < 0.8
    grouped, alone = hits_interval(hits, [f"group {i % 200}" for i in range(2000)]), wilson(int(hits.sum()), 2000)
    assert grouped.half_width == pytest.approx(alone.half_width, rel=0.1)


def test_where_all_groups_agree_a_group_counts_as_one_image():
    found = hits_interval(np.ones(300, bool), [f"group {i // 15}" for i in range(300)])
    assert found.high == 1 and found.low < wilson(20, 20).low + 1e-9


def test_design_effect_is_that_of_the_ratio_estimator():
    """The jackknife's variance of a ratio, each group left out in turn and the ratio counted again: to first order."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(3, 20, 25)
    groups = np.repeat([f"group {i}" for i in range(25)], sizes)
    hits = rng.random(sizes.sum()) < np.repeat(rng.beta(2, 1, 25), sizes)
    num, share = sizes.sum(), hits.mean()
    right = np.array([hits[groups == f"group {i}"].sum() for i in range(25)])
    without = (right.sum() - right) / (num - sizes)
    expected = 24 / 25 * ((without - share) ** 2).sum() / (share * (1 - share) / num)
    units, among = Units(num, groups), np.ones(num, bool)
    left_out = units.left_out((hits - share) / num, among)
    assert units.design_effect(left_out, among, share * (1 - share) / num) == pytest.approx(expected)


@pytest.mark.parametrize("num_groups", [1, 2, MIN_GROUPS - 1])
def test_too_few_groups_have_no_interval_and_say_so(num_groups):
    logits, labels = drawn(0, (100, 100))
    found = scored(logits, labels, groups=[f"patient {i % num_groups}" for i in range(200)])
    assert not found.intervals and set(found.missing) == set(SCORES)
    assert about_groups(found.num_groups, has_intervals=False) == (
        f"The images come in {num_groups} groups, and no interval is given, because there are {TOO_FEW}."
    )


def test_many_groups_of_which_one_has_most_images_have_no_interval():
    groups = ["large"] * 300 + [f"small {i}" for i in range(100)]
    assert Units(400, groups).effective == pytest.approx(400**2 / (300**2 + 100))
    assert hits_interval(np.arange(400) % 4 > 0, groups) is None


@pytest.mark.parametrize("sizes", [[60] + [8] * 11, [40] * 2 + [10] * 10, [1, 2, 3, 4, 5, 6, 8, 10, 20, 40]], ids=str)
def test_groups_of_unequal_sizes_hold_what_they_promise(sizes):
    """At least 93 %, up to three standard errors of 400 samples."""
    rng, of_image = np.random.default_rng(5), np.repeat(np.arange(len(sizes)), sizes)
    groups = [str(group) for group in of_image]
    drawn_hits = (rng.random(len(groups)) < rng.beta(8, 2, len(sizes))[of_image] for _ in range(400))
    intervals = [hits_interval(hits, groups) for hits in drawn_hits]
    assert np.mean([of.low <= 0.8 <= of.high for of in intervals]) > 0.93 - 3 * 0.0128


def test_a_class_in_few_groups_leaves_its_scores_without_an_interval():
    logits, labels = drawn(0, (150, 50))
    groups = [f"rare {i % 4}" if label else f"frequent {i % 40}" for i, label in enumerate(labels)]
    found = scored(logits, labels, groups=groups)
    assert set(found.intervals) == {"accuracy", "loss"}
    assert found.missing["balanced_accuracy"] == f"a class is in {TOO_FEW}"
    said = about_groups(found.num_groups, has_intervals=True)
    assert "design effect" in said and "44 groups" in said


# --- coverage ---------------------------------------------------------------------------------------------------

# Made by the test and not before, because the truth of a cell is that of a large sample.
CHECKED = {
    f"{share}, {auroc}": partial(of_two_classes, 60, share, auroc) for share in (0.05, 0.5) for auroc in (0.86, 0.98)
}
CHECKED |= {
    "of 300": partial(of_two_classes, 300, 0.05, 0.98),
    "groups": partial(of_groups, 10, 12),
    "pairs": partial(of_pairs, 10, 12, related=True),
}


@pytest.mark.parametrize("cell", CHECKED)
def test_intervals_hold_what_they_promise(cell):
    """At least 93 %, up to three and a half standard errors of 200 samples."""
    found = simulate(CHECKED[cell](), 200)
    assert {score: share for score, share in found["coverage"].items() if share < 0.93 - 0.063} == {}
    assert min(found["shown"][score] for score in found["coverage"]) > 0.9
