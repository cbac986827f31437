"""What a sweep does by the metric that selects: its direction, its ranking, its winner."""

import io

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from imgcls.errors import ConfigError
from imgcls.evaluation.compare import compare
from imgcls.evaluation.comparison_report import comparison_markdown, comparison_pictures
from imgcls.metrics import BY_NAME, metric_named
from imgcls.search.confirm import confirm_sweep
from imgcls.search.leaderboard import make_leaderboard, with_intervals
from imgcls.search.study_place import StudyPlace
from imgcls.search.sweep import Sweep
from imgcls.search.winner import flat
from tests.data.make import write, write_class

SCORES = {"val/accuracy": 0.9, "val/balanced_accuracy": 0.5, "val/macro_f1": 0.4, "val/auroc": 0.6, "val/loss": 0.3}


def ended(number, scores, state="COMPLETE"):
    attrs = {"run_id": f"run{number}", "best_epoch": 1, **scores}
    value = 0.0 if state == "COMPLETE" else None
    return optuna.trial.create_trial(state=optuna.trial.TrialState[state], value=value, user_attrs=attrs)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_leaderboard_is_ranked_by_the_metric_in_its_direction(name):
    """Four trials: one is better by this metric alone, two tie but for their loss, and one was pruned."""
    up = 0.05 if metric_named(name).higher_is_better else -0.05
    worse, tied, better = SCORES, SCORES | {"val/loss": 0.25}, SCORES | {"val/loss": 0.35, name: SCORES[name] + up}
    pruned = SCORES | {name: SCORES[name] + 2 * up}
    scores = [worse, tied, better, pruned]
    if name == "val/loss":
        scores[1] = SCORES
    states = ["COMPLETE"] * 3 + ["PRUNED"]
    trials = [ended(i, one, state) for i, (one, state) in enumerate(zip(scores, states, strict=True))]
    for number, trial in enumerate(trials):
        trial.number = number
    board = make_leaderboard(trials, name, has_groups=False)
    assert board["trial"].tolist() == ([2, 0, 1, 3] if name == "val/loss" else [2, 1, 0, 3])
    ends = {f"{name}_low", f"{name}_high"} if name != "val/accuracy" else set()
    assert {column for column in board if column.startswith("val/")} == {"val/accuracy", "val/loss", name} | ends


def test_a_leaderboard_shows_the_metric_with_its_own_interval():
    scores = SCORES | {"val/macro_f1_low": 0.35, "val/macro_f1_high": 0.46}
    trials = [ended(0, scores), ended(1, SCORES)]
    shown = with_intervals(make_leaderboard(trials, "val/macro_f1", has_groups=False), 300)
    assert shown["val/macro_f1"].tolist() == ["0.40 (0.35 to 0.46)", "0.40"]
    assert shown["val/accuracy"].tolist() == ["0.90 (0.86 to 0.93)"] * 2
    assert not [column for column in shown if column.endswith(("_low", "_high"))]


@pytest.mark.parametrize("name", BY_NAME)
def test_the_study_and_its_pruner_go_the_way_of_the_metric(project, name):
    experiment = project.experiment(f"search.metric={name}", "search.pruner=median")
    study = StudyPlace(project.root, "study", "sweep", pruner_warmup=0, num_epochs=3).open(experiment)
    is_maximised = study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert is_maximised == (name != "val/loss")
    for i in range(5):
        trial = study.ask()
        trial.report(0.5 + 0.01 * i, step=1)
        study.tell(trial, 0.5)
    for value in (0.1, 0.9):
        trial = study.ask()
        trial.report(value, step=1)
        assert trial.should_prune() == ((value < 0.5) == is_maximised)


def striped(rng, kind):
    """16 x 16 pixels. Common images differ in their colour alone, rare ones in the width and direction of stripes."""
    noise = rng.normal(scale=12, size=(16, 16, 3))
    if kind in ("red", "green"):
        return np.clip(noise + ([170, 60, 60] if kind == "red" else [60, 170, 60]), 0, 255).astype(np.uint8)
    width = 2 if "narrow" in kind else 4
    rows = np.broadcast_to((np.arange(16) // width % 2 * 120 + 60)[:, None, None], (16, 16, 3))
    return np.clip(noise + (rows if "rows" in kind else rows.transpose(1, 0, 2)), 0, 255).astype(np.uint8)


SIZES = {"red": 60, "green": 60, "narrow_rows": 8, "narrow_columns": 8, "wide_rows": 8, "wide_columns": 8}


@pytest.fixture
def unbalanced(project):
    """The settings of a sweep over an unbalanced folder of images, with two trials.

    The first turns images by quarters, so that it cannot tell rows from columns: four rare classes suffer. The second
    turns hues, so that it cannot tell the two common classes.
    """
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, size in SIZES.items():
            for i in range(size):
                write(project.root / "images" / split / kind / f"{i}.png", striped(rng, kind))
    return (
        "data.source=folder", "data.path=images", "data.image_size=16", "data.test_fraction=0", "train.batch_size=16",
        "train.epochs=6", "train.lr=5e-3", "augment.quarter_turns=true", "search.trials=2", "search.sampler=grid",
        "search.pruner=none",
        'search.space={ "augment.hue" = [0.5, 0.0], "augment.quarter_turns" = [false, true] }',
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_over_unbalanced_images_selects_another_trial_by_macro_f1_than_by_accuracy(project, unbalanced):
    found = {}
    for metric in ("val/accuracy", "val/macro_f1"):
        experiment = project.experiment(*unbalanced, f"search.metric={metric}")
        found[metric] = Sweep(experiment, project.tracker).run()
    by_accuracy, by_macro_f1 = found.values()
    assert by_accuracy.leaderboard["trial"].tolist() == [0, 1]
    assert by_macro_f1.leaderboard["trial"].tolist() == [1, 0]
    winner, sweep = (project.tracker.get(id_) for id_ in (by_macro_f1.best_run_id, by_macro_f1.run_id))
    table = pd.read_csv(io.StringIO(project.tracker.read_text(winner.run_id, "predictions/val.csv")))
    score = f1_score(table["label"], table["prediction"], average="macro")
    assert winner.metrics["best/val/macro_f1"] == pytest.approx(score, rel=1e-12)
    assert winner.metrics["best/val/accuracy"] == accuracy_score(table["label"], table["prediction"])
    assert winner.metrics["best/val/macro_f1_low"] < score < winner.metrics["best/val/macro_f1_high"]
    names = ("macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "loss")
    for name in (f"val/{name}" for name in names):
        assert sweep.metrics[f"best/{name}"] == sweep.metrics[f"best_trial/{name}"] == winner.metrics[f"best/{name}"]
    history = dict(project.tracker.history(winner.run_id, "val/macro_f1"))
    assert len(history) == 6 and max(history.values()) == winner.metrics["best/val/macro_f1"]
    best_by_accuracy = project.tracker.get(by_accuracy.best_run_id)
    assert "best/val/macro_f1" not in best_by_accuracy.metrics and "val/macro_f1" in best_by_accuracy.metrics
    facts = flat(sweep)
    assert facts["best/val/macro_f1"] == winner.metrics["best/val/macro_f1"] and "best/val/macro_f1_low" in facts
    report = project.tracker.read_text(sweep.run_id, "report/report.md")
    assert "searched for the best `val/macro_f1`" in report
    assert "The interval of the macro-F1: Wilson's score interval of each class's F1" in report
    compared = compare(by_macro_f1.leaderboard["run_id"].tolist(), project.tracker)
    facts = compared.flat()
    assert facts["val/macro_f1_1"] == winner.metrics["best/val/macro_f1"] > facts["val/macro_f1_2"]
    assert facts["val/macro_f1_low_1"] == winner.metrics["best/val/macro_f1_low"]
    assert "macro-F1, which selected on val, 95% interval" in comparison_markdown(compared)
    assert len(comparison_pictures(compared)) == 1
    confirmation = confirm_sweep(sweep.run_id, project.tracker, top=2, seeds=1)
    assert [confirmed.trial for confirmed in confirmation.ranked] == [1, 0]
    fresh = project.tracker.get(confirmation.best_run_id)
    assert confirmation.winner.mean == fresh.metrics["best/val/macro_f1"]


def test_a_metric_that_is_undefined_on_these_val_images_is_refused_before_training(project):
    for split, kind, seeds in (("train", "cat", 3), ("train", "dog", 3), ("val", "cat", 2)):
        write_class(
            project.root / "images" / split / kind, range(10 * seeds + len(split), 10 * seeds + len(split) + seeds)
        )
    settings = "data.source=folder", "data.path=images", "data.test_fraction=0"
    with pytest.raises(
        ConfigError, match=r"search\.metric = val/auroc is undefined on val, where class 'dog' has no images"
    ):
        project.prepare(*settings, "search.metric=val/auroc")
    project.prepare(*settings, "search.metric=val/balanced_accuracy")
