"""Many workers at once, none of which trains: what they ask of a shared study."""

import os
import random
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from optuna.trial import TrialState

from imgcls.runs.record_writer import Finished
from imgcls.search.driver import FIRST_LOOK, Driver
from imgcls.search.joining import joined
from imgcls.search.optuna_internals import attach
from imgcls.search.storage import VARIABLE
from imgcls.search.study import SweepStudy
from imgcls.search.study_place import StudyPlace
from imgcls.search.trial import TrialJob, cached_fence, cached_tracker
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EpochResult
from tests.postgres import free_port
from tests.search.forked_workers import join, start

pytestmark = pytest.mark.distributed


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
