"""A sweep in folds: trials are scored on all images of train and val, and end early by fold."""

import io

import pandas as pd
import pytest

from imgcls import clean
from imgcls.errors import ConfigError, Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.record import Artifact, Tag
from imgcls.search.study import make_pruner
from imgcls.search.sweep import Sweep
from tests.runs.test_resume import points
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


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.pruner=halving", "data.folds=3"], "the steps of a trial are folds"),
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
