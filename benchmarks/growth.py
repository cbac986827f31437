"""Part e: how the time of what people wait for grows, with the images and with the runs in the store.

The growth is the slope of log time over log size: 1 is linear, and what costs the same at any size pulls it towards 0.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.arena import in_fresh_process
from benchmarks.forms import Form
from benchmarks.pictures import write_noise
from benchmarks.throughput import Tell
from imgcls.config.keys import Experiment
from imgcls.config.load import load_experiment
from imgcls.project import Project

EXPERIMENT = """
name = "growth"

[data]
source = "{source}"
path = "images"
image_size = 8
allow_leaks = true

[model]
depth = 8
width = 4

[train]
epochs = {epochs}
warmup_epochs = 0
batch_size = 256
threads = 1
device = "cpu"

[search]
trials = {trials}
workers = 1

[search.space]
"train.lr" = {{ low = 1e-4, high = 1e-1, log = true }}
"train.warmup_epochs" = {{ low = 0, high = 3 }}
"""
EPOCHS = 5
"""Of the tracked run that stands for all."""

Times = dict[str, list[float]]
"""What was done -> seconds, measure by measure."""


def measure_growth(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """Both growths, each size in a process of its own."""
    by_images: dict[int, Times] = {}
    by_runs: dict[int, Times] = {}
    images = [form.growth_images * factor for factor in (1, 2, 4, 8)]
    total = len(images) + len(form.growth_runs)
    for number, size in enumerate(images):
        tell(number / total, f"{size:,} images")
        by_images[size] = in_fresh_process(with_images, into / f"{size} images", size, form.growth_rounds)
    for number, size in enumerate(form.growth_runs):
        tell((len(images) + number) / total, f"{size:,} runs")
        by_runs[size] = in_fresh_process(with_runs, into / f"{size} runs", size, form.growth_rounds)
    return {"images": _growth(by_images), "runs": _growth(by_runs)}


def _growth(measured: dict[int, Times]) -> dict[str, Any]:
    names = list(next(iter(measured.values())))
    return {
        name: {
            "seconds": {str(size): median(times[name]) for size, times in measured.items()},
            **fit_exponent([(size, seconds) for size, times in measured.items() for seconds in times[name]]),
        }
        for name in names
    }


def fit_exponent(points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Slope of log seconds over log size by least squares, its standard error, and the slope of the last step.

    Args:
        points: (size, seconds), several of each size.

    Returns:
        `exponent`, `standard_error`, `last_step`, and `no_faster_than_linearly`: whether both slopes are 1 at most, by
        more than twice the standard error beyond.
    """
    x, y = np.log([size for size, _ in points]), np.log([seconds for _, seconds in points])
    slope, _ = np.polyfit(x, y, 1)
    residuals = y - np.polyval(np.polyfit(x, y, 1), x)
    freedom = max(1, len(points) - 2)
    error = math.sqrt(float(residuals @ residuals) / freedom / float(((x - x.mean()) ** 2).sum()))
    sizes = sorted({size for size, _ in points})
    before, last = (median(seconds for size, seconds in points if size == at) for at in sizes[-2:])
    last_step = math.log(last / before) / math.log(sizes[-1] / sizes[-2])
    return {
        "exponent": float(slope),
        "standard_error": error,
        "last_step": last_step,
        "no_faster_than_linearly": bool(max(slope, last_step) <= 1 + 2 * error),
    }


# --- images ---


def with_images(root: Path, num_images: int, rounds: int) -> Times:
    """A sweep's start over a folder whose images are decoded already."""
    root.mkdir(parents=True)
    write_noise(root / "images", num_images, 16)
    experiment = _experiment(root, source="folder", trials=5)
    times: Times = {"sweep's start, images decoded before": []}
    cold = _time_start(experiment, root)
    for _ in range(rounds):
        times["sweep's start, images decoded before"].append(_time_start(experiment, root))
    return {"sweep's start, images never seen": [cold], **times}


def _experiment(root: Path, *, source: str, trials: int) -> Experiment:
    os.environ["IMGCLS_CACHE"] = str(root / "cache")
    path = root / "experiments" / "growth.toml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT.format(source=source, trials=trials, epochs=EPOCHS))
    return load_experiment(path)


class _StartedError(Exception):
    """The sweep would ask for its first trial now."""


def _time_start(experiment: Experiment, root: Path) -> float:
    """Seconds from nothing in memory to the first trial."""
    from imgcls.runs.prepare import cached_dataset
    from imgcls.search.driver import Driver
    from imgcls.search.sweep import Sweep
    from imgcls.tracking.store import Tracker

    tracker = Tracker(root)
    cached_dataset.cache_clear()
    begun = time.perf_counter()
    sweep = Sweep(experiment, tracker)
    try:
        with patch.object(Driver, "run", side_effect=_StartedError):
            sweep.run()
    except _StartedError:
        return time.perf_counter() - begun
    raise AssertionError("the sweep never began to search")


# --- runs ---


def with_runs(root: Path, num_runs: int, rounds: int) -> Times:
    """What a sweep does around its trials, with so many of them in the store and in the study."""
    root.mkdir(parents=True)
    experiment = _experiment(root, source="digits", trials=num_runs)
    _time_start(experiment, root)
    sweep, study, run = _fill(experiment, root, num_runs)
    assert len(study.leaderboard()) == num_runs
    best = sweep.tracker.get(sweep._conclude(run, study).best_run_id)
    from imgcls.search.sweep_report import write_report

    return {
        "sweep's start": _repeat(rounds, lambda: _time_start(experiment, root)),
        "leaderboard": _repeat(rounds, lambda: _timed(study.leaderboard)),
        "report": _repeat(rounds, lambda: _timed(lambda: write_report(run, sweep.tracker, best, best))),
        "all that follows the last trial": _repeat(rounds, lambda: _timed(lambda: sweep._conclude(run, study))),
    }


def _repeat(rounds: int, measure: Callable[[], float]) -> list[float]:
    return [measure() for _ in range(rounds)]


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _fill(experiment: Experiment, root: Path, num_runs: int) -> tuple[Any, Any, Any]:
    """One real trial in the record, copied row by row; a study whose trials those are.

    Returns:
        The sweep, its study, and its run.
    """
    import optuna
    from optuna.distributions import FloatDistribution, IntDistribution

    from imgcls.runs.prepare import prepare
    from imgcls.runs.train import train_run
    from imgcls.search.sweep import Sweep
    from imgcls.tracking.store import Tracker

    tracker = Tracker(root)
    sweep = Sweep(experiment, tracker)
    parent = tracker.find({"imgcls.kind": "sweep"})[0].run_id
    done = train_run(
        prepare(experiment, Project(root)), tracker, kind="trial", name="trial 0",
        tags={"mlflow.parentRunId": parent, "imgcls.study": sweep.name, "imgcls.trial": "0"},
    )  # fmt: skip
    run_ids = [done.run_id, *copy_run(root / "mlflow.db", done.run_id, num_runs - 1)]
    study = sweep.study(parent)
    space: dict[str, Any] = {
        "train.lr": FloatDistribution(1e-4, 1e-1, log=True),
        "train.warmup_epochs": IntDistribution(0, 3),
    }
    draws = np.random.default_rng(0)
    values = draws.uniform(0.5, 0.9, num_runs)
    study.optuna.add_trials([
        optuna.trial.create_trial(
            params={"train.lr": float(10 ** draws.uniform(-4, -1)), "train.warmup_epochs": int(draws.integers(4))},
            distributions=space,
            value=float(value),
            user_attrs={
                "run_id": run_id, "best_epoch": done.best.epoch, **done.best.metrics(), "val/accuracy": float(value),
            },
        )
        for run_id, value in zip(run_ids, values, strict=True)
    ])  # fmt: skip
    return sweep, study, tracker.amend(parent)


TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
"""Of MLflow's store, keyed by run_uuid."""


def copy_run(database: Path, run_id: str, times: int) -> list[str]:
    """Copies every row of a run under new ids, as fast as SQLite writes.

    Returns:
        The new ids.
    """
    new_ids = [uuid.uuid4().hex for _ in range(times)]
    with sqlite3.connect(database, timeout=20) as connection:
        for table in TABLES:
            cursor = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
            columns = [column[0] for column in cursor.description]
            at, rows = columns.index("run_uuid"), cursor.fetchall()
            marks = ", ".join("?" * len(columns))
            copies = [(*row[:at], new_id, *row[at + 1 :]) for new_id in new_ids for row in rows]
            connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", copies)
    return new_ids
