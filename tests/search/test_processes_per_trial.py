"""A sweep whose trials are trained by two processes each: real processes, kill -9, SIGTERM; torchrun is the oracle."""

import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from imgcls.errors import ConfigError, InputError
from imgcls.machine import usable_cores
from imgcls.record import Artifact
from imgcls.search import workers as workers_module
from imgcls.search.engines import LocalProcesses
from imgcls.search.halving import Rungs
from imgcls.search.local_worker import _store_on_loopback
from imgcls.search.ray_request import RayRequest
from imgcls.search.study_name import study_name
from imgcls.search.sweep import Sweep
from imgcls.search.trial import Job
from imgcls.search.workers import check_processes, fitting_workers
from imgcls.training.parallel import own_ranks
from tests.test_torture import descendants

ROOT = Path(__file__).parents[2]
VALUES = "train.batch_size=101", "train.epochs=3", "train.warmup_epochs=0"
SEVERAL = (*VALUES, "search.processes_per_trial=2", "search.trials=2", "search.sampler=grid", "search.pruner=none",
           'search.space={"train.lr" = [2e-2, 1e-2]}')  # fmt: skip

two_cores = pytest.mark.skipif(usable_cores() < 2, reason="a sweep refuses trials of two processes on a single core")


def sweep(project, *overrides):
    return Sweep(project.experiment(*SEVERAL, *overrides), project.tracker).run()


def started(project, *command, overrides):
    """A command in a process group of its own."""
    command = [sys.executable, "-m", *command]
    for override in overrides:
        command += ["--set", override]
    where = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=project.root, env=where, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def weights(project, record, artifact=Artifact.BEST):
    with project.tracker.fetch(record.run_id, artifact) as path:
        return torch.load(path, weights_only=True)["model"]


def bits(project, record):
    """What has to be equal in two runs that are the same."""
    points = [(point.step, point.value) for point in project.client.get_metric_history(record.run_id, "val/loss")]
    return points, {name: tensor.tolist() for name, tensor in weights(project, record).items()}


def trials(project):
    return {int(record.trial): record for record in project.runs(kind="trial")}


@pytest.fixture(scope="module")
def undisturbed(make_project):
    project = make_project()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        sweep(project, "search.confirm.seeds=1", "search.confirm.top=1")
    return project


def assert_same_end(project, undisturbed):
    found, expected = trials(project), trials(undisturbed)
    assert [record.outcome for record in found.values()] == ["completed"] * 2
    for number, record in expected.items():
        assert bits(project, found[number]) == bits(undisturbed, record)


@two_cores
@pytest.mark.distributed
def test_a_trial_has_the_bits_of_a_run_that_torchrun_starts(undisturbed, make_project):
    alone = make_project()
    torchrun = "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "imgcls", "train", "tiny"
    process = started(alone, *torchrun, overrides=(*VALUES, "train.lr=1e-2"))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (expected,) = alone.runs(kind="train")
    found = trials(undisturbed)[1]
    assert found.params["train.lr"] == "0.01"
    assert found.num_processes == expected.num_processes == 2
    assert found.device == expected.device
    assert bits(undisturbed, found) == bits(alone, expected)


@two_cores
@pytest.mark.distributed
def test_the_runs_that_confirm_it_are_trained_so_too(undisturbed):
    (fresh,) = undisturbed.runs(kind="confirm")
    assert (fresh.outcome, fresh.num_processes) == ("completed", 2)


@two_cores
@pytest.mark.distributed
def test_a_killed_second_process_is_a_lost_worker(project, undisturbed, monkeypatch, caplog):
    submit, killed = LocalProcesses.submit, []

    def submit_and_kill(self, job):
        submit(self, job)
        (worker,) = self._workers
        if job.number == 1 and not killed:
            while not project.runs(kind="trial", trial="1"):  # it has begun its record
                assert not wait([worker.process.sentinel], timeout=0.05), "the worker ended"
            killed.append(worker)
            worker._processes[1].kill()

    monkeypatch.setattr(LocalProcesses, "submit", submit_and_kill)
    with caplog.at_level(logging.WARNING):
        sweep(project)
    assert re.search(r"trial 1: its worker process died \(exit code -9: SIGKILL.*it is taken up again", caplog.text)
    assert trials(project)[1].num_losses == 1
    assert not any(process.is_alive() for process in killed[0]._processes)
    assert_same_end(project, undisturbed)


@two_cores
@pytest.mark.distributed
def test_a_trial_that_paused_goes_on_with_all_its_processes(project, undisturbed):
    assert Rungs.of_trials(1, 3, 0).epochs == (1, 3), "each trial pauses after an epoch"
    result = sweep(project, 'search.pruner="halving"', "search.pruner_warmup_epochs=1")
    best = project.tracker.get(result.best_run_id)
    assert (best.outcome, best.num_processes) == ("completed", 2)
    assert bits(project, best) == bits(undisturbed, trials(undisturbed)[int(best.trial)])


@dataclass(frozen=True, eq=False)
class SecondFails(Job):
    """The second process fails at it, or nobody does; the first one waits for the second."""

    fails: bool

    @property
    def name(self):
        return "job"

    def prepare(self):
        if self.fails:
            raise InputError("the second process has no image")
        return SimpleNamespace(device=SimpleNamespace(ranks=own_ranks()))

    def run(self):
        if self.fails:
            own_ranks().meet()
        return f"trained by process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"


@two_cores
@pytest.mark.distributed
def test_an_error_of_the_second_process_alone_is_that_of_the_job_and_the_next_job_has_new_ones(project):
    engine, experiment = LocalProcesses(1, 2), project.experiment()
    try:
        engine.submit(SecondFails(experiment, fails=True))
        (outcome,) = engine.wait()
        assert (outcome.error, outcome.interrupted) == ("the second process has no image", False)
        (before,) = engine._workers
        engine.submit(SecondFails(experiment, fails=False))
        (outcome,) = engine.wait()
        assert outcome.finished == "trained by process 0 of 2"
        assert not any(process.is_alive() for process in before._processes)
    finally:
        engine.close()
    assert not any(process.is_alive() for process in engine._workers[0]._processes)


def wait_for_an_epoch(process):
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(r"epoch   \d/3", line):
            return
    pytest.fail("".join(said))


@two_cores
@pytest.mark.distributed
def test_a_sweep_that_is_stopped_and_then_killed_leaves_no_process_and_goes_on(project, undisturbed):
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = started(project, "imgcls", "sweep", "tiny", overrides=SEVERAL)
        wait_for_an_epoch(process)
        pids = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        assert len(pids) >= 2 + 1, "those that train, and the server from which they are forked"
        process.send_signal(number)
        process.communicate(timeout=300)
        for pid in pids:
            assert wait([pid], timeout=300), "a process is left"
            os.close(pid)
        assert trials(project)[0].outcome != "completed"
    sweep(project)
    assert_same_end(project, undisturbed)


# --- refusals and names: no process is started ---


@pytest.mark.parametrize(
    ("keys", "gpus", "workers", "words", "remedy"),
    [
        ((8,), 0, 1, r"= 8 needs 8 cores for 1 trial side by side.* has 4; use --set search.processes_per_trial=4",
         {"search.processes_per_trial": 4}),
        ((2,), 0, 3, r"= 2 needs 6 cores for 3 trials .* has 4; use --set search.workers=2$", {"search.workers": 2}),
        ((2,), 3, 2, r"= 2 needs 4 GPUs for 2 trials .* has 3; use --set search.workers=1$", {"search.workers": 1}),
        ((2, "cpu"), 1, 4, r"needs 8 cores", {"search.workers": 2}),
        ((2, "cuda:1"), 4, 1, r"train.device = 'cuda:1', .* --set train.device=cuda or", {}),
    ],
)  # fmt: skip
def test_more_processes_than_devices_are_refused(project, monkeypatch, keys, gpus, workers, words, remedy):
    monkeypatch.setattr(workers_module, "usable_cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    num, device = (*keys, "auto")[:2]
    asked = project.experiment(f"search.processes_per_trial={num}", f'train.device="{device}"')
    with pytest.raises(ConfigError, match=words) as error:
        check_processes(asked.search, asked.train, workers)
    assert error.value.remedy == remedy
    check_processes(asked.search.model_copy(update={"processes_per_trial": 1}), asked.train, workers)


@pytest.mark.parametrize(("workers", "cores", "found"), [(3, 4, 2), (1, 4, 1), (3, 2, 1), (0, 1, 0)])
def test_another_machine_confirms_as_many_runs_at_once_as_it_has_devices_for(
    project, monkeypatch, workers, cores, found
):
    monkeypatch.setattr(workers_module, "usable_cores", lambda: cores)
    train = project.experiment("train.device=cpu").train
    assert fitting_workers(workers, 2, train) == found
    assert fitting_workers(workers, 1, train) == workers


def test_a_machine_with_too_few_devices_confirms_nothing(project, monkeypatch):
    monkeypatch.setattr(workers_module, "usable_cores", lambda: 1)
    with pytest.raises(
        InputError, match=r"2 processes each, which need as many cores, .* has 1; .* machine that has 2"
    ):
        fitting_workers(1, 2, project.experiment("train.device=cpu").train)


def test_too_many_are_refused_before_anything_is_recorded(project):
    with pytest.raises(ConfigError, match=r"search.processes_per_trial = 999 needs 999 cores"):
        sweep(project, "search.processes_per_trial=999")
    assert not project.runs()


def test_ray_has_one_process_for_a_trial(project):
    with pytest.raises(ConfigError, match=r"--set search.processes_per_trial=1, or .*--engine local"):
        RayRequest().need(project.experiment("search.processes_per_trial=2"))


def test_another_number_is_another_study(project):
    """A sum over two processes is rounded otherwise. One process is what every earlier version had."""
    plain = Sweep(project.experiment("search.trials=2"), project.tracker)
    names = {
        num: study_name(project.experiment("search.trials=2", f"search.processes_per_trial={num}"), plain.prepared, 2)
        for num in (1, 2, 3)
    }
    assert len(set(names.values())) == 3
    assert names[1] == study_name(plain.experiment, plain.prepared, 2)


def test_the_processes_of_a_worker_meet_on_loopback_alone():
    store = _store_on_loopback()
    tables = (Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    rows = [row.split() for table in tables for row in table]
    listening = "0A"
    addresses = [row[1] for row in rows if row[3] == listening and int(row[1].split(":")[1], 16) == store.port]
    assert addresses == [f"0100007F:{store.port:04X}"]  # 127.0.0.1, its bytes turned around
