"""One run in several processes: real torchrun, a real store, kill -9 and SIGTERM."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score

from imgcls.errors import InputError, Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.record import Artifact, Tag
from tests.stops import StopAfter

ROOT = Path(__file__).parents[2]
OVERRIDES = (
    "train.batch_size=101", "train.epochs=9", "train.ema_decay=0.9", "train.eval_batch_size=64", "augment.mixup=0.3",
    "search.trials=1",
)  # fmt: skip


def started(project, *arguments, restarts=0, **keys):
    """`torchrun` with two processes that train `tiny`, in a process group of its own."""
    torchrun = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts), "-m"]
    command = [sys.executable, "-m", "torch.distributed.run", *torchrun, "imgcls", "train", "tiny", *arguments]
    for override in OVERRIDES:
        command += ["--set", override]
    where = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=project.root, env=where, start_new_session=True, **pipes, **keys)


def ended(process, seconds=600):
    """Exit code and output; it is killed with all its processes where it does not end."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for pid in (*processes_of(process).values(), process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def processes_of(torchrun):
    """Rank -> number of the process."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    found = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(each[5:]): int(child) for each in variables if each.startswith(b"RANK=")}
    return found


def wait_for_epoch(process, number):
    """Reads stderr until an epoch is complete."""
    said = []
    for line in process.stderr:
        said.append(line)
        if f"epoch   {number}/9" in line:
            return
    ended(process)
    pytest.fail("".join(said))


def best_weights(project, run_id):
    with project.tracker.fetch(run_id, Artifact.BEST) as path:
        return torch.load(path, weights_only=True)["model"]


def history(project, run_id):
    return [(point.step, point.value) for point in project.client.get_metric_history(run_id, "val/loss")]


@pytest.fixture(scope="module")
def undisturbed(make_project):
    """A run of two processes, and what they said."""
    project = make_project()
    code, out, err = ended(started(project, "--json"))
    assert code == 0, err
    (run,) = project.tracker.find({})
    return project, run, out, err


def assert_same_end(project, undisturbed):
    """The project has the undisturbed run and no other, to the bit."""
    other, expected = undisturbed[:2]
    (run,) = project.tracker.find({})
    assert run.outcome == "completed"
    assert history(project, run.run_id) == history(other, expected.run_id)
    mine, theirs = best_weights(project, run.run_id), best_weights(other, expected.run_id)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.distributed
def test_one_run_is_recorded_and_each_val_image_counts_once(undisturbed):
    project, run, out, err = undisturbed
    assert (run.outcome, run.num_processes) == ("completed", 2)
    assert run.device.endswith(", 1 threads, 2 processes")
    assert json.loads(out)["run_id"] == run.run_id, "one result on stdout"
    assert err.count("epoch   9/9") == 1
    with project.tracker.fetch(run.run_id, Artifact.VAL_PREDICTIONS) as path:
        table = pd.read_csv(path, dtype={"image": str})
    assert len(table) == table["image"].nunique() == run.num_val
    assert run.num_val % 64, "the last batch is smaller"
    found = accuracy_score(table["label"], table["prediction"])
    assert found == pytest.approx(run.metrics["best/val/accuracy"])


@pytest.mark.distributed
def test_one_process_judges_such_a_run_and_repeats_it_within_the_tolerance(undisturbed, monkeypatch):
    project, run, *_ = undisturbed
    monkeypatch.chdir(project.root)
    assert evaluate(run.run_id, project.tracker)
    again = rerun(run.run_id, project.tracker)
    assert again.word == "within tolerance"
    assert [cause.split(":")[0] for cause in again.causes] == ["hardware"]


@pytest.mark.distributed
def test_killed_started_again_by_torchrun_killed_for_good_and_stopped_a_run_ends_with_the_same_bits(
    make_project, undisturbed
):
    project = make_project()
    process = started(project, restarts=1)
    wait_for_epoch(process, 1)
    os.kill(processes_of(process)[0], signal.SIGKILL)  # it records the run
    wait_for_epoch(process, 4)
    os.kill(processes_of(process)[1], signal.SIGKILL)
    code, _, err = ended(process, seconds=60)
    assert code == 1
    assert "another of the 2 processes that train this run together has ended" in err
    (run,) = project.tracker.find({})
    assert run.outcome == "interrupted"

    process = started(project)
    wait_for_epoch(process, 6)
    process.terminate()
    code, _, err = ended(process)
    assert code
    (run,) = project.tracker.find({})
    assert run.outcome == "interrupted"
    assert run.reason.startswith("stopped "), err

    code, _, err = ended(started(project))
    assert code == 0, err
    assert f"going on with run {run.run_id} after epoch" in err
    assert_same_end(project, undisturbed)


@pytest.mark.distributed
def test_folds_are_trained_one_after_the_other_by_all(make_project):
    project = make_project()
    code, _, err = ended(started(project, "--set", "data.folds=2"))
    assert code == 0, err
    runs = {run.kind: run for run in project.tracker.find({})}
    assert sorted(run.kind for run in project.tracker.find({})) == ["fold", "fold", "train"]
    assert {(run.outcome, run.num_processes) for run in runs.values()} == {("completed", 2)}
    with project.tracker.fetch(runs["train"].run_id, Artifact.VAL_PREDICTIONS) as path:
        table = pd.read_csv(path, dtype={"image": str})
    assert len(table) == table["image"].nunique() == runs["train"].num_val


@pytest.mark.distributed
def test_a_mistake_is_said_once(make_project):
    code, out, err = ended(started(make_project(), "--set", "train.lr=-1"))
    assert (code, out, err.count("error:")) == (1, "", 1)
    assert "train.lr" in err


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(project):
    with StopAfter(2), pytest.raises(Interrupted):
        project.train()
    (run,) = project.tracker.find({})
    assert run.num_processes == 1
    project.client.set_tag(run.run_id, Tag.NUM_PROCESSES, "2")
    with pytest.raises(InputError, match=r"was begun with 2 processes .* torchrun and 2 processes in all, or begin"):
        project.train()
    assert project.train(fresh=True).outcome == "completed"
