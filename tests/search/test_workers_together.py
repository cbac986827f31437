"""Several processes on one sweep: they start at once, are killed, and sleep past their leases."""

import contextlib
import os
import signal
import time

import optuna
import pytest
from optuna.trial import TrialState

from imgcls.errors import Interrupted
from imgcls.search.leases import LeaseReader
from imgcls.search.storage import VARIABLE, open_storage
from imgcls.search.study_place import StudyPlace
from imgcls.search.sweep import Sweep, work
from imgcls.tracking.store import Tracker
from tests.search.forked_workers import FORK, join, start

pytestmark = pytest.mark.distributed

QUICK = (
    "train.epochs=1",
    "train.warmup_epochs=0",
    "search.space.train.warmup_epochs=[0]",
    "search.space.model.depth=[8]",
)

LEASE = 12
"""Seconds; on a machine that is busy, a thread may be late by several."""


# --- simultaneous starts ---


def begin_sweeps(project, barrier, num_rounds):
    """Begins sweep after sweep at the same moment as others do, and leaves each before its first trial."""

    def leave(*_):
        raise Interrupted("it has begun")

    Sweep._drive = leave
    tracker = Tracker(project.root)
    for seed in range(num_rounds):
        sweep = Sweep(project.experiment(f"search.seed={seed}"), tracker)
        barrier.wait()
        with contextlib.suppress(Interrupted):
            sweep.help()


def test_of_four_processes_that_start_at_once_one_makes_the_run_of_the_sweep(shared):
    num_rounds, barrier = 20, FORK.Barrier(4)
    join([start(begin_sweeps, shared, barrier, num_rounds) for _ in range(4)])
    sweeps = shared.runs(kind="sweep")
    assert len(sweeps) == len({sweep.study for sweep in sweeps}) == num_rounds
    for sweep in sweeps:
        study = optuna.load_study(study_name=sweep.study, storage=open_storage("auto", shared.root))
        assert study.user_attrs == {"sweep_run_id": sweep.run_id}
        assert [trial.state for trial in study.trials] == [TrialState.WAITING]  # the experiment's own values, once


def begin_and_work(project, barrier, overrides):
    tracker = Tracker(project.root)
    experiment = project.experiment(*overrides)
    barrier.wait()
    work(experiment, tracker)


@pytest.mark.parametrize("seed", [0, 1])
def test_four_workers_that_start_at_once_train_every_trial_once(shared, seed):
    overrides = (*QUICK, "search.trials=6", f"search.seed={seed}")
    barrier = FORK.Barrier(4)
    join([start(begin_and_work, shared, barrier, overrides) for _ in range(4)])
    (sweep,) = shared.runs(kind="sweep")
    assert (sweep.status, sweep.outcome) == ("FINISHED", "completed")
    trials = shared.runs(kind="trial")
    assert sorted(trial.trial for trial in trials) == [*range(6)]
    assert {trial.outcome for trial in trials} == {"completed"}
    assert len({trial.params["train.lr"] for trial in trials}) == 6
    assert sweep.best_run_id in {trial.run_id for trial in trials}


# --- losses ---


def held_by(leases):
    return {holder.about["pid"]: holder.what for holder in leases.holders() if "trial" in holder.what}


def until(condition, seconds=240):
    """Waits for a condition; gives what it came to."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def one_folder(make_project):
    """Three workers share a folder, its journal and its store."""
    project = make_project()
    return [project] * 3


@pytest.fixture
def three_clones(make_project, the_server, database, monkeypatch):
    """Three workers have a folder each, and share a tracking server and PostgreSQL."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", the_server.uri)
    monkeypatch.setenv(VARIABLE, database)
    return [make_project() for _ in range(3)]


@pytest.mark.parametrize("where", ["one_folder", "three_clones"])
def test_a_killed_worker_and_one_that_slept_past_its_lease_leave_no_trace(where, request):
    projects = request.getfixturevalue(where)
    overrides = ("train.epochs=12", "search.trials=6", f"search.lease={LEASE}", "search.pruner=none")
    barrier = FORK.Barrier(3)
    workers = [start(begin_and_work, project, barrier, overrides) for project in projects]
    killed, stopped, left = (str(worker.pid) for worker in workers)
    place = until(lambda: _place(projects[0], where))
    study = place.open(projects[0].experiment(*overrides))
    leases = LeaseReader(study)
    busy = until(lambda: len(held := held_by(leases)) == 3 and held)
    until(lambda: all(_has_epochs(study, busy[pid]) for pid in (killed, stopped)))
    os.kill(int(killed), signal.SIGKILL)
    os.kill(int(stopped), signal.SIGSTOP)
    until(lambda: held_by(leases).keys() == {left})
    os.kill(int(stopped), signal.SIGCONT)
    join(workers[1:2], codes=[3])
    join(workers[2:])
    tracker = projects[2].tracker
    (sweep,) = tracker.find({"imgcls.kind": "sweep", "imgcls.study": place.name})
    assert (sweep.status, sweep.outcome) == ("FINISHED", "completed")
    trials = tracker.find({"imgcls.kind": "trial", "imgcls.study": place.name})
    assert sorted(trial.trial for trial in trials) == [*range(6)]
    assert {trial.outcome for trial in trials} == {"completed"}
    for trial in trials:  # each step once, in both
        points = tracker._client.get_metric_history(trial.run_id, "val/loss")
        assert [point.step for point in points] == [*range(1, 13)]
    reported = [[*trial.intermediate_values] for trial in study.trials]
    assert reported == [[*range(1, 12)]] * 6  # nobody prunes after the last epoch


def _place(project, where):
    """The study's place, once there is a study."""
    names = [path.stem for path in (project.root / "mlruns" / ".studies").glob("*.journal")]
    if where == "three_clones":
        studies = open_storage("auto", project.root).get_all_studies()
        names = [study.study_name for study in studies if not study.study_name.endswith(".leases")]
    return StudyPlace(project.root, names[0], "0" * 32, pruner_warmup=0, num_epochs=12) if names else None


def _has_epochs(study, what):
    number = int(what.removeprefix("trial "))
    return any(trial.number == number and len(trial.intermediate_values) >= 2 for trial in study.trials)
