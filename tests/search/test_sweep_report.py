"""The report of a sweep, from records made by hand."""

import math
import re

import pandas as pd
import pytest

from imgcls.evaluation.confirmation import Confirmed, rank_confirmed
from imgcls.evaluation.selection import Selection, Trials
from imgcls.reporting.report import markdown
from imgcls.search.sweep_report import SweepFacts, sweep_report
from imgcls.statistics.intervals import Interval
from tests.reporting.records import record, trained

TRIALS = (trained("run3", "trial", 264 / 300, trial=3), trained("run1", "trial", 0.8, trial=1, epoch=7))
BOARD = pd.DataFrame(
    {"trial": [3, 1], "outcome": ["completed", "pruned"], "val/accuracy": [0.88, math.nan], "run_id": ["run3", "run1"]}
)
SEARCHED = {"train.lr": "0.0001 to 0.01, log"}


def fresh(trial, *accuracies):
    runs = (trained(f"fresh{trial}.{i}", "confirm", value, trial=trial) for i, value in enumerate(accuracies))
    return tuple(runs)


def confirmation(num_seeds):
    values = {"3": (0.86, 0.87, 0.88), "1": (0.83, 0.85, 0.84)}
    numbers = [trial.tags["imgcls.trial"] for trial in TRIALS]
    runs = [fresh(number, *values[number][:num_seeds]) for number in numbers]
    return rank_confirmed([Confirmed(trial, mine, "val/accuracy") for trial, mine in zip(TRIALS, runs, strict=True)])


def report(confirmed=None, importances=None):
    winner = confirmed.winner.runs[0] if confirmed else TRIALS[0]
    sweep = record("sweep1", "sweep", study="solar_cells-1", best_run_id=winner.run_id)
    selection = Selection(
        winner, "val/accuracy", sweep=sweep, trials=Trials.of_leaderboard(BOARD),
        confirmed=confirmed.winner if confirmed else None, confirmation=confirmed,
    )  # fmt: skip
    return markdown(*sweep_report(SweepFacts(sweep, selection, TRIALS[0], BOARD, SEARCHED, importances or {})))


def test_a_sweep_names_its_winner_and_the_next_command():
    text = report()
    for fact in (
        "# solar_cells-1: sweep\n",
        "Run `sweep1` searched for the best `val/accuracy` in 2 trials (1 completed, 1 pruned).",
        "Run `run3` with `val/accuracy` 0.88 (0.84 to 0.91) at epoch 9. This run is trial 3 of the sweep `sweep1`.",
        "```sh\nimgcls evaluate run3\n```",
        "| train.lr | 0.0001 to 0.01, log |",
        "| 1 | pruned | – | run1 |",
        "and it selected the first row too",
        "The sweep did not open the test split.",
    ):
        assert fact in text
    assert "Confirmation" not in text


@pytest.mark.parametrize(
    ("num_seeds", "facts"),
    [
        (
            3,
            (
                r"\| 3 \| 9 \| 3 \| 0.87 \| 0.8\d to 0.\d\d \| 0.01 \| – \| – \|",
                r"\| 1 \| 7 \| 3 \| 0.84 \| 0.8\d to 0.8\d \| 0.01 \| -0.03 \| -0.0\d to -?0.0\d \|",
                r"Optimism 0.01 \(-0.0\d to 0.0\d\): the val/accuracy of the best trial, trial 3,",
            ),
        ),
        (
            1,
            (
                r"\| 3 \| 9 \| 1 \| 0.86 \| one seed, no interval \| – \| – \| – \|",
                r"\| 1 \| 7 \| 1 \| 0.83 \| one seed, no interval \| – \| -0.03 \| one seed, no interval \|",
                r"Optimism 0.02 \(one seed, no interval\): the val/accuracy of the best trial, trial 3,",
            ),
        ),
    ],
)
def test_a_confirmation_shows_what_fresh_seeds_gave_and_how_sure_that_is(num_seeds, facts):
    text = report(confirmation(num_seeds))
    for fact in (*facts, "Each epoch was fixed beforehand", "Fresh seeds do not remove the luck of the val images"):
        assert re.search(fact, text), fact


def test_what_matters_most_stands_first_with_its_range():
    text = report(importances={"train.lr": (0.254, Interval(0.1, 0.4)), "model.depth": (0.746, Interval(0.6, 0.9))})
    assert "| model.depth | 75% | 60% to 90% |\n| train.lr | 25% | 10% to 40% |" in text
    assert "importance" not in report()


def test_the_methods_paragraph_of_a_sweep_stands_alone():
    paragraph = report(confirmation(3)).split("## For a methods section\n\n")[1].split("\n\n")[0]
    for fact in (
        "searched by accuracy on 300 validation images in 2 trials (train.lr: 0.0001 to 0.01, log)",
        "trial 3, reached 0.88 (0.84 to 0.91); measured on the images that selected, it is optimistic.",
        "The best 2 configurations were trained again with 3 fresh seeds at an epoch fixed beforehand; that of trial 3 "
        "had the best mean, 0.87 (",
        "resnet, 18 layers, width 64",
        "commit 0123456789ab",
    ):
        assert fact in paragraph
