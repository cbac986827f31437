"""Part d: the cold start of each verb, from the shell's point of view: a new process until it has answered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.arena import BenchmarkError, in_fresh_process
from benchmarks.forms import Form
from benchmarks.throughput import Tell
from benchmarks.works import REPOSITORY

VERBS: dict[str, tuple[tuple[str, ...], int]] = {
    "--help": (("--help",), 0),
    "keys": (("keys",), 0),
    "runs": (("runs",), 0),
    "ledger": (("ledger",), 0),
    "doctor": (("doctor",), 0),
    "models": (("models",), 0),
    "train, refused": (("train", "digist"), 2),
}
"""What is typed, and the exit code that it must have; no experiment is called digist."""


def measure_verbs(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """Seconds of each verb in a project with one run, verb after verb, round after round."""
    (into / "experiments").mkdir(parents=True)
    (into / "experiments" / "digits.toml").write_bytes((REPOSITORY / "experiments" / "digits.toml").read_bytes())
    in_fresh_process(train_one_run, into)
    seconds: dict[str, list[float]] = {name: [] for name in VERBS}
    for number in range(form.verb_rounds):
        tell(number / form.verb_rounds, f"round {number + 1} of {form.verb_rounds}")
        for name, (arguments, code) in VERBS.items():
            seconds[name].append(_start(arguments, code, into))
    return {
        "rounds": seconds,
        "seconds": {name: median(values) for name, values in seconds.items()},
        "help_seconds": median(seconds["--help"]),
    }


def train_one_run(root: Path) -> None:
    """So that the store is not empty."""
    from imgcls.config.load import load_experiment
    from imgcls.project import Project, find_experiment
    from imgcls.runs.prepare import prepare
    from imgcls.runs.train import train_run
    from imgcls.tracking.store import Tracker

    os.environ["IMGCLS_CACHE"] = str(root / "cache")
    path, _ = find_experiment("digits", root)
    experiment = load_experiment(path, ["train.epochs=1", "train.warmup_epochs=0", "train.device=cpu"])
    train_run(prepare(experiment, Project(root)), Tracker(root), kind="train", name="digits")


def _start(arguments: tuple[str, ...], code: int, cwd: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "IMGCLS_CACHE": str(cwd / "cache")}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "imgcls", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    if done.returncode != code:
        raise BenchmarkError(f"imgcls {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds
