import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imgcls.reporting.report import (
    EvaluationFacts,
    SweepFacts,
    evaluation_markdown,
    markdown_table,
    sweep_markdown,
    terminal_table,
)
from imgcls.reporting.statistics import Scores, per_class

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
    assert "`val/loss` 0.8812." in sweep_markdown(replace(SWEEP, num_val=300, metric="val/loss"))


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


def test_terminal_table_aligns_values():
    assert terminal_table([("run", "abc"), ("test/accuracy", "0.87"), ("note", "two\nlines"), ("none", "")]) == (
        "run            abc\ntest/accuracy  0.87\nnote           two\n               lines\nnone"
    )


def test_terminal_table_of_nothing():
    assert terminal_table([]) == ""
