"""Sweeps on a real Ray cluster of two nodes. `test_ray.py` runs this file where nobody outside can reach Ray."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from imgcls.search.sweep import Sweep

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:6379"
RAY = Path(sys.executable).parent / "ray"
NUM_TRIALS, NUM_EPOCHS = 6, 12
OVERRIDES = (
    f"search.trials={NUM_TRIALS}", f"train.epochs={NUM_EPOCHS}", 'search.sampler="random"', 'search.pruner="none"',
    "search.space.model.depth=[8]", 'search.workers="auto"',
)  # fmt: skip


class Cluster:
    """A Ray cluster on this machine, each node of which has one CPU."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have short names
        self.raylets = []

    def add(self, *arguments):
        """Starts a node, and returns once it belongs to the cluster."""
        command = [RAY, "start", *arguments, "--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        self.raylets += [pid for pid in processes("raylet") if pid not in self.raylets]

    def node_of(self, run):
        """Number of the node, from 0, on which a run is trained now; None where its process has ended."""
        pid = int(run.tags["imgcls.pid"])
        while pid > 1:
            if pid in self.raylets:
                return self.raylets.index(pid)
            pid = int(status(pid).get("PPid", 0))
        return None


def environment():
    of_ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | of_ray


def status(pid):
    """What the kernel says of a process; nothing of one that has ended."""
    with suppress(OSError):
        return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {}


def processes(name):
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if status(pid).get("Name") == name]


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    made.add("--head", "--port=6379", "--node-ip-address=127.0.0.1", "--include-dashboard=false",
             f"--temp-dir={made.folder}")  # fmt: skip
    yield made
    shutil.rmtree(made.folder, ignore_errors=True)


def command(*options):
    overrides = [part for override in OVERRIDES for part in ("--set", override)]
    on_ray = ("--engine", "ray", "--address", ADDRESS)
    return [sys.executable, "-m", "imgcls", "sweep", "tiny", *on_ray, *options, *overrides]


def begun(project, log):
    with log.open("w") as file:
        return subprocess.Popen(command(), cwd=project.root, env=environment(), stdout=file, stderr=file)


def until(condition, process, log):
    """What a condition gives as soon as that is true; a process that ends before fails the test."""
    while not (found := condition()):
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=0.2)
            pytest.fail(f"it ended with {code} before that:\n{log.read_text()}")
    return found


@pytest.mark.usefixtures("cluster")
def test_what_fits_on_no_machine_is_refused(project):
    asked = ("--cpus-per-trial", "2", "--set", 'train.threads="auto"')
    done = subprocess.run(command(*asked), cwd=project.root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "no machine of the Ray cluster has 2 CPUs for a trial; ask for less with --cpus-per-trial (" in done.stderr
    assert "has 1 CPU and 0 GPUs)" in done.stderr
    assert not project.runs(kind="sweep")


def test_nothing_is_lost_or_doubled_whatever_leaves_or_joins(make_project, cluster, tmp_path):
    """It ends with the bits of a sweep that one process trained undisturbed."""
    project, alone, log = make_project(), make_project(), tmp_path / "log"

    def running(on):
        return [run for run in project.runs(kind="trial") if run.outcome == "running" and cluster.node_of(run) == on]

    first = begun(project, log)
    until(lambda: running(on=0), first, log)
    cluster.add(f"--address={ADDRESS}", f"--temp-dir={cluster.folder}")
    until(lambda: running(on=1), first, log)  # a late machine gets work

    (lost,) = until(lambda: running(on=0), first, log)
    os.kill(int(lost.tags["imgcls.pid"]), signal.SIGKILL)
    until(
        lambda: "its process was lost (Ray's WorkerCrashedError); it is taken up again" in log.read_text(), first, log
    )

    # A machine goes: Ray's own process there, and the one that trains. A trial that is lost twice would fail.
    other = until(lambda: [run for run in running(on=1) if run.trial != lost.trial], first, log)[0]
    os.kill(cluster.raylets[1], signal.SIGKILL)
    os.kill(int(other.tags["imgcls.pid"]), signal.SIGKILL)
    until(lambda: log.read_text().count("it is taken up again") == 2, first, log)

    until(lambda: running(on=0), first, log)
    first.send_signal(signal.SIGINT)
    assert first.wait() == 1, log.read_text()
    assert "stopped by SIGINT; to go on: imgcls sweep tiny --engine ray" in log.read_text()
    assert {run.outcome for run in project.runs(kind="trial")} <= {"completed", "interrupted"}

    second = begun(project, log)
    until(lambda: running(on=0), second, log)
    second.kill()  # Ray ends its trials
    second.wait()
    third = begun(project, log)
    assert third.wait() == 0, log.read_text()
    assert "is taken up again" not in log.read_text()

    Sweep(alone.experiment(*OVERRIDES, "search.workers=1"), alone.tracker).run()
    trials, expected = (sorted(p.runs(kind="trial"), key=lambda run: run.trial) for p in (project, alone))
    assert [run.trial for run in trials] == list(range(NUM_TRIALS))
    assert {run.outcome for run in trials} == {"completed"} and {run.params["train.threads"] for run in trials} == {"1"}
    for name in ("val/loss", "train/loss"):
        histories = [
            [p.tracker.history(run.run_id, name) for run in runs] for p, runs in ((project, trials), (alone, expected))
        ]
        assert histories[0] == histories[1]
        assert all([step for step, _ in history] == list(range(1, NUM_EPOCHS + 1)) for history in histories[0])
    (sweep,) = project.runs(kind="sweep")
    assert (sweep.outcome, sweep.engine, sweep.num_workers) == ("completed", "ray", 1)
