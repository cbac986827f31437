"""Real sweeps beside the replay: what imgcls finds on the solar cells, and what plain Optuna does, in the same seconds.

    python -m benchmarks.replay.real [--seconds 300] [--seeds 5] [--processes 2] [--json]

Both search the space of the table `solar`, begin with the same configuration, and train with one thread. An imgcls
search and a plain one run side by side, or several such pairs, so that other work on the machine disturbs both alike.
When the seconds are over no further trial begins. Each winner is then trained again with fresh seeds, and scored by
their mean on val.
What is done is kept in benchmarks/replay/REAL.json, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import optuna
from scipy import stats

from benchmarks.replay.methods import DEFAULT, OPTUNA
from benchmarks.replay.tables import PROJECT, TABLES, epochs_of
from imgcls.runs.prepare import prepare
from imgcls.search.space import distributions, known
from imgcls.search.sweep import Sweep
from imgcls.tracking.store import Tracker

TABLE = TABLES["solar"]
RESULTS = Path(__file__).parent / "REAL.json"
CONFIRMING = (101, 102, 103)
"""Seeds of the trainings that score a winner."""

Values = Mapping[str, Any]


class Task(NamedTuple):
    """One search: by whom, with which seed, and for how long."""

    method: str
    seed: int
    seconds: float


def main() -> None:
    """Searches, and prints how the means differ."""
    arguments = _arguments()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(one["method"], one["seed"]) for one in kept if one["seconds"] == arguments.seconds}
    tasks = [
        Task(method, seed, arguments.seconds)
        for seed in range(arguments.seeds) for method in (DEFAULT, OPTUNA) if (method, seed) not in done
    ]  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=1) as pool:
        for one in pool.imap_unordered(searched, tasks, chunksize=1):
            kept.append(one)
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
            print(
                f"{one['method']}, seed {one['seed']}: {one['confirmed']:.4f} after {one['trials']} trials", flush=True
            )
    pairs = paired(kept, arguments.seconds)
    mean, low, high = difference(pairs)
    print(f"imgcls less plain Optuna, {len(pairs)} seeds: {mean:+.4f} ({low:+.4f} to {high:+.4f})")
    if arguments.json:
        sys.stdout.write(json.dumps({"confirmed_val_vs_optuna": mean, "interval": [low, high]}) + "\n")


def searched(task: Task) -> dict[str, Any]:
    """One search and the scores of its winner."""
    number = int(np.random.default_rng(task.seed).integers(TABLE.num_configurations))
    begun = time.monotonic()
    search = _by_imgcls if task.method == DEFAULT else _by_optuna
    values, best, num = search(task, TABLE.configurations[number])
    took = time.monotonic() - begun
    again = [_accuracy(values, seed) for seed in CONFIRMING]
    return {
        **task._asdict(), "took": round(took, 1), "trials": num, "values": values, "val": best,
        "confirmed": round(fmean(again), 5), "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def paired(kept: list[dict[str, Any]], seconds: float) -> list[float]:
    """The confirmed accuracy of imgcls less that of Optuna, of each seed that both have searched with."""
    of = {(one["method"], one["seed"]): one["confirmed"] for one in kept if one["seconds"] == seconds}
    seeds = sorted(seed for method, seed in of if method == DEFAULT and (OPTUNA, seed) in of)
    return [of[DEFAULT, seed] - of[OPTUNA, seed] for seed in seeds]


def difference(pairs: list[float]) -> tuple[float, float, float]:
    """The mean of paired differences, and its 95 % interval by Student's t."""
    mean, half = fmean(pairs), float(stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(pairs))
    return mean, mean - half, mean + half


def _by_imgcls(task: Task, own: Values) -> tuple[Values, float, int]:
    """A sweep as `imgcls sweep` runs it, but for one worker."""
    settings = {
        "search.seed": task.seed, "search.trials": 1000, "search.timeout": task.seconds, "search.workers": 1,
        "report.figures": "none",
    }  # fmt: skip
    experiment = TABLE.experiment(own, task.seed, searched=True).replace(settings)
    with tempfile.TemporaryDirectory() as folder:
        board = Sweep(experiment, Tracker(Path(folder))).run().leaderboard
    best = {str(name): value for name, value in board.iloc[0].items()}
    return known(best, experiment.search.space), float(best["val/accuracy"]), len(board)


def _by_optuna(task: Task, own: Values) -> tuple[Values, float, int]:
    """Optuna at its defaults around a plain loop."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(TABLE.experiment({}, 0, searched=True).search.space)

    def objective(trial: optuna.Trial) -> float:
        best = 0.0
        for epoch, accuracy in enumerate(_accuracies(trial.params, task.seed), 1):
            best = max(best, accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.seed), pruner=optuna.pruners.MedianPruner()
    )
    study.enqueue_trial(dict(own))
    begun = time.monotonic()
    while time.monotonic() - begun < task.seconds:
        trial = study.ask(space)
        try:
            study.tell(trial, objective(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return study.best_params, study.best_value, len(study.trials)


def _accuracies(values: Values, seed: int) -> Any:
    for epoch in epochs_of(*prepare(TABLE.experiment(values, seed), PROJECT).begin()):
        yield epoch["accuracy"]


def _accuracy(values: Values, seed: int) -> float:
    return max(_accuracies(values, seed), default=0.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay.real", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=300.0, help="of each search, on one core")
    parser.add_argument("--seeds", type=int, default=5, help="of each method")
    parser.add_argument("--processes", type=int, default=2, help="searches side by side, one thread each")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON: the difference and its interval")
    return parser.parse_args()


if __name__ == "__main__":
    main()
