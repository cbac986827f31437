"""The winner's luck: fresh seeds, an epoch fixed beforehand, a winner by mean and not by the luckiest run."""

import logging
import sqlite3
import statistics
from contextlib import closing

import pytest

from imgcls.errors import InputError, Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.search.confirm import confirm_sweep
from imgcls.search.study import only_one
from imgcls.search.sweep import Sweep
from imgcls.search.winner import flat
from tests.conftest import refusing_the_test_split
from tests.stops import StopAfter

QUICK = ("train.epochs=2", "search.trials=2", "model.width=4")


@pytest.fixture(scope="module")
def swept(make_project):
    """A project with a sweep that has ended, which each test gets a copy of, and what came of the sweep."""
    made = make_project()
    return made, sweep(made)


@pytest.fixture
def project(swept, make_project, monkeypatch):
    made = make_project()
    made.become(swept[0])
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def found(swept):
    """The sweep of `project`."""
    return swept[1]


def sweep(project, *overrides):
    return Sweep(project.experiment(*QUICK, *overrides), project.tracker).run()


def confirm(project, run_id, top=2, seeds=2):
    options = {"top": top, "seeds": seeds}
    return confirm_sweep(run_id, project.tracker, **options)


def fresh_runs(project):
    return project.runs(kind="confirm")


@pytest.mark.slow
def test_the_best_configurations_are_ranked_by_their_means(project, found):
    with refusing_the_test_split():
        result = confirm(project, found.run_id)
    trials = {r.tags["imgcls.trial"]: r for r in project.tracker.children(found.run_id, "trial")}
    fresh = project.tracker.children(found.run_id, "confirm")
    assert len(fresh) == 4 and {r.outcome for r in fresh} == {"completed"}
    means = {}
    for number, trial in trials.items():
        mine = [r for r in fresh if r.tags["imgcls.trial"] == number]
        epoch = int(trial.metrics["best/epoch"])
        for record in mine:
            assert record.params["train.score_epoch"] == str(epoch)
            assert record.metrics["best/epoch"] == epoch
            points = project.tracker.history(record.run_id, "val/accuracy")
            assert [step for step, _ in points] == list(range(1, epoch + 1))
            assert record.metrics["best/val/accuracy"] == points[-1][1]  # that epoch, not the best one
            assert all(record.params[key] == trial.params[key] for key in ("train.lr", "model.depth", "train.epochs"))
        means[number] = statistics.fmean(r.metrics["best/val/accuracy"] for r in mine)
    seeds = {number: [r.params["train.seed"] for r in fresh if r.tags["imgcls.trial"] == number] for number in trials}
    assert seeds["0"] == seeds["1"] and len(set(seeds["0"])) == 2 and "0" not in seeds["0"]

    best = max(means, key=means.get)
    parent = project.tracker.get(found.run_id)
    assert parent.metrics["confirm/mean"] == means[best]
    assert (parent.status, parent.outcome) == ("FINISHED", "completed")
    first = next(r for r in fresh if r.tags["imgcls.trial"] == best)
    assert parent.tags["imgcls.best_run_id"] == result.best_run_id == first.run_id
    top = str(found.leaderboard.iloc[0]["trial"])
    assert parent.metrics["confirm/optimism"] == pytest.approx(found.best_value - means[top])
    assert evaluate(found.run_id, project.tracker).judged.run_id == first.run_id


@pytest.mark.slow
def test_a_stopped_confirmation_goes_on_where_it_was(project, found, caplog):
    with pytest.raises(Interrupted), StopAfter(12):
        confirm(project, found.run_id, top=1, seeds=2)
    assert project.tracker.get(found.run_id).status == "KILLED"
    before = {r.run_id for r in fresh_runs(project) if r.outcome == "completed"}
    result = confirm(project, found.run_id, top=1, seeds=2)
    assert before < set(result.winner.run_ids)
    with caplog.at_level(logging.INFO):
        again = confirm(project, found.run_id, top=1, seeds=2)
    assert "all of this confirmation is on record (2 runs): nothing is trained" in caplog.messages
    assert again == result
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database, database:  # as of a version without the key
        assert database.execute("DELETE FROM params WHERE key = 'train.loss'").rowcount > 2
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert confirm(project, found.run_id, top=1, seeds=2).winner.run_ids == again.winner.run_ids
    assert "all of this confirmation is on record (2 runs): nothing is trained" in caplog.messages
    assert len([r for r in fresh_runs(project) if r.outcome == "completed"]) == 2


@pytest.mark.slow
def test_an_experiment_file_can_ask_for_it_and_the_sweep_typed_again_keeps_the_winner(project, caplog):
    asked = ("search.confirm.top=1", "search.confirm.seeds=1")
    found = sweep(project, *asked)
    (fresh,) = fresh_runs(project)
    assert found.best_run_id == fresh.run_id and found.confirmation is not None
    assert sweep(project).best_run_id == fresh.run_id
    project.client.set_tag(found.run_id, "imgcls.confirmed_trials", "99")
    with caplog.at_level(logging.WARNING):
        assert sweep(project).best_run_id == found.leaderboard.iloc[0]["run_id"]
    assert "is the winner until it is confirmed too" in caplog.text


@pytest.mark.slow
def test_equal_configurations_are_confirmed_once(project, caplog):
    found = sweep(
        project, "search.space.model.depth=[8]", "search.space.train.warmup_epochs=[1]", "search.space.train.lr=[0.02]",
        "search.sampler=random",
    )  # fmt: skip
    assert len(found.leaderboard) == 2
    # As of a version whose digest counted the threads that a trial got.
    project.client.set_tag(found.leaderboard.iloc[0]["run_id"], "imgcls.config_hash", "of two threads")
    with caplog.at_level(logging.WARNING):
        result = confirm(project, found.run_id, top=2, seeds=1)
    assert len(result.ranked) == 1
    assert "2 configurations were asked for; only 1 of the sweep completed" in caplog.text


@pytest.mark.slow
def test_what_is_said_beside_the_winners_score_is_of_the_winner(project, found):
    """Images may have been opened between the sweep and its confirmation."""
    assert project.tracker.get(found.run_id).tags["imgcls.num_opened_before"] == "0"
    confirm(project, found.run_id, top=1, seeds=1)
    (fresh,) = fresh_runs(project)
    project.client.set_tag(fresh.run_id, "imgcls.num_opened_before", "11")
    confirm(project, found.run_id, top=1, seeds=1)
    assert flat(project.tracker.get(found.run_id))["imgcls.num_opened_before"] == 11


def test_what_cannot_be_confirmed_is_refused(project, found):
    with pytest.raises(InputError, match="is of kind trial, not a sweep"):
        confirm(project, found.best_run_id)
    study = project.tracker.get(found.run_id).tags["imgcls.study"]
    with only_one(project.root, study), pytest.raises(InputError, match="already running"):
        confirm(project, found.run_id)
    project.client.delete_tag(found.run_id, "imgcls.best_run_id")
    with pytest.raises(InputError, match="no winner yet"):
        confirm(project, found.run_id)
    assert fresh_runs(project) == []
