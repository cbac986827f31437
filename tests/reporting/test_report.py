import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imgcls.reporting.report import (
    Confirmed,
    EvaluationFacts,
    Selection,
    SweepFacts,
    evaluation_markdown,
    markdown_table,
    sweep_markdown,
    terminal_table,
    with_interval,
)
from imgcls.reporting.statistics import Interval, Scores, per_class, wilson

TEST = Scores(
    loss=0.3817,
    accuracy=0.8742,
    accuracy_low=0.8492,
    accuracy_high=0.8992,
    balanced_accuracy=0.8611,
    macro_f1=0.8583,
    auroc=0.9314,
    ece=0.0413,
)
VAL = replace(TEST, accuracy=0.9, accuracy_low=0.8, accuracy_high=0.95)
LABELS = np.repeat([0, 1, 0], [90, 40, 10])
PREDICTIONS = np.repeat([0, 1, 1], [90, 40, 10])

EVALUATION = EvaluationFacts(
    run_id="run1",
    evaluation_run_id="eval1",
    experiment="solar_cells",
    model="resnet, depth 18",
    class_names=["functional", "defective"],
    num_train=1500,
    num_val=300,
    num_test=656,
    look=1,
    val=VAL,
    test=TEST,
    best_epoch=9,
    per_class=per_class(LABELS, PREDICTIONS, ["functional", "defective"]),
    test_fingerprint="0123456789abcdef",
)

SWEEP = SweepFacts(
    name="solar_cells",
    run_id="sweep1",
    num_trials=20,
    outcomes={"completed": 12, "pruned": 8, "failed": 0},
    metric="val/accuracy",
    leaderboard=pd.DataFrame({"trial": [3, 1], "val/accuracy": [0.88123, math.nan], "train.lr": [3.16e-4, 0.01]}),
    best_run_id="run3",
    best_value=0.88123,
    searched={"train.lr": "0.0001 to 0.01, log"},
    evaluate_command="python evaluate.py --run-id run3",
)


def test_evaluation_shows_scores_with_the_digits_their_interval_supports():
    lines = evaluation_markdown(EVALUATION).splitlines()
    assert "| accuracy | 0.87 | 0.85 to 0.90 | 0.90 | 0.80 to 0.95 |" in lines
    assert "| loss (nats) | 0.38 | – | 0.38 | – |" in lines
    assert "| AUROC | 0.93 | – | 0.93 | – |" in lines
    assert not any("0.8742" in line for line in lines)


def test_evaluation_shows_the_gap_with_its_interval():
    # Newcombe: 0.0258 - hypot(0.1, 0.025) and 0.0258 + hypot(0.05, 0.025).
    assert "`val_test_gap`, accuracy on val minus accuracy on test: 0.03 (-0.08 to 0.08" in evaluation_markdown(
        EVALUATION
    )


def test_evaluation_shows_each_class():
    lines = evaluation_markdown(EVALUATION).splitlines()
    assert "| functional | 1.00 | 0.90 | 0.83 to 0.94 | 0.95 | 100 |" in lines
    assert "| defective | 0.80 | 1.00 | 0.91 to 1.00 | 0.89 | 40 |" in lines


def test_evaluation_of_a_class_without_images():
    facts = replace(EVALUATION, per_class=per_class(LABELS, PREDICTIONS, ["functional", "defective", "absent"]))
    assert "| absent | – | – | – | – | 0 |" in evaluation_markdown(facts).splitlines()


def test_evaluation_of_a_class_that_is_predicted_without_being_there():
    classes = per_class(LABELS, np.where(PREDICTIONS, PREDICTIONS, 2), ["functional", "defective", "other"])
    assert "| other | 0 | – | – | 0 | 0 |" in evaluation_markdown(replace(EVALUATION, per_class=classes)).splitlines()


def test_evaluation_of_an_undefined_auroc():
    facts = replace(EVALUATION, test=replace(TEST, auroc=math.nan))
    assert "| AUROC | – | – | 0.93 | – |" in evaluation_markdown(facts).splitlines()


@pytest.mark.parametrize(
    ("look", "sentence"),
    [
        (1, "Look 1: this test split had never been opened before."),
        (2, "Look 2: this test split had been opened once before."),
        (5, "Look 5: this test split had been opened 4 times before."),
    ],
)
def test_evaluation_says_how_often_the_split_was_opened(look, sentence):
    assert sentence in evaluation_markdown(replace(EVALUATION, look=look))


JUDGED = replace(
    EVALUATION,
    val_intervals={"loss": Interval(0.3, 0.46), "auroc": Interval(0.914, 0.948)},
    test_intervals={"loss": Interval(0.3776, 0.3858), "balanced_accuracy": Interval(0.84, 0.88)},
    selection=Selection(
        metric="val/accuracy",
        num_trials=20,
        best_trial_value=0.9,
        confirmed_mean=0.8812,
        confirmed_std=0.0123,
        num_seeds=3,
        confirmed_interval=Interval(0.8506, 0.9118),
    ),
    image_size=64,
    training="AdamW, lr 0.003 after 1 warm-up epoch, 15 epochs of batches of 64",
)


def test_evaluation_shows_each_score_with_an_interval_of_its_own():
    lines = evaluation_markdown(JUDGED).splitlines()
    assert "| loss (nats) | 0.382 | 0.378 to 0.386 | 0.38 | 0.30 to 0.46 |" in lines
    assert "| balanced accuracy | 0.86 | 0.84 to 0.88 | 0.86 | – |" in lines
    assert "| AUROC | 0.93 | – | 0.93 | 0.91 to 0.95 |" in lines
    assert "| calibration error (ECE) | 0.04 | – | 0.04 | – |" in lines


@pytest.mark.parametrize(
    ("metric", "row"),
    [
        ("val/accuracy", "| accuracy | 0.87 | 0.85 to 0.90 | 0.90 | 0.80 to 0.95; this score selected the epoch and"),
        ("val/loss", "| loss (nats) | 0.382 | 0.378 to 0.386 | 0.38 | 0.30 to 0.46; this score selected the epoch and"),
    ],
)
def test_a_val_score_that_selected_says_so_beside_its_interval(metric, row):
    selected = evaluation_markdown(replace(JUDGED, selection=replace(JUDGED.selection, metric=metric)))
    table = selected.split("## Scores")[1].split("\n## ")[0]
    assert f"{row} the best of 20 trials |" in table
    assert table.count("this score selected") == 1
    assert "this score selected" not in evaluation_markdown(EVALUATION)


def test_evaluation_leads_from_the_score_that_selected_to_the_one_that_counts():
    lines = evaluation_markdown(JUDGED).splitlines()
    start = lines.index("| step | value |")
    low, high = wilson(270, 300).low, wilson(270, 300).high
    assert lines[start + 2 : start + 9] == [
        f"| selected by val/accuracy | 0.90 ({low:.2f} to {high:.2f}); this score selected the epoch and the best of "
        "20 trials |",
        "| confirmed mean | 0.88 (0.85 to 0.91), standard deviation 0.01, 3 fresh seeds |",
        "| optimism, the first minus the second | 0.02 |",  # 0.9 - 0.8812
        "| test accuracy | 0.87 (0.85 to 0.90) |",
        "| val_test_gap, accuracy on val minus on test | 0.03 (-0.08 to 0.08) |",
        "| trials | 20 |",
        "| looks at the test split | 1 |",
    ]


def test_what_is_unknown_of_the_selection_is_a_dash():
    lines = evaluation_markdown(EVALUATION).splitlines()
    start = lines.index("| step | value |")
    shown = [line.split(" | ")[1].removesuffix(" |") for line in lines[start + 2 : start + 9]]
    assert shown == ["–", "–", "–", "0.87 (0.85 to 0.90)", "0.03 (-0.08 to 0.08)", "–", "1"]


def test_an_epoch_fixed_beforehand_was_not_selected():
    text = evaluation_markdown(replace(JUDGED, selection=Selection(metric="val/accuracy", fixed_epoch=True)))
    for claim in ("this score selected", "optimistic", "some gap is to be expected"):
        assert claim not in text
    assert "The weights are those of epoch 9, which was fixed before training." in text


def test_the_methods_paragraph_of_an_evaluation_stands_alone():
    text = evaluation_markdown(JUDGED)
    paragraph = text.split("## For a methods section\n\n")[1].split("\n\n")[0]
    assert paragraph == (
        "The model (resnet, depth 18) was trained with AdamW, lr 0.003 after 1 warm-up epoch, 15 epochs of batches of "
        "64 on 1500 images of 64 x 64 pixels in 2 classes; 300 further images served for validation. The weights are "
        "those of epoch 9, the best one on validation by accuracy. The configuration was the best of 20 trials on "
        "validation by accuracy. Validation accuracy was 0.90 (95% Wilson interval 0.80 to 0.95); measured on the "
        "images that selected, it is optimistic. The configuration trained again had a mean validation accuracy of "
        "0.88 (0.85 to 0.91), standard deviation 0.01, 3 fresh seeds. The test split of 656 images was opened for the "
        "first time for this evaluation. Test accuracy was 0.87 (95% Wilson interval 0.85 to 0.90), balanced accuracy "
        "0.86 (95% interval 0.84 to 0.88), loss (nats) 0.382 (95% interval 0.378 to 0.386). The intervals of all but "
        "the accuracy are from a stratified bootstrap."
    )


def test_a_leak_stands_beside_every_score():
    said = ("3 test images are also in [train](x).", "2 look alike.")
    shown = r"**Warning:** 3 test images are also in \[train\](x). 2 look alike."
    evaluation = evaluation_markdown(replace(JUDGED, cautions=said))
    for title in ("## Scores", "## From val to test", "## For a methods section", "## Classes, on test"):
        assert shown in evaluation.split(title)[1].split("\n## ")[0], title
    sweep = sweep_markdown(replace(CONFIRMED, cautions=said))
    for title in ("## Winner", "## Confirmation", "## Leaderboard", "## For a methods section"):
        assert shown in sweep.split(title)[1].split("\n## ")[0], title
    assert "Warning" not in evaluation_markdown(JUDGED) + sweep_markdown(CONFIRMED)


def test_how_to_judge_again_may_be_told():
    text = evaluation_markdown(replace(EVALUATION, again_command="python evaluate.py --run-id run1 --again"))
    assert "```sh\npython evaluate.py --run-id run1 --again\n```" in text


def test_evaluation_says_what_it_judged_and_how_to_repeat_it():
    text = evaluation_markdown(EVALUATION)
    assert text.startswith("# solar_cells: held-out evaluation\n\n")
    assert text.endswith("\n")
    for fact in (
        "Run `run1` (resnet, depth 18) judged on 656 test images.",
        "| epoch judged | 9 |",
        "| images | 1500 train, 300 val, 656 test |",
        "| test fingerprint | 0123456789abcdef |",
        "| evaluation run | eval1 |",
        "```sh\npython evaluate.py --run-id run1\n```",
        "--run-id run1 --artifact-path config.toml",
    ):
        assert fact in text


def test_sweep_names_its_winner_and_the_next_command():
    text = sweep_markdown(SWEEP)
    for fact in (
        "# solar_cells: sweep\n",
        "Run `sweep1` searched for the best `val/accuracy` in 20 trials (12 completed, 8 pruned).",
        "Run `run3` with `val/accuracy` 0.8812.",
        "```sh\npython evaluate.py --run-id run3\n```",
        "| trial | val/accuracy | train.lr |\n| --- | --- | --- |\n| 3 | 0.8812 | 0.000316 |\n| 1 | – | 0.01 |",
        "| train.lr | 0.0001 to 0.01, log |",
    ):
        assert fact in text


def test_sweep_shows_the_interval_where_the_number_of_images_is_known():
    text = sweep_markdown(replace(SWEEP, num_val=300, best_value=264 / 300))
    assert "`val/accuracy` 0.88 (95% interval 0.84 to 0.91, 300 images)" in text


def test_sweep_by_loss_borrows_the_digits_of_the_winners_accuracy():
    assert "`val/loss` 0.35." in sweep_markdown(replace(SWEEP, num_val=300, metric="val/loss", best_value=0.3512))
    assert "`val/loss` 0.3512." in sweep_markdown(replace(SWEEP, metric="val/loss", best_value=0.3512))


CONFIRMED = replace(
    SWEEP,
    num_val=300,
    leaderboard=SWEEP.leaderboard.assign(**{"val/loss": [0.34567, 0.9]}),
    importances={"train.lr": 0.254, "model.depth": 0.746},
    confirmation=[
        Confirmed(3, epoch=9, mean=0.8712, std=0.0104, num_seeds=3, interval=Interval(0.8454, 0.897)),
        Confirmed(1, 7, 0.8645, 0.0051, 3, Interval(0.8518, 0.8772), -0.0067, Interval(-0.0301, 0.0167)),
        Confirmed(5, 8, 0.8533, math.nan, 1, None, -0.0179),
    ],
)


def test_leaderboard_has_intervals_where_the_number_of_images_is_known():
    lines = sweep_markdown(CONFIRMED).splitlines()
    interval = wilson(round(0.88123 * 300), 300)
    assert f"| 3 | 0.88 ({interval.low:.2f} to {interval.high:.2f}) | 0.000316 | 0.35 |" in lines
    assert "| 1 | – | 0.01 | 0.9 |" in lines
    assert any("selected, and it selected the first row too" in line for line in lines)


def test_confirmation_shows_what_fresh_seeds_gave_and_what_they_cannot():
    text = sweep_markdown(CONFIRMED)
    for fact in (
        "| trial | epoch | seeds | val/accuracy | 95% interval | std | minus the best | 95% interval |\n",
        "| 3 | 9 | 3 | 0.87 | 0.85 to 0.90 | 0.01 | – | – |\n",
        "| 1 | 7 | 3 | 0.86 | 0.85 to 0.88 | 0.01 | -0.01 | -0.03 to 0.02 |\n",
        "| 5 | 8 | 1 | 0.85 | – | – | -0.02 | – |\n",  # a single seed has the digits of its images
        "Each epoch was fixed beforehand by the trial that found the configuration, since choosing it again in each "
        "run would bias these scores upwards.",
        "Fresh seeds do not remove the luck of the val images",
    ):
        assert fact in text
    assert "Confirmation" not in sweep_markdown(SWEEP)


def test_sweep_shows_what_matters_most_first():
    table = "| key | importance |\n| --- | --- |\n| model.depth | 75% |\n| train.lr | 25% |"
    assert table in sweep_markdown(CONFIRMED)
    assert "importance" not in sweep_markdown(SWEEP)


def test_the_methods_paragraph_of_a_sweep_stands_alone():
    paragraph = sweep_markdown(CONFIRMED).split("## For a methods section\n\n")[1].split("\n\n")[0]
    assert paragraph == (
        "The configuration was chosen by accuracy on 300 validation images among 20 trials (train.lr: 0.0001 to 0.01, "
        "log), each at its best epoch. The best trial reached 0.88 (95% interval 0.84 to 0.91, 300 images); measured "
        "on the images that selected, it is optimistic. The test split was not opened."
    )


def test_with_interval_has_the_digits_of_the_interval():
    assert with_interval(0.8512, Interval(0.8079, 0.8861)) == "0.85 (0.81 to 0.89)"


def test_sweep_without_a_completed_trial():
    text = sweep_markdown(
        replace(
            SWEEP, outcomes={"failed": 20}, leaderboard=pd.DataFrame(), best_run_id=None, best_value=None, searched={}
        )
    )
    for sentence in ("there is no winner", "No trial has a score.", "No key was searched.", "(20 failed)"):
        assert sentence in text
    assert "evaluate.py" not in text


def test_tables_escape_what_markdown_would_read():
    table = markdown_table(("a|b", "c"), [("*x*", "_y_ my_name"), ("<b>", "two\nlines")])
    assert table.splitlines() == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| \*x\* | \_y\_ my_name |",
        r"| \<b\> | two lines |",
    ]
    assert markdown_table(("&lt;", "R&D"), []).splitlines()[0] == r"| \&lt; | R&D |"


def test_terminal_table_aligns_values():
    assert terminal_table([("run", "abc"), ("test/accuracy", "0.87"), ("note", "two\nlines"), ("none", "")]) == (
        "run            abc\ntest/accuracy  0.87\nnote           two\n               lines\nnone"
    )


def test_terminal_table_of_nothing():
    assert terminal_table([]) == ""
