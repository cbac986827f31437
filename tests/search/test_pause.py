"""A sweep that pauses its trials: who goes on ends with the same bits, and no kill and no stop changes anything."""

import io
import logging
import re
from contextlib import contextmanager, redirect_stderr

import optuna
import pandas as pd
import pytest
import torch

from imgcls import clean
from imgcls.errors import Interrupted, TrainingError
from imgcls.record import Artifact
from imgcls.search.driver import Driver
from imgcls.search.halving import Rungs
from imgcls.search.journal import StudyJournal
from imgcls.search.optuna_internals import attach
from imgcls.search.promotion import PAUSED, PROMOTED, Promotion, Step, is_paused
from imgcls.search.study_place import StudyPlace
from imgcls.search.sweep import Sweep
from imgcls.tracking.store import Tracker
from tests.runs.test_resume import points, weights
from tests.search.test_sweep import KilledError, everything
from tests.stops import StopAfter

RATES = [0.02, 0.03, 1e-7, 1e-6, 1e-5, 2e-6, 3e-7, 3e-6]
HALVING = (
    'search.pruner="halving"', "train.warmup_epochs=0", "search.space.train.warmup_epochs=[0]", "model.width=4",
    'search.sampler="grid"', f"search.space.train.lr={RATES}", "search.space.model.depth=[8]", "search.trials=8",
    "train.epochs=4", 'search.pruner_warmup_epochs="auto"',
)  # fmt: skip
"""Eight trials of four epochs that pause after the first one; six of them learn nothing, and two are trained on."""


def sweep(project, *overrides):
    return Sweep(project.experiment(*HALVING, *overrides), project.tracker).run()


def outcomes(project):
    runs = project.runs(kind="trial")
    return {run.trial: (run.outcome, run.status) for run in sorted(runs, key=lambda run: run.trial)}


@pytest.fixture(scope="module")
def heard():
    """What the terminal showed of that sweep."""
    return io.StringIO()


@pytest.fixture(scope="module")
def swept(make_project, heard):
    """A sweep that nobody stopped, and what it left."""
    made = make_project()
    with redirect_stderr(heard):
        return made, sweep(made)


@pytest.fixture(scope="module")
def whole(swept):
    return everything(*swept)


@pytest.mark.slow
def test_the_best_third_goes_on_and_the_others_end_as_pruned(swept):
    project, result = swept
    ended = outcomes(project)
    assert set(ended.values()) == {("completed", "FINISHED"), ("pruned", "FINISHED")}
    completed = {number for number, (outcome, _) in ended.items() if outcome == "completed"}
    assert completed == {0, 1}
    for run in project.runs(kind="trial"):
        num_epochs = 4 if run.trial in completed else 1
        assert len(project.tracker.history(run.run_id, "val/loss")) == num_epochs
        assert (run.folder / Artifact.VAL_PREDICTIONS).exists()
        assert (run.folder / Artifact.LAST).exists() == (run.trial in completed)
        assert bool(run.reason) == (run.trial not in completed)
    assert result.best_run_id in {run.run_id for run in project.runs(kind="trial") if run.trial in completed}
    board = pd.read_csv(io.StringIO(project.tracker.read_text(result.run_id, Artifact.LEADERBOARD)))
    assert sorted(board["trial"]) == [*range(8)]


@pytest.mark.slow
@pytest.mark.usefixtures("swept")
def test_the_trials_that_go_on_are_named_and_no_other(heard):
    going_on = re.findall(r"^trial (\d+) · .*; it goes on after epoch 1", heard.getvalue(), re.MULTILINE)
    assert sorted(going_on) == ["0", "1"]


@pytest.mark.slow
def test_all_trials_are_compared_at_the_first_pause(swept):
    """Only two of the eight are completed, and importances want many."""
    project, result = swept
    compared = Sweep(project.experiment(*HALVING), project.tracker).study(result.run_id).compared()
    runs = sorted(project.runs(kind="trial"), key=lambda run: run.trial)
    histories = [project.tracker.history(run.run_id, "val/accuracy") for run in runs]
    assert [trial.value for trial in compared.get_trials()] == [history[0][1] for history in histories]
    assert compared.direction == optuna.study.StudyDirection.MAXIMIZE
    assert project.tracker.get(result.run_id).compared_after == "epoch 1"
    page = project.tracker.read_text(result.run_id, Artifact.PLOTS)
    assert "needs 20 trials that came to epoch 1" in page


@pytest.mark.slow
def test_a_trial_that_was_paused_has_the_bits_of_one_that_was_not(swept):
    project, _ = swept
    promoted = [run for run in project.runs(kind="trial") if run.outcome == "completed"]
    for run in promoted:
        alone = project.train(*HALVING, f"train.lr={run.params['train.lr']}", "model.depth=8", fresh=True)
        assert points(project, run.run_id) == points(project, alone.run_id)
        expected = weights(project, alone.run_id)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(project, run.run_id).items())
        for name in (Artifact.VAL_PREDICTIONS, Artifact.LABEL_ERRORS):
            assert project.tracker.read_text(run.run_id, name) == project.tracker.read_text(alone.run_id, name)


@pytest.mark.slow
def test_a_paused_run_says_so_and_nobody_takes_it_for_an_orphan_or_a_crash(project, make_project):
    done = project.train("train.epochs=3", pause_at=1)
    assert (done.outcome, done.num_epochs) == ("paused", 1)
    (run,) = project.runs()
    assert (run.outcome, run.status, run.metrics.get("best/val/loss")) == ("paused", "SCHEDULED", None)
    assert "paused after epoch 1" in run.reason
    assert sorted(path.name for path in (run.folder / Artifact.LAST).parent.iterdir()) == ["best.pt", "last.pt"]
    assert not (run.folder / Artifact.VAL_PREDICTIONS).exists()
    assert project.tracker.close_orphans() == []
    assert project.train("train.epochs=3", pause_at=2).outcome == "paused"
    assert project.train("train.epochs=3").run_id == run.run_id
    (run,) = project.runs()
    assert (run.outcome, run.status, run.reason) == ("completed", "FINISHED", "")
    other = make_project()
    assert points(project, run.run_id) == points(other, other.train("train.epochs=3").run_id)


@pytest.mark.slow
def test_a_stopped_search_goes_on_to_the_same_end(project, whole):
    """Stopped in a first training, some trials later, and in one that had been paused."""
    for questions in (3, 13, 12):
        with pytest.raises(Interrupted), StopAfter(questions):
            sweep(project)
    assert everything(project, sweep(project)) == whole
    assert len(project.runs(kind="trial")) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [
        [("close", 1), ("tell", 1), ("job", 3), ("close", 2)],
        [(PAUSED, 1), (PROMOTED, 0), ("tell", 4)],
    ],
)
def test_a_killed_search_goes_on_to_the_same_end(project, whole, kills):
    """Killed before the study hears of a pause, a promotion or an end, before a trial goes on, before a run ends."""
    for where, after in kills:
        with killed_before(where, after), pytest.raises(KilledError):
            sweep(project)
    assert everything(project, sweep(project)) == whole
    assert len(project.runs(kind="trial")) == 8


@contextmanager
def killed_before(where, after):
    """Kills the search before a call of this kind, of which so many have returned."""
    owner, name = {"tell": (Driver, "_tell"), "job": (Driver, "_job"), "close": (Tracker, "close_run")}.get(
        where, (StudyJournal, "set_trial_user_attr")
    )
    original, calls = getattr(owner, name), []

    def killed(self, *arguments):
        if name != "set_trial_user_attr" or arguments[1] == where:
            calls.append(arguments)
            if len(calls) == after + 1:
                raise KilledError
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, killed)
        yield


@pytest.mark.slow
def test_when_time_is_over_trials_stay_paused_and_the_next_sitting_goes_on(project, whole, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(TrainingError, match="goes on with 1 paused trial"):
        sweep(project, "search.timeout=1e-9")
    assert "search.timeout = 1e-09 s is over after 0 of 8 trials, and 1 is paused" in caplog.text
    assert outcomes(project) == {0: ("paused", "SCHEDULED")}
    assert not clean.look_through(project.tracker).items
    assert everything(project, sweep(project)) == whole


@pytest.mark.parametrize("now", [(1, 4), (3, 4)])
def test_a_trial_that_an_earlier_version_paused_at_another_epoch_goes_on(now):
    """In a budget that has time for one whole training left, and without one."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    for epoch, value in enumerate((0.4, 0.6), 1):
        trial.report(value, step=epoch)
    Promotion(study, Rungs((2, 4)), 1, most=10).pause(trial.number)
    promotion = Promotion(study, Rungs(now), 1, most=10)
    assert promotion.reports_to_finish() == 2
    assert promotion.next((), num_trials=2, has_to_finish=True) == Step(0)
    assert promotion.pause_at(0) == (0 if now == (1, 4) else 3)


def paused_study(*values):
    """A study with trials that were paused after their first epoch."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    promotion = Promotion(study, Rungs((1, 3)), 1, most=10)
    for value in values:
        trial = study.ask()
        trial.report(value, step=1)
        promotion.pause(trial.number)
    return study, promotion


def test_a_trial_with_which_another_process_goes_on_is_passed_over():
    study, promotion = paused_study(0.3, 0.9, 0.8, 0.1, 0.2, 0.4)
    asked = []

    def take(number):
        asked.append(number)
        return number != 1

    assert promotion.next((), num_trials=18, take=take) == Step(2)
    assert asked == [1, 2]
    assert [is_paused(trial) for trial in study.trials] == [True, True, False, True, True, True]


def test_a_trial_that_another_process_sent_on_just_before_this_one_had_its_lease_is_passed_over():
    study, promotion = paused_study(0.3, 0.9, 0.8, 0.1, 0.2, 0.4)

    def take(number):
        if number == 1:
            attach(study, number).set_user_attr(PROMOTED, 1)
        return True

    assert promotion.next((), num_trials=18, take=take) == Step(2)


@pytest.mark.slow
def test_a_sweep_goes_on_that_an_earlier_version_paused_at_other_epochs(project, monkeypatch):
    monkeypatch.setattr(StudyPlace, "rungs", lambda _: Rungs((2, 4)))
    with pytest.raises(TrainingError, match="goes on with 1 paused trial"):
        sweep(project, "search.timeout=1e-9")
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    sweep(project, "search.trials=3")
    assert {outcome for outcome, _ in outcomes(project).values()} == {"completed", "pruned"}
    assert len(project.runs(kind="trial")) == 3


@pytest.mark.slow
def test_paused_trials_of_an_abandoned_sweep_may_go(project):
    with pytest.raises(TrainingError):
        sweep(project, "search.timeout=1e-9")
    sweep(project, "search.trials=1", "train.epochs=2")
    (paused,) = project.runs(outcome="paused")
    found = [item for item in clean.look_through(project.tracker).items if item.kind == clean.ABANDONED]
    assert {item.path.name for item in found} == {"best.pt", "last.pt"}
    assert all(paused.folder in item.path.parents for item in found)


@pytest.mark.slow
def test_beyond_the_most_that_may_be_paused_the_worst_end(project, caplog):
    with caplog.at_level(logging.INFO):
        sweep(project, "search.max_paused=1")
    assert caplog.text.count("more than search.max_paused = 1 trials are paused") <= 1
    assert {outcome for outcome, _ in outcomes(project).values()} == {"completed", "pruned"}


@pytest.mark.slow
def test_with_two_workers_every_trial_ends_once(project):
    sweep(project, "search.workers=2")
    ended = outcomes(project)
    assert sorted(ended) == [*range(8)]
    assert {outcome for outcome, _ in ended.values()} == {"completed", "pruned"}
    assert len(project.runs(kind="trial")) == 8


@pytest.mark.slow
def test_where_all_trials_fail_the_sweep_does_too(project):
    with pytest.raises(TrainingError, match="3 trials in a row failed alike"):
        sweep(project, "search.space.train.lr=[2e30]", "train.lr=2e30", 'search.sampler="random"')
    assert {outcome for outcome, _ in outcomes(project).values()} == {"failed"}
