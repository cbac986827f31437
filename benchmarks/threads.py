"""Threads and workers: runs and sweeps on a quiet machine, and beside one process that keeps a core busy.

Ours as it is by default (`train.threads` and `search.workers` = `auto`, which measure when they begin, in the very
state), ours as it was before (all threads, one trial at a time), the usual loop and Lightning take turns, in rounds;
a ratio is taken within a round. A run is measured by its train images a second in warm epochs. A sweep is measured
while it goes on: images of the epochs that its trials ended between the first epoch of each and a stop, over that
time, validation, records and beginnings of trials included. The usual loop and Lightning search one trial at a time,
so that their sweeps are at most as fast as their runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.arena import Player, available, in_fresh_process, players
from benchmarks.forms import Form
from benchmarks.throughput import Tell
from benchmarks.works import Work, make_work

if TYPE_CHECKING:
    from imgcls.tracking.store import Tracker

RUNS = ("ours_auto", "ours", "usual_0", "usual_2", "lightning")
"""Contestants of the runs: ours by default, and with all threads as everybody else."""

SWEEPS: dict[str, dict[str, Any]] = {
    "sweep": {},
    "sweep_of_one_worker": {"search.workers": 1},
    "sweep_before": {"search.workers": 1, "train.threads": 0},
}
"""Sweeps of ours -> what they set; the last is what earlier versions did by default."""

SEARCH = {"search.trials": 20, "search.pruner": "none", "train.epochs": 25, "search.space.model.depth": [10]}
"""Of every sweep: trials that cost the same, more than there is time for."""

STATES = {"quiet": 0, "beside a busy process": 1}
"""State of the machine -> processes that keep a core busy each."""

LEAST_EPOCHS = 4
"""Number of epochs that a sweep has to end before it is stopped."""

Speeds = dict[str, float]
"""Contestant -> images a second."""


def measure_threads(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """Measures all, `form.threads_rounds` times."""
    work = make_work("solar_cells", form, into)
    rounds: list[dict[str, Speeds]] = []
    begun = dict[str, str]()
    num_steps, done = form.threads_rounds * len(STATES) * (len(RUNS) + len(SWEEPS)), 0
    with players(RUNS) as contestants:
        for number in range(form.threads_rounds):
            rounds.append({})
            for state, num_busy in STATES.items():
                speeds: Speeds = {}
                with _busy(num_busy):
                    for name in _in_turn([*(player.name for player in contestants), *SWEEPS], number):
                        tell(done / num_steps, f"{name}, {state}, round {number + 1} of {form.threads_rounds}")
                        done += 1
                        if name in SWEEPS:
                            root = into / f"{name} {state} {number}"
                            speeds[name], begun[f"{name}, {state}"] = _sweep(work, root, SWEEPS[name], form)
                        else:
                            player = next(player for player in contestants if player.name == name)
                            speeds[name] = _run(player, work, form)
                rounds[-1][state] = speeds
    left_out = [name for name in RUNS if not available(name)]
    what = f"{work.describe()}; sweeps for {form.threads_seconds:g} s each"
    return {"what": what, "left_out": left_out, "rounds": rounds, "sweeps": begun, **ratios(rounds)}


def ratios(rounds: list[dict[str, Speeds]]) -> dict[str, Any]:
    """The medians of the rounds' ratios."""
    quiet, busy = STATES
    names = [*RUNS, *SWEEPS]
    one = rounds[0]
    return {
        "kept_beside_busy": {
            name: median(each[busy][name] / each[quiet][name] for each in rounds) for name in names if name in one[busy]
        },
        "sweep_vs_one_worker": {
            state: {
                name: median(each[state]["sweep"] / each[state][name] for each in rounds)
                for name in names if name in one[state] and name != "sweep"
            }
            for state in STATES
        },
        "run_vs_each": {
            state: {
                name: median(each[state]["ours_auto"] / each[state][name] for each in rounds)
                for name in RUNS if name in one[state] and name != "ours_auto"
            }
            for state in STATES
        },
    }  # fmt: skip


def _in_turn(names: list[str], number: int) -> list[str]:
    """Each round begins with another one."""
    first = number % len(names)
    return names[first:] + names[:first]


@contextmanager
def _busy(num: int) -> Iterator[None]:
    """Processes that do nothing but keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _run(player: Player, work: Work, form: Form) -> float:
    player.take(work)
    player.first()  # ours measures here what it is about to use
    epoch = player.at_least(form.min_seconds)
    return epoch.images / epoch.seconds


def _sweep(work: Work, root: Path, changes: dict[str, Any], form: Form) -> tuple[float, str]:
    root.mkdir()
    experiment = work.experiment.replace(SEARCH | {"search.space.train.warmup_epochs": [1]} | changes)
    return in_fresh_process(sweep_for, replace(work, root=root, experiment=experiment), form.threads_seconds)


def sweep_for(work: Work, seconds: float) -> tuple[float, str]:
    """A sweep that is stopped so many seconds, and a few epochs, after each of its workers has ended a first epoch.

    Returns:
        Images a second from then on, and what the sweep chose, such as `2 workers of 1 thread`.
    """
    from imgcls.errors import Interrupted
    from imgcls.record import Tag
    from imgcls.search.sweep import sweep
    from imgcls.search.workers import Share
    from imgcls.tracking.store import Tracker

    os.environ["IMGCLS_CACHE"] = str(work.root.parent / "cache of sweeps")  # filled once: decoding is not timed
    tracker = Tracker(work.root)
    threading.Thread(target=_stop_after, args=(work.root, seconds), daemon=True).start()
    with suppress(Interrupted):
        sweep(work.experiment, tracker)
    (record,) = tracker.find({Tag.KIND: "sweep"})
    epochs = _epochs(tracker)
    since = _all_at_work(epochs, record.num_workers)
    assert since is not None
    ended = _after(epochs, since)
    share = Share(record.num_workers, int(record.params["train.threads"]))
    return work.num_train * len(ended) / (max(ended) - since), str(share)


def _stop_after(root: Path, seconds: float) -> None:
    """Asks this process to stop, so many seconds and a few epochs after all workers of its sweep are at work."""
    from imgcls.record import Tag
    from imgcls.tracking.store import Tracker

    tracker = Tracker(root)
    while True:
        time.sleep(1.0)
        sweeps, epochs = tracker.find({Tag.KIND: "sweep"}), _epochs(tracker)
        since = _all_at_work(epochs, sweeps[0].num_workers) if sweeps else None
        if since and time.time() - since > seconds and len(_after(epochs, since)) >= LEAST_EPOCHS:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _after(epochs: list[list[float]], since: float) -> list[float]:
    return [ended for times in epochs for ended in times if ended > since]


def _epochs(tracker: Tracker) -> list[list[float]]:
    """When each epoch of each trial ended, in seconds since 1970."""
    from mlflow.tracking import MlflowClient

    from imgcls.record import Tag

    client = MlflowClient(f"sqlite:///{tracker.root / 'mlflow.db'}")
    histories = [client.get_metric_history(run.run_id, "train/loss") for run in tracker.find({Tag.KIND: "trial"})]
    return [sorted(point.timestamp / 1000 for point in history) for history in histories]


def _all_at_work(epochs: list[list[float]], num_workers: int) -> float | None:
    """When the last of so many workers had ended its first epoch; None before."""
    firsts = sorted(times[0] for times in epochs if times)
    return firsts[num_workers - 1] if len(firsts) >= num_workers else None
