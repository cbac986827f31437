"""Several processes on one sweep: real ones that train, and light ones that report values without training."""

import contextlib
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from uuid import uuid4

import optuna
import pytest
from optuna.trial import TrialState

from imgcls.errors import Interrupted
from imgcls.runs.record_writer import Finished
from imgcls.search.driver import FIRST_LOOK, Driver
from imgcls.search.joining import joined
from imgcls.search.leases import LeaseReader
from imgcls.search.optuna_internals import attach
from imgcls.search.storage import VARIABLE, open_storage
from imgcls.search.study import SweepStudy
from imgcls.search.study_place import StudyPlace
from imgcls.search.sweep import Sweep, work
from imgcls.search.trial import TrialJob, cached_fence, cached_tracker
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EpochResult
from tests.postgres import free_port
from tests.tracking.test_remote_client import Server

pytestmark = pytest.mark.distributed

FORK = multiprocessing.get_context("fork")
"""The processes have imported all libraries already, which would take seconds for each."""

QUICK = (
    "train.epochs=1",
    "train.warmup_epochs=0",
    "search.space.train.warmup_epochs=[0]",
    "search.space.model.depth=[8]",
)

LEASE = 12
"""Seconds; on a machine that is busy, a thread may be late by several."""


def start(function, *args):
    """A process of its own; what it says goes to a file that is shown where it fails."""
    process = FORK.Process(target=_run, args=(function, args))
    process.start()
    return process


def _run(function, args):
    logging.basicConfig(level=logging.INFO, format=f"{os.getpid()} %(message)s", stream=sys.stderr, force=True)
    try:
        function(*args)
    except Interrupted as error:
        sys.stderr.write(f"{os.getpid()}: {error}\n")
        os._exit(3)


def join(processes, codes=(0,)):
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} <= set(codes)


@pytest.fixture
def shared(make_project, database, monkeypatch):
    """A project whose studies are in a new database of PostgreSQL; its tracking store is not opened in this process."""
    project = make_project()
    monkeypatch.setenv(VARIABLE, database)
    monkeypatch.chdir(project.root)
    return project


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


# --- numbers and values ---


def ask_all(project, place, overrides, num):
    experiment = project.experiment(*overrides)
    with joined(place, experiment) as leases:
        study = SweepStudy(place, experiment, has_groups=False, sampler="qmc", leases=leases)
        while True:
            with study.one_reading():
                num_begun, free = study.num_begun(), study.next_free()
            if num_begun == num:
                return
            if free is None or (number := study.ask(free)) is None:
                time.sleep(random.uniform(0.5, 1) * FIRST_LOOK)  # as the driver of a sweep does
                continue
            study.values(number)
            study.optuna.tell(number, 1.0)
            study.leases.give_back(number)


@pytest.mark.parametrize("storage", ["journal", "shared"])
def test_eight_that_ask_at_once_draw_two_hundred_different_values(shared, storage, monkeypatch):
    if storage == "journal":
        monkeypatch.delenv(VARIABLE)
    place = StudyPlace(shared.root, "asked", "0" * 32, pruner_warmup=0, num_epochs=1)
    overrides = ("search.trials=200", "search.pruner=none")
    join([start(ask_all, shared, place, overrides, 200) for _ in range(8)])
    trials = place.open(shared.experiment(*overrides)).trials
    assert len(trials) == 200
    assert len({trial.params["train.lr"] for trial in trials}) == 200


# --- many light workers ---


def stand_in(job):
    """What a trial leaves, without training: a run with a metric, and its values in the study."""
    tracker, study = cached_tracker(job.study.root), job.study.open(job.experiment)
    guard = job.study.guard(cached_fence(job, study), job.experiment)
    tags = {**job.tags, "imgcls.parent": job.study.sweep_run_id}
    with tracker.guarded(guard), tracker.start_run("tiny", kind="trial", name=job.name, tags=tags) as run:
        value = job.experiment.train.lr
        attach(study, job.number).report(value, step=1)
        run.log_metrics({"val/accuracy": value}, step=1)
    best = EpochResult(1, value, {"val/accuracy": value, "val/loss": value}, value, 0.1, 1.0, 0)
    return Finished(run.run_id, "completed", best, 1, {})


def drive_stand_ins(project, place, overrides):
    TrialJob.run = stand_in
    experiment, tracker = project.experiment(*overrides), Tracker(project.root)
    with joined(place, experiment) as leases:
        study = SweepStudy(place, experiment, has_groups=False, sampler="qmc", leases=leases)
        Driver(study, 100, tracker).run()


@pytest.fixture
def proxy(database, monkeypatch):
    """Optuna's proxy in front of a new database."""
    port = free_port()
    monkeypatch.setenv(VARIABLE, database)
    command = [sys.executable, "-m", "imgcls", "storage-proxy", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert f"127.0.0.1:{port}" in process.stderr.readline()
    monkeypatch.setenv(VARIABLE, f"grpc://127.0.0.1:{port}")
    yield
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("proxy")
def test_sixteen_light_workers_lose_no_trial_and_do_none_twice(make_project, the_server, monkeypatch):
    """IMGCLS_LIGHT_TRIALS sets their number, 1,000 in `make torture-distributed`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", the_server.uri)
    num = int(os.environ.get("IMGCLS_LIGHT_TRIALS", "200"))
    project = make_project()
    overrides = (f"search.trials={num}", "search.pruner=none", "search.workers=1")
    place = StudyPlace(project.root, f"light-{uuid4().hex}", "0" * 32, pruner_warmup=0, num_epochs=1)
    # In another process: a fork inherits no open channel of gRPC.
    join([start(drive_stand_ins, project, place, (*overrides[1:], "search.trials=1"))])
    begun = time.monotonic()
    join([start(drive_stand_ins, project, place, overrides) for _ in range(16)])
    seconds = time.monotonic() - begun
    print(f"{num} light trials in {seconds:.0f} s: {num / seconds:.1f} a second")
    trials = place.open(project.experiment(*overrides)).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * num
    runs = project.tracker.find({"imgcls.study": place.name})
    assert sorted(run.trial for run in runs) == [*range(num)]
    assert {run.outcome for run in runs} == {"completed"}
    assert {trial.user_attrs["run_id"] for trial in trials} == {run.run_id for run in runs}


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


@pytest.fixture(scope="module")
def the_server(tmp_path_factory, empty_store):
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "server.db")
    server = Server(folder, folder / "server.db")
    try:
        server.start()
        yield server
    finally:
        server.kill()
