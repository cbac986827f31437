"""A sweep in folds: trials are scored on all images of train and val, and end early by fold."""

import io
import logging
import time

import optuna
import pandas as pd
import pytest

from imgcls import clean
from imgcls.errors import ConfigError, Interrupted, OutOfTime
from imgcls.evaluation.judge import evaluate
from imgcls.inference.run_model import load_run_model
from imgcls.record import Artifact, Tag
from imgcls.runs.limits import Limits
from imgcls.runs.record_writer import RecordWriter
from imgcls.search.budget import Budget
from imgcls.search.halving import Rungs
from imgcls.search.outcome import Outcome
from imgcls.search.promotion import Promotion, Step
from imgcls.search.pruners import make_pruner
from imgcls.search.sweep import Sweep
from imgcls.search.sweep_progress import outcome_in_words
from tests.runs.test_folds import killed_at_the_end
from tests.runs.test_resume import KilledError, points
from tests.stops import StopAfter

HOPELESS = ("data.folds=5", "train.epochs=2", "train.warmup_epochs=0", "search.sampler=grid", "search.trials=2",
            'search.space={"train.lr" = [2e-2, 1e-9]}')  # fmt: skip


def sweep(project, *overrides):
    return Sweep(project.experiment(*HOPELESS, *overrides), project.tracker).run()


def folds_of(project, run_id):
    return project.tracker.children(run_id, "fold")


@pytest.fixture(scope="module")
def swept(make_project):
    project = make_project()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        return project, sweep(project, "search.confirm.seeds=1", "search.confirm.top=1")


@pytest.mark.slow
def test_a_trial_worse_in_each_of_four_folds_ends_before_the_fifth(swept):
    project, result = swept
    best, hopeless = project.runs(kind="trial")
    assert (best.outcome, hopeless.outcome) == ("completed", "pruned")
    assert (len(folds_of(project, best.run_id)), len(folds_of(project, hopeless.run_id))) == (5, 4)
    predictions = pd.read_csv(io.StringIO(project.tracker.read_text(hopeless.run_id, Artifact.VAL_PREDICTIONS)))
    assert sorted(predictions["fold"].unique()) == [1, 2, 3, 4]
    assert hopeless.best("val/accuracy") == pytest.approx((predictions["label"] == predictions["prediction"]).mean())
    for record in (hopeless, *folds_of(project, hopeless.run_id)):
        assert not [*(record.folder / "checkpoints").glob("*")]
    row = result.leaderboard.iloc[0]
    assert (row["val/accuracy"], row["run_id"]) == (best.best("val/accuracy"), best.run_id)


@pytest.mark.slow
def test_the_winner_is_the_models_of_a_fresh_seed_together(swept, monkeypatch):
    project, result = swept
    monkeypatch.chdir(project.root)
    winner = project.tracker.get(result.best_run_id)
    assert winner.kind == "confirm" and len(folds_of(project, winner.run_id)) == 5
    report = project.tracker.read_text(result.run_id, Artifact.REPORT)
    assert "the 5 together were not scored on val" in report and "scored at an epoch fixed beforehand" in report
    assert evaluate(result.run_id, project.tracker).val["accuracy"] == winner.best("val/accuracy")


@pytest.mark.slow
def test_checkpoints_of_folds_may_go_once_their_run_has_ended(swept):
    project, _ = swept
    items = [item for item in clean.look_through(project.tracker).items if item.kind == clean.FOLDS]
    kept = {record.run_id for record in (*project.runs(kind="trial"), *project.runs(kind="confirm"))}
    assert len(items) == 2 * 5 * 2  # best.pt and last.pt of each fold of a trial and of a fresh run
    assert not any(run_id in str(item.path) for item in items for run_id in kept)


@pytest.mark.slow
def test_a_sweep_stopped_in_a_fold_ends_the_same(swept, project):
    original, _ = swept
    for questions in (13, 31, 40):
        with pytest.raises(Interrupted), StopAfter(questions):
            sweep(project)
    sweep(project)
    for ours, theirs in zip(project.runs(kind="trial"), original.runs(kind="trial"), strict=True):
        assert (ours.outcome, points(project, ours.run_id)) == (theirs.outcome, points(original, theirs.run_id))
        assert [record.tags[Tag.FOLD] for record in folds_of(project, ours.run_id)] == [
            record.tags[Tag.FOLD] for record in folds_of(original, theirs.run_id)
        ]


HALVING = ("search.pruner=halving", "data.folds=4", "train.epochs=1", "train.warmup_epochs=0", "model.width=4",
           "search.sampler=grid", "search.trials=5",
           'search.space={"train.lr" = [1e-7, 2e-2, 1e-6, 3e-2, 1e-5]}')  # fmt: skip
"""Five trials in four folds that pause after the first one; three of them learn nothing."""


def halved(project, *overrides):
    return Sweep(project.experiment(*HALVING, *overrides), project.tracker).run()


def left_by(project):
    """What a sweep left of each trial: its outcome, its metrics and those of its folds."""
    return {
        run.trial: (
            run.outcome, points(project, run.run_id),
            {fold.tags[Tag.FOLD]: points(project, fold.run_id) for fold in folds_of(project, run.run_id)},
        )
        for run in project.runs(kind="trial")
    }  # fmt: skip


@pytest.mark.slow
def test_trials_pause_between_folds_and_the_best_goes_on_to_the_same_bits(project, make_project):
    result = halved(project)
    whole = left_by(project)
    ended = {number: (outcome, len(folds)) for number, (outcome, _, folds) in whole.items()}
    assert ended[3] == ("completed", 4) and {ended[number] for number in (1, 2, 4)} == {("pruned", 1)}
    winner = project.tracker.get(result.best_run_id)
    alone = project.train("data.folds=4", "train.epochs=1", "train.warmup_epochs=0", "model.width=4", "train.lr=3e-2")
    assert points(project, winner.run_id) == points(project, alone.run_id)
    for run in project.runs(outcome="pruned"):
        kept = [path for fold in folds_of(project, run.run_id) for path in fold.folder.glob("checkpoints/*")]
        assert run.reason and not kept
    stopped = make_project()
    for questions in (5, 9, 11):
        with pytest.raises(Interrupted), StopAfter(questions):
            halved(stopped)
    halved(stopped)
    assert left_by(stopped) == whole


def test_progress_names_the_fold_and_the_score_with_which_a_trial_pauses(project, capsys):
    done = project.train(*HALVING, pause_at=1, name="trial 7 · lr 0.02")
    assert "\ntrial 7, fold 1 of 4 epoch   1/1 " in f"\n{capsys.readouterr().err}"
    (fold,) = folds_of(project, done.run_id)
    assert fold.tags["mlflow.runName"] == "trial 7, fold 1 of 4 · lr 0.02"
    said = outcome_in_words(Outcome(None, done), "val/accuracy")
    assert said == f"paused: val/accuracy {fold.best('val/accuracy'):.2f} at epoch 1"


@pytest.mark.slow
def test_a_trial_paused_between_folds_waits_with_its_folds(project):
    done = project.train(*HALVING, pause_at=2)
    run = project.tracker.get(done.run_id)
    assert (run.outcome, run.status) == ("paused", "SCHEDULED") and "paused after fold 2 of 4" in run.reason
    folds = folds_of(project, run.run_id)
    assert done.best.val_accuracy == pytest.approx(sum(fold.best("val/accuracy") for fold in folds) / 2)
    assert len(folds) == 2 and project.tracker.close_orphans() == []
    ended = project.train(*HALVING, prune_folds=lambda _: True)
    assert (ended.run_id, ended.outcome, len(folds_of(project, run.run_id))) == (run.run_id, "pruned", 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_in_a_budget_that_is_over_one_fold_runs_and_wins_and_the_next_sitting_goes_on(project, caplog, workers):
    """A worker whose trial paused because the time was over waits for the next one."""
    caplog.set_level(logging.INFO)
    overrides = (*HALVING, "data.folds=3", "search.trials=2", "search.pruner=none", f"search.workers={workers}")
    result = Sweep(project.experiment(*overrides), project.tracker, Budget(10.0, began=time.time() - 60)).run()
    assert "a training of 3 folds with 1 epoch each takes about" in caplog.text
    trial = project.tracker.get(result.best_run_id)
    assert (trial.outcome, trial.num_folds) == ("completed", 1)
    others = [run.outcome for run in project.runs(kind="trial") if run.run_id != trial.run_id]
    assert others == ["paused"] * (workers - 1)
    assert trial.tags[Tag.ENDED_EARLY] == "1 of 3 folds" and len(folds_of(project, trial.run_id)) == 1
    report = project.tracker.read_text(result.run_id, Artifact.REPORT)
    assert "It was not trained to its end (1 of 3 folds)" in report and "One fold has run" in report
    assert evaluate(result.run_id, project.tracker).val["accuracy"] == trial.best("val/accuracy")
    Sweep(project.experiment(*overrides), project.tracker).run()
    assert sorted(len(folds_of(project, run.run_id)) for run in project.runs(kind="trial")) == [1, 3]


@pytest.mark.slow
def test_folds_that_run_out_of_time_pause_and_end_early_as_the_models_of_those_that_ran(project, monkeypatch):
    folds = ("data.folds=3", "train.epochs=1", "train.warmup_epochs=0", "report.figures=all")
    with pytest.raises(OutOfTime, match="after fold 1 of 3"):
        project.train(*folds, limits=Limits(until=time.time() - 1, least_epochs=1))
    with pytest.raises(OutOfTime):
        project.train(*folds, limits=Limits(until=time.time() - 1))
    (run,) = project.runs(kind="train")
    assert run.outcome == "paused" and [fold.outcome for fold in folds_of(project, run.run_id)] == ["completed"]
    assert project.train(*folds, pause_at=2).outcome == "paused"
    with killed_at_the_end(monkeypatch, RecordWriter, "end"), pytest.raises(KilledError):
        project.train(*folds, limits=Limits(ends_early=True))
    monkeypatch.chdir(project.root)
    done = project.train(*folds)  # the sitting before has decided that it ends early
    assert (done.run_id, done.outcome) == (run.run_id, "completed")
    record = project.tracker.get(run.run_id)
    assert len(load_run_model(record, project.tracker).members()) == record.num_folds == 2
    table = pd.read_csv(io.StringIO(project.tracker.read_text(run.run_id, Artifact.VAL_PREDICTIONS)))
    assert sorted(table["fold"].unique()) == [1, 2]
    assert evaluate(run.run_id, project.tracker).val["accuracy"] == record.best("val/accuracy")


def test_a_mean_over_more_folds_takes_the_place_of_the_one_before():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    promotion = Promotion(study, Rungs((2, 5)), 1, most=10, in_folds=True)
    for values in ((0.9, 0.5), (0.6, 0.7), (0.8, 0.6), (0.6, 0.6), (0.6, 0.4)):
        trial = study.ask()
        for fold, value in enumerate(values, 1):
            trial.report(value, step=fold)
        promotion.pause(trial.number)
    assert promotion.next((), num_trials=90) == Step(1)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.pruner=wilcoxon"], "and data.folds = 0"),
        (["search.pruner=wilcoxon", "data.folds=3", "data.fold=1"], "and data.fold is set"),
    ],
)
def test_what_would_compare_nothing_is_refused(project, overrides, said):
    with pytest.raises(ConfigError) as refused:
        Sweep(project.experiment(*overrides), project.tracker)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "NopPruner"),
        (["data.folds=5"], "WilcoxonPruner"),
        (["data.folds=5", "data.fold=1"], "NopPruner"),
        (["data.folds=5", "search.pruner=median"], "MedianPruner"),
        (["data.folds=5", "search.pruner=hyperband"], "HyperbandPruner"),
        (["data.folds=5", "search.pruner=none"], "NopPruner"),
    ],
)
def test_wilcoxon_is_the_default_with_folds_alone(project, overrides, name):
    experiment = project.experiment(*overrides)
    assert type(make_pruner(experiment, 1)).__name__ == name
    again = experiment.replace({"data.folds": 0, "data.fold": 0})
    if not any("search.pruner" in override for override in overrides):
        assert again.search.pruner == "halving"
