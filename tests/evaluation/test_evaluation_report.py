"""The report of an evaluation, from records made by hand: digits, dashes, and which run each number is of."""

import re

import numpy as np
import pytest

from imgcls.evaluation.confirmation import Confirmed
from imgcls.evaluation.evaluation_report import evaluation_report, scores_text
from imgcls.evaluation.selection import Selection, Trials
from imgcls.metrics import Scores
from imgcls.reporting.report import markdown
from imgcls.statistics.intervals import Interval, wilson
from imgcls.statistics.per_class import per_class
from tests.reporting.records import evaluation, record, trained

VALUES = {
    "loss": 0.3817, "accuracy": 0.8742, "balanced_accuracy": 0.8611, "macro_f1": 0.8583, "auroc": 0.9314, "ece": 0.0413,
}  # fmt: skip
TEST = Scores(VALUES, {"accuracy": Interval(0.8492, 0.8992)})
VAL = Scores(VALUES | {"accuracy": 0.9}, {"accuracy": Interval(0.8, 0.95)})
LABELS = np.repeat([0, 1, 0], [90, 40, 10])
PREDICTIONS = np.repeat([0, 1, 1], [90, 40, 10])
NAMES = ["functional", "defective"]
CLASSES = per_class(LABELS, PREDICTIONS, NAMES)
INTERVALS = {
    "val/loss": (0.3, 0.46),
    "val/auroc": (0.914, 0.948),
    "test/loss": (0.3776, 0.3858),
    "test/balanced_accuracy": (0.84, 0.88),
}


def single(**params):
    run = trained("run1", "train", 0.9, 0.3512, params=params)
    return Selection(run, run.params["search.metric"])


def recorded_now():
    """A run of this version, which recorded its temperature."""
    selection = single()
    selection.run.metrics["best/temperature"] = 0.6134522
    return selection


def report(selection=None, *, test=TEST, classes=CLASSES, intervals=INTERVALS, further=None, **tags):
    judged = evaluation(VAL, test, intervals, further=further, **tags)
    return markdown(*evaluation_report(judged, selection or single(), classes))


def test_a_score_has_the_digits_that_its_interval_supports():
    lines = report().splitlines()
    assert "| balanced accuracy | 0.86 | 0.84 to 0.88 | 0.86 | – |" in lines
    assert "| AUROC | 0.93 | – | 0.93 | 0.91 to 0.95 |" in lines
    assert "| loss (nats) | 0.382 | 0.378 to 0.386 | 0.38 | 0.30 to 0.46 |" in lines
    assert "| calibration error (ECE) | 0.04 | – | 0.04 | – |" in lines
    assert not any("0.8742" in line for line in lines)


WITH_TEMPERATURE = {
    "test/calibrated_loss": 0.3517, "test/calibrated_loss_low": 0.3476, "test/calibrated_loss_high": 0.3558,
    "test/calibrated_ece": 0.0213, "val/calibrated_loss": 0.34, "val/calibrated_ece": 0.02,
}  # fmt: skip
FITTED = {"best/temperature": 0.6134522, "best/temperature_gain": 26.25}
NOT_NEEDED = {"best/temperature": 1.0, "best/temperature_gain": 3.1234}


def test_loss_and_calibration_error_are_given_with_temperature_too():
    text = report(recorded_now(), further=WITH_TEMPERATURE | FITTED)
    table, methods = (text.split(title)[1].split("\n## ")[0] for title in ("## Scores", "## For a methods section"))
    lines = table.splitlines()
    assert "| loss (nats), with temperature | 0.352 | 0.348 to 0.356 | 0.34 | – |" in lines
    assert "| calibration error (ECE), with temperature | 0.02 | – | 0.02 | – |" in lines
    assert (
        "the logits are divided by 0.6135 before they become probabilities. This changes no predicted class." in table
    )
    assert "was fitted on val, so the scores with temperature on val are better than they would be on other" in table
    assert "divided by a temperature of 0.6135, fitted on validation: calibration error (ECE)" in methods
    assert "earlier version" not in text


def test_a_temperature_of_1_is_explained_from_the_run():
    text = report(recorded_now(), further=WITH_TEMPERATURE | NOT_NEEDED)
    assert "The temperature is 1, so the scores with temperature are those without." in text
    assert "raises twice the log-likelihood by 3.12, and more than 3.84 would be needed." in text
    assert "divided by" not in text.split("## For a methods section")[1].split("\n## ")[0]


def test_a_temperature_that_the_run_did_not_record_is_said_to_be_fitted_now():
    assert "which fitted no temperature. The temperature was fitted for this evaluation" in report(
        further=WITH_TEMPERATURE | FITTED
    )


def test_an_evaluation_of_an_earlier_version_says_nothing_of_temperature():
    assert "temperature" not in report()


def test_an_undefined_score_is_a_dash():
    assert (
        "| AUROC | – | – | 0.93 | – |"
        in report(
            test=Scores({name: v for name, v in VALUES.items() if name != "auroc"}, TEST.intervals), intervals={}
        ).splitlines()
    )


@pytest.mark.parametrize(
    ("metric", "row"),
    [
        ("val/accuracy", "| accuracy | 0.87 | 0.85 to 0.90 | 0.90 | 0.80 to 0.95; this score selected the epoch |"),
        ("val/loss", "| loss (nats) | 0.382 | 0.378 to 0.386 | 0.38 | 0.30 to 0.46; this score selected the epoch |"),
    ],
)
def test_the_score_that_selected_says_what(metric, row):
    text = report(single(**{"search.metric": metric}))
    table = text.split("## Scores")[1].split("\n## ")[0]
    assert row in table
    assert table.count("this score selected") == 1


def test_an_epoch_fixed_beforehand_was_not_selected():
    text = report(single(**{"train.score_epoch": 9}))
    for claim in ("this score selected", "optimistic", "some gap is to be expected"):
        assert claim not in text
    assert "The weights are those of epoch 9, which was fixed before training." in text


NO_LUCK = "so its val/accuracy is optimistic. No choice on record was made by test, so the test scores are not"


@pytest.mark.parametrize(("tags", "is_said"), [({}, True), ({"test_look": 2}, False), ({"num_test_alike": 3}, False)])
def test_the_luck_of_the_best_trial_is_in_its_val_score_alone_at_the_first_look(tags, is_said):
    run = trained("run1", "trial", 0.9, trial=1)
    sweep = record("sweep1", "sweep", best_run_id="run1")
    best = Selection(run, "val/accuracy", sweep=sweep, trials=Trials({"run1": 1, "run2": 0}, 2, {"completed": 2}))
    judged = evaluation(VAL, TEST, INTERVALS, **tags)
    text = markdown(*evaluation_report(judged, best, CLASSES))
    assert text.count(NO_LUCK) == (2 if is_said else 0)
    assert (NO_LUCK in scores_text(judged, best)) is is_said
    other = Selection(run, "val/accuracy", sweep=sweep, trials=Trials({"run2": 0, "run1": 1}, 2, {"completed": 2}))
    assert "No choice on record" not in scores_text(judged, other)


def fresh_runs(*accuracies):
    return tuple(trained(f"fresh{i}", "confirm", value, trial=4) for i, value in enumerate(accuracies))


@pytest.mark.parametrize(
    ("accuracies", "mean", "optimism"),
    [
        (
            (0.87, 0.89, 0.885),
            r"0.88 \(0.8\d to 0.9\d\), standard deviation 0.01, 3 fresh seeds",
            r"0.02 \(-0.0\d to 0.0\d\)",
        ),
        ((0.88,), r"0.88 \(one seed, no interval\)", r"0.02 \(one seed, no interval\)"),
    ],
)
def test_optimism_is_of_the_configuration_of_the_run_judged_and_of_no_other(accuracies, mean, optimism):
    fresh = fresh_runs(*accuracies)
    confirmed = Confirmed(trained("trial4", "trial", 0.9, trial=4), fresh, "val/accuracy")
    lines = report(Selection(fresh[0], "val/accuracy", confirmed=confirmed)).splitlines()
    low, high = wilson(270, 300).low, wilson(270, 300).high
    found = f"| val/accuracy of trial 4, which found the configuration | 0.90 ({low:.2f} to {high:.2f}) |"
    start = lines.index(found)
    assert re.fullmatch(rf"\| confirmed mean of the configuration \| {mean} \|", lines[start + 1])
    assert re.fullmatch(rf"\| optimism, the first minus the second \| {optimism} \|", lines[start + 2])


def test_the_gap_has_newcombes_interval():
    # 0.0258 - hypot(0.1, 0.025) and 0.0258 + hypot(0.05, 0.025).
    assert "`val_test_gap`, accuracy on val minus accuracy on test: 0.03 (-0.08 to 0.08" in report()


@pytest.mark.parametrize(
    ("names", "predictions", "row"),
    [
        (NAMES, PREDICTIONS, "| functional | 1.00 | 0.90 | 0.83 to 0.94 | 0.95 | 100 |"),
        (NAMES, PREDICTIONS, "| defective | 0.80 | 1.00 | 0.91 to 1.00 | 0.89 | 40 |"),
        ([*NAMES, "absent"], PREDICTIONS, "| absent | – | – | – | – | 0 |"),
        ([*NAMES, "other"], np.where(PREDICTIONS, PREDICTIONS, 2), "| other | 0 | – | – | 0 | 0 |"),
    ],
)
def test_each_class_has_its_row(names, predictions, row):
    text = report(classes=per_class(LABELS, predictions, names))
    assert row in text.splitlines()
    assert "The macro-F1 is the mean of the column F1. As in scikit-learn with zero_division=0" in text


@pytest.mark.parametrize(
    ("look", "words"), [(1, "Look 1: no earlier opening"), (2, "opened once"), (5, "opened 4 times")]
)
def test_the_report_says_how_often_the_split_was_opened(look, words):
    assert words in report(test_look=look)


def test_cautions_stand_beside_every_score():
    text = report(leaks="3 test images are also in [train](x)")
    for title in ("## Scores", "## From val to test", "## For a methods section", "## Classes, on test"):
        assert (
            r"**Warning:** Splits leak: 3 test images are also in \[train\](x)."
            in text.split(title)[1].split("\n## ")[0]
        )
    assert "Warning" not in report()


def test_the_methods_paragraph_stands_alone():
    paragraph = (
        report(single(**{"model.weights": "pretrained"})).split("## For a methods section\n\n")[1].split("\n\n")[0]
    )
    for fact in (
        "The model was resnet, 18 layers, width 64 on images of 224 x 224 pixels in 2 classes (1500 train, 300 val, "
        "656 test).",
        'Training started from the weights "pretrained".',
        "commit 0123456789ab",
        "The weights are those of epoch 9, the best one on validation by accuracy.",
        "is a single one: no sweep chose its configuration.",
        "Validation accuracy was 0.90 (95% Wilson interval 0.80 to 0.95); measured on the images that selected, it is "
        "optimistic.",
        "The test split of 656 images was opened for the first time on record for this evaluation.",
        "Test accuracy was 0.87 (95% Wilson interval 0.85 to 0.90), balanced accuracy 0.86 (95% interval 0.84 to "
        "0.88), loss (nats) 0.382 (95% interval 0.378 to 0.386).",
    ):
        assert fact in paragraph


def test_the_report_says_what_it_judged_and_how_to_repeat_it():
    text = report()
    assert text.startswith("# solar_cells: held-out evaluation\n\n")
    assert text.endswith("\n")
    for fact in (
        "Run `run1` (resnet, 18 layers, width 64) judged on 656 test images.",
        "| epoch judged | 9 |",
        "| images | 1500 train, 300 val, 656 test |",
        "| test fingerprint | fedcba9876543210 |",
        "| evaluation run | eval1, on cpu: AMD EPYC, 2 threads |",
        "```sh\nimgcls evaluate run1 --again\n```",
        "--run-id run1 --artifact-path config.toml",
    ):
        assert fact in text
