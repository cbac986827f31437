"""Every score against scikit-learn, and everything that follows from a metric against the metric's own direction."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax
from sklearn import metrics as oracle

from imgcls.errors import InputError
from imgcls.metrics import BY_NAME, METRICS, Metric, Scores, metric_named, reported, score, val_scores
from imgcls.statistics.intervals import NO_INTERVAL, wilson
from imgcls.statistics.per_class import per_class
from imgcls.statistics.predictions import Predictions

SELECTING = ["val/accuracy", "val/balanced_accuracy", "val/macro_f1", "val/auroc", "val/loss"]


def drawn(seed, num_images, num_classes, skill=1.0):
    """Logits and labels in which every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % num_classes)
    logits = rng.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), labels] += skill
    return logits, labels


def one_hot(predictions, num_classes):
    """Logits that are sure of a class."""
    return 1000.0 * np.eye(num_classes)[predictions]


def scored(logits, labels, groups=()):
    return score(Predictions(np.asarray(logits), np.asarray(labels), groups))


def by_scikit_learn(logits, labels):
    """What the metrics of an epoch have to be; NaN where a class has no images."""
    num_classes = logits.shape[1]
    probs, present = softmax(logits.astype(np.float64), axis=1), np.unique(labels)
    predictions = logits.argmax(axis=1)
    auroc = math.nan
    if len(present) == num_classes:
        one_vs_rest = [oracle.roc_auc_score(labels == k, probs[:, k]) for k in range(num_classes)]
        auroc = one_vs_rest[1] if num_classes == 2 else np.mean(one_vs_rest)
    recalls = oracle.recall_score(labels, predictions, labels=present, average="macro", zero_division=0)
    return {
        "val/accuracy": oracle.accuracy_score(labels, predictions),
        "val/balanced_accuracy": recalls,
        "val/macro_f1": oracle.f1_score(labels, predictions, average="macro", zero_division=0),
        "val/auroc": auroc,
        "val/loss": oracle.log_loss(labels, probs, labels=range(num_classes)),
    }


def cases():
    """Logits float32 and labels: few and many images and classes, classes missing, ties, all right and all wrong."""
    for num_classes in (2, 3, 10):
        for seed in range(3):
            yield f"{num_classes} classes, {seed}", *drawn(seed, 240, num_classes)
        logits, labels = drawn(7, 60, num_classes)
        for label in (0, num_classes - 1):
            yield f"{num_classes} classes, none of class {label}", logits[labels != label], labels[labels != label]
        yield f"{num_classes} classes, ties", np.round(logits), labels
        yield f"{num_classes} classes, all equal", np.zeros_like(logits), labels
        yield f"{num_classes} classes, all right", one_hot(labels, num_classes), labels
        yield f"{num_classes} classes, all wrong", one_hot((labels + 1) % num_classes, num_classes) / 100, labels
        yield f"{num_classes} classes, one image", logits[:1], labels[:1]
        yield f"{num_classes} classes, unbalanced", *drawn_unbalanced(num_classes)


def drawn_unbalanced(num_classes):
    rng = np.random.default_rng(num_classes)
    labels = np.concatenate([np.arange(num_classes), rng.permutation(np.repeat([0, 1], [380, 20]))])
    return rng.normal(size=(len(labels), num_classes)) + 2 * np.eye(num_classes)[labels] + np.eye(num_classes)[
        0
    ], labels


@pytest.mark.parametrize(("logits", "labels"), [pytest.param(*case, id=name) for name, *case in cases()])
def test_what_an_epoch_is_scored_by_agrees_with_scikit_learn(logits, labels):
    logits, expected = logits.astype(np.float32), by_scikit_learn(logits.astype(np.float32), labels)
    for selecting in SELECTING:
        found = val_scores(Predictions(logits, labels), selecting)
        assert set(found) == {"val/loss", "val/accuracy", "val/balanced_accuracy", "val/macro_f1", selecting}
        for name, value in found.items():
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-12, nan_ok=True), name
        assert found["val/accuracy"] == expected["val/accuracy"]


@pytest.mark.parametrize("num_images", [1, 7, 999])
def test_the_loss_of_an_epoch_has_the_bits_that_it_always_had(num_images):
    draws = torch.Generator().manual_seed(num_images)
    logits, labels = torch.randn(num_images, 5, generator=draws) * 4, torch.randint(5, (num_images,), generator=draws)
    scores = val_scores(Predictions(logits.numpy(), labels.numpy()), "val/accuracy")
    assert scores["val/loss"] == float(F.cross_entropy(logits.double(), labels, reduction="sum")) / num_images
    assert scores["val/accuracy"] == int((logits.argmax(dim=1) == labels).sum()) / num_images


def test_a_sure_and_wrong_prediction_costs_its_margin_in_nats():
    scores = val_scores(Predictions(np.array([[1000.0, 0.0]] * 2, np.float32), np.array([0, 1])), "val/loss")
    assert (scores["val/loss"], scores["val/accuracy"]) == (500.0, 0.5)


@pytest.mark.parametrize("name", SELECTING)
def test_a_metric_knows_which_way_is_better(name):
    """A classifier with skill comes before one that has next to none."""
    metric = metric_named(name)
    skilled, unskilled = (metric.compute(Predictions(*drawn(0, 300, 3, skill))) for skill in (3.0, 0.1))
    assert metric.rank(skilled) < metric.rank(unskilled)
    assert list(BY_NAME) == SELECTING


def test_a_metric_of_a_later_version_is_refused():
    with pytest.raises(InputError, match=r"'val/top5' is not known to this version, which has val/accuracy, val/bal"):
        metric_named("val/top5")


def test_what_is_reported_of_every_run():
    assert reported("val/accuracy") == reported("val/loss") == ("val/accuracy", "val/loss")
    assert reported("val/auroc") == ("val/accuracy", "val/loss", "val/auroc")


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed, num_classes):
    logits, labels = drawn(seed, 240, num_classes)
    probs = softmax(logits, axis=1)
    predictions = probs.argmax(axis=1)
    scores = scored(logits, labels)
    assert scores["loss"] == pytest.approx(oracle.log_loss(labels, probs))
    assert scores["accuracy"] == oracle.accuracy_score(labels, predictions)
    assert scores.interval("accuracy") == wilson(int((predictions == labels).sum()), 240)
    assert scores["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(labels, predictions))
    assert scores["macro_f1"] == pytest.approx(oracle.f1_score(labels, predictions, average="macro"))
    one_vs_rest = (
        oracle.roc_auc_score(labels, probs[:, 1])
        if num_classes == 2
        else oracle.roc_auc_score(labels, probs, multi_class="ovr", average="macro")
    )
    assert scores["auroc"] == pytest.approx(one_vs_rest)


def test_loss_of_logits_is_exact_where_the_probability_rounds_to_0():
    assert scored(np.array([[0, 1000], [0, 1000]], np.float32), [0, 1])["loss"] == 500


def test_low_precision_changes_the_input_alone():
    logits, labels = drawn(5, 300, 5)
    coarse = logits.astype(np.float16)
    assert scored(coarse, labels) == scored(coarse.astype(np.float64), labels)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_auroc_of_a_missing_class_is_undefined_and_not_recorded(num_classes):
    logits, labels = drawn(7, 60, num_classes)
    present = labels != 1
    scores = scored(logits[present], labels[present])
    assert math.isnan(scores["auroc"])
    named = {name for name in scores.metrics("test") if not name.endswith(("_low", "_high"))}
    assert named == {"test/loss", "test/accuracy", "test/balanced_accuracy", "test/macro_f1", "test/ece"}
    assert np.isfinite(list(scores.metrics("test").values())).all()


def test_scores_are_read_back_from_the_record_as_they_were():
    scores = scored(*drawn(0, 150, 3))
    metrics = scores.metrics("test")
    assert metrics["test/accuracy_low"] == scores.interval("accuracy").low
    assert metrics["test/macro_f1_high"] == scores.interval("macro_f1").high
    assert "test/ece" in metrics and "test/ece_low" not in metrics
    assert Scores.from_metrics(metrics, "test") == scores != Scores.from_metrics(metrics, "val")


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
    scores, table = scored(one_hot(predictions, 3), labels), per_class(labels, predictions, ["a", "b", "c"])
    assert scores["macro_f1"] == pytest.approx(macro_f1)
    assert scores["macro_f1"] == pytest.approx(oracle.f1_score(labels, predictions, average="macro", zero_division=0))
    assert table["f1"].mean() == pytest.approx(scores["macro_f1"])


def test_all_right():
    scores = scored(one_hot([0, 1, 2, 1], 3), [0, 1, 2, 1])
    assert (scores["accuracy"], scores.interval("accuracy").high, scores["macro_f1"], scores["auroc"]) == (1, 1, 1, 1)
    assert (scores["loss"], scores["ece"]) == (0, 0)
    assert scores.interval("accuracy").low == pytest.approx(wilson(4, 4).low)


def test_all_wrong():
    scores = scored(one_hot([1, 0, 1, 0], 2), [0, 1, 0, 1])
    assert scores.interval("accuracy").low == 0
    assert [scores[name] for name in ("accuracy", "macro_f1", "auroc", "ece")] == [0, 0, 0, 1]


@pytest.mark.parametrize("label", [0, 1])
def test_one_image(label):
    scores = scored(np.log([[0.75, 0.25]]), [label])
    assert scores["accuracy"] == 1 - label
    assert scores["loss"] == pytest.approx(-math.log([0.75, 0.25][label]))
    assert scores["ece"] == pytest.approx([0.25, 0.75][label])
    assert math.isnan(scores["auroc"])


@pytest.mark.parametrize(
    ("logits", "labels", "complaint"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), "at least one image"),
        (np.full((2, 1), 1.0), np.zeros(2, np.int64), "K >= 2"),
        (np.full((3, 2), 0.5), np.zeros(2, np.int64), "for .2,. labels"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "reach from 0 to 2: give 0 to 1"),
        (np.full((2, 2), 0.5), np.array([-1, 0]), "reach from -1 to 0"),
        (np.full((2, 2), 0.5), np.array([0.0, 1.0]), "give integers"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 1]), "1 of 2 images have values that are not finite"),
        (np.array([[0.0, np.inf]]), np.array([0]), "diverged"),
    ],
)
def test_what_cannot_be_scored_is_refused(logits, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        scored(logits, labels)


def test_too_few_groups_leave_the_accuracy_without_an_interval():
    logits, labels = drawn(0, 90, 2)
    scores = scored(logits, labels, [f"patient {i % 9}" for i in range(90)])
    assert scores.interval("accuracy") is NO_INTERVAL
    assert "val/accuracy_low" not in scores.metrics("val")
    assert scores["accuracy"] == scored(logits, labels)["accuracy"]


def test_a_score_that_is_registered_without_an_interval_is_reported_without_one(monkeypatch):
    top2 = Metric(
        "top2",
        "top-2 accuracy",
        higher_is_better=True,
        compute=lambda of: oracle.top_k_accuracy_score(of.labels, of.logits, k=2),
    )
    monkeypatch.setattr("imgcls.metrics.METRICS", (*METRICS, top2))
    logits, labels = drawn(0, 90, 3)
    scores = scored(logits, labels)
    assert scores["top2"] > scores["accuracy"] and scores.interval("top2") is NO_INTERVAL
    assert scores.metrics("test")["test/top2"] == scores["top2"] and "top2" not in scores.missing
    assert "val/top2" in val_scores(Predictions(logits, labels), "val/top2")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_loss_and_calibration_error_are_also_given_of_probabilities_with_temperature(temperature):
    logits, labels = drawn(0, 300, 4)
    both = score(Predictions(logits, labels), temperature)
    divided, raw = scored(logits / temperature, labels), scored(logits, labels)
    assert {name: both[name] for name in raw.values} == raw.values
    for name in ("loss", "ece"):
        assert both[f"calibrated_{name}"] == pytest.approx(divided[name], rel=1e-6)
    assert both.intervals["calibrated_loss"].high == pytest.approx(divided.intervals["loss"].high, rel=1e-6)
    assert set(both.values) - set(raw.values) == {"calibrated_loss", "calibrated_ece"}
    assert Scores.from_metrics(both.metrics("test"), "test") == both
