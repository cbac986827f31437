"""A project of its own and the sweep that is killed in it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.instants import Blow

NAME = "victim"

EXPERIMENT = """
name = "victim"

[data]
source = "digits"
image_size = 8

[model]
depth = 8
width = 8

[augment]
horizontal_flip = false
rotation = 10.0

[train]
epochs = 4
batch_size = 256
lr = 2e-2
threads = 1
device = "cpu"

[search]
trials = 8
workers = 1  # of several only the totals are the same
sampler = "tpe"
pruner = "median"

[search.space]
"train.lr" = { low = 1e-7, high = 3e-2, log = true }  # five decades, so that some trial is pruned
"train.warmup_epochs" = { low = 0, high = 1 }
"model.depth" = [8, 14]
"""

EXPERIMENTS = {
    "median": EXPERIMENT,
    # They pause after two epochs, and some go on.
    "halving": EXPERIMENT.replace('pruner = "median"', 'pruner = "halving"').replace("epochs = 4", "epochs = 6"),
}
"""Experiments by their pruner."""


def in_folds(experiment: str, num_folds: int) -> str:
    """An experiment of which every trial is trained in folds, each for fewer epochs."""
    folds = experiment.replace('source = "digits"', f'source = "digits"\nfolds = {num_folds}')
    return folds.replace("epochs = 4", "epochs = 2").replace("epochs = 6", "epochs = 2")


def with_settings(experiment: str, settings: Sequence[str]) -> str:
    """An experiment with further keys, which its file does not name yet. Values are in TOML: `train.loss="focal"`."""
    for setting in settings:
        key, _, value = setting.partition("=")
        table, _, name = key.partition(".")
        if f"[{table}]\n" not in experiment:
            raise ValueError(f"--set {setting}: the experiment has no table [{table}]")
        experiment = experiment.replace(f"[{table}]\n", f"[{table}]\n{name} = {value}\n")
    return experiment


WRITERS = """
name = "victim"

[data]
source = "digits"
image_size = 8

[model]
depth = 8
width = 4

[augment]
horizontal_flip = false

[train]
epochs = 1
warmup_epochs = 0
batch_size = 1024
threads = 1
device = "cpu"

[search]
sampler = "random"
pruner = "none"

[search.space]
"train.lr" = { low = 1e-3, high = 3e-2, log = true }
"""
"""The shortest trials that there are, for many writers at once."""

EPOCH_LINE = re.compile(r"^trial \d+ epoch +\d+/", re.MULTILINE)
TRIAL_LINE = re.compile(r"; (\d+) of (\d+) trials,", re.MULTILINE)

SECONDS_BETWEEN_LOOKS = 0.01

SECONDS_TO_LEAVE = 30.0
"""A process that was asked to leave and is still there is at fault; a busy machine is given three times its due."""


@dataclass(frozen=True)
class Victim:
    """A project's root with one experiment, a cache and a store of its own.

    Attributes:
        folder: holds the project and what its processes wrote to stderr.
        options: of the sweep's command, such as `--workers 2`.
    """

    folder: Path
    options: tuple[str, ...] = ()

    @classmethod
    def make(cls, folder: Path, experiment: str = EXPERIMENT, options: tuple[str, ...] = ()) -> Victim:
        """Lays the project out; nothing of imgcls has run in it."""
        victim = cls(folder, options)
        (victim.root / "experiments").mkdir(parents=True)
        (victim.root / "experiments" / f"{NAME}.toml").write_text(experiment, encoding="utf-8")
        (folder / "starts").mkdir()
        return victim

    @property
    def root(self) -> Path:
        """The project's root."""
        return self.folder / "project"

    def has_store(self) -> bool:
        """Whether there is a record to open."""
        return (self.root / "mlflow.db").exists()

    def has_trained(self) -> bool:
        """Whether any trial has left a checkpoint."""
        return any((self.root / "mlruns" / NAME).glob("*/artifacts/checkpoints/*.pt"))

    def stores_aside(self) -> set[Path]:
        """Stores that are being made, and what is left of those that were."""
        return set(self.root.glob(".mlflow-*"))

    def start(self) -> Start:
        """Types the sweep's command."""
        return Start(self)


_started: list[Start] = []

_is_over = threading.Event()

_while_starting = threading.RLock()
"""Held where a process is started, so that whoever kills all of them finds it; a signal may come to the holder."""


def kill_all() -> None:
    """Kills all processes without waiting: it runs in a signal handler, which may have interrupted a wait.

    Nothing more is started.
    """
    with _while_starting:
        _is_over.set()
        for start in _started:
            start.kill()


def end_all() -> None:
    """Leaves no process behind where the torture itself is broken off; nothing more is started."""
    kill_all()
    for start in _started:
        start.wait()


class Start:
    """The command typed once: a process group that may be killed."""

    def __init__(self, victim: Victim) -> None:
        self.began = time.monotonic()
        self._victim = victim
        self._stores_before = victim.stores_aside()
        number = len(list((victim.folder / "starts").glob("*.stderr")))
        self._stderr = victim.folder / "starts" / f"{number:04d}.stderr"
        self._stdout = self._stderr.with_suffix(".stdout")
        command = [sys.executable, "-m", "imgcls", "sweep", NAME, "--json", *victim.options]
        with self._stderr.open("wb") as stderr, self._stdout.open("wb") as stdout, _while_starting:
            if _is_over.is_set():
                raise RuntimeError("the torture was broken off")
            self._process = subprocess.Popen(
                command, cwd=victim.root, env=_environment(victim), stdout=stdout, stderr=stderr, start_new_session=True
            )
            _started.append(self)

    @property
    def pid(self) -> int:
        """Of its own process, and of its group."""
        return self._process.pid

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def exit_code(self) -> int | None:
        """None while it is running."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """All that it wrote to stderr so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def num_epochs(self) -> int:
        """Epochs that it has announced."""
        return len(EPOCH_LINE.findall(self.said))

    def num_trials(self) -> int:
        """Trials whose end it has announced."""
        return len(TRIAL_LINE.findall(self.said))

    def is_making_store(self) -> bool:
        """Whether it has begun to make a store, or needs none."""
        return self._victim.has_store() or self._victim.stores_aside() > self._stores_before

    def is_concluding(self) -> bool:
        """Whether it has announced the end of its last trial."""
        return any(ended == total for ended, total in TRIAL_LINE.findall(self.said))

    def facts(self) -> dict[str, Any]:
        """What it printed at its end, as JSON."""
        found: dict[str, Any] = json.loads(self._stdout.read_text(encoding="utf-8"))
        return found

    def wait_for(self, has_come: Callable[[Start], bool]) -> bool:
        """Whether it came before the process ended."""
        while self.exit_code is None:
            if has_come(self):
                return True
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return False

    def lasts(self, seconds: float) -> bool:
        """Whether it is still there after so many seconds."""
        until = self.seconds + seconds
        return self.wait_for(lambda start: start.seconds >= until)

    def wait(self) -> int:
        """Lets it end by itself; its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """Kills it where it is still there, and does not wait until it is gone."""
        if self._process.poll() is None:
            self._send(signal.SIGKILL, whole_group=True)

    def end(self) -> None:
        """Kills it where it is still there."""
        self.kill()
        self._process.wait()

    def strike(self, blow: Blow) -> bool:
        """Sends a blow's signals and waits for the command's own process to be gone.

        Returns:
            Whether it went when it was told to; False where it had to be killed after being asked.
        """
        self._send(blow.signals[0], blow.whole_group)
        for name in blow.signals[1:]:
            if self.lasts(blow.seconds_between):
                self._send(name, blow.whole_group)
        try:
            self._process.wait(SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self.end()
            return False
        return True

    def _send(self, name: signal.Signals, whole_group: bool) -> None:
        send = os.killpg if whole_group else os.kill
        with suppress(ProcessLookupError):
            send(self._process.pid, name)


def _environment(victim: Victim) -> dict[str, str]:
    """The user's, with a store, a cache and this checkout of its own."""
    checkout = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (checkout, os.environ.get("PYTHONPATH", ""))))
    own = {
        "PYTHONPATH": path,
        "IMGCLS_CACHE": str(victim.folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"} | own
