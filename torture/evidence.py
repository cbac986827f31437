"""What a sweep left behind, read with MLflow's and Optuna's own clients, and how two of them differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor

TIMINGS = ("epoch_seconds", "images_per_second")
"""Metrics whose values are a run's own; their steps are not."""

EVERY_EPOCH = "val/loss"
"""A metric that each completed epoch leaves."""

Point = tuple[int, float]
"""(step, value) of a metric."""


@dataclass(frozen=True)
class TrialRun:
    """One MLflow run of a trial, or of a fold of a trial.

    Attributes:
        run_id: MLflow's id.
        number: of its trial.
        status: MLflow's.
        outcome: the tag.
        params: as logged.
        points: of each metric, sorted by step.
        weights: of `checkpoints/best.pt`; None where there is none.
        predictions: content of `predictions/val.csv`; None where there is none.
        reason: why it failed; empty where it did not.
        fold: its number; 0 of the run of a trial.
    """

    run_id: str
    number: int
    status: str
    outcome: str
    params: Mapping[str, str]
    points: Mapping[str, Sequence[Point]]
    weights: Mapping[str, Tensor] | None = None
    predictions: bytes | None = None
    reason: str = ""
    fold: int = 0

    @property
    def name(self) -> str:
        """Which it is, in words."""
        return f"trial {self.number}" + (f", fold {self.fold}" if self.fold else "")

    def num_doubled(self) -> int:
        """Points of a metric at a step that has one already."""
        return sum(len(points) - len({step for step, _ in points}) for points in self.points.values())

    def num_lost(self) -> int:
        """Epochs without a point, before the last that has one."""
        steps = {step for step, _ in self.points.get(EVERY_EPOCH, ())}
        return len(set(range(1, max(steps, default=0) + 1)) - steps)


@dataclass(frozen=True)
class Planned:
    """One trial in Optuna's journal: its number, state, params, value and the values reported on the way."""

    number: int
    state: str
    params: Mapping[str, Any]
    value: float | None
    reported: Mapping[int, float]


@dataclass(frozen=True)
class Evidence:
    """What a sweep left.

    Attributes:
        num_sweeps: parent runs; 1 is right.
        trials: the trials' MLflow runs, by number.
        winner: number of the winner's trial; None where none is named.
        journal: Optuna's trials.
        orphans: runs and journal trials that say that they are running, in words.
        folds: the runs of their folds, by the numbers of trial and fold.
    """

    num_sweeps: int
    trials: tuple[TrialRun, ...]
    winner: int | None
    journal: tuple[Planned, ...]
    orphans: tuple[str, ...]
    folds: tuple[TrialRun, ...] = ()


@dataclass
class Verdict:
    """What is wrong with a sweep: counts, and in words.

    Attributes:
        lost: trials, folds and epochs of trials that are missing.
        doubled: trials, folds, and points of metrics, that are there more than once.
        orphans: runs and trials that say that they are running.
        differences: whatever else is not as it should be, and each of the above.
    """

    lost: int = 0
    doubled: int = 0
    orphans: int = 0
    differences: list[str] = field(default_factory=list)

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.orphans + other.orphans,
            self.differences + other.differences,
        )

    def add(self, kind: str, count: int, words: str) -> None:
        """Counts what is `lost`, `doubled` or `orphans`, and says it."""
        if count > 0:
            setattr(self, kind, getattr(self, kind) + count)
            self.differences.append(words)


def gather(root: Path) -> Evidence:
    """Reads all that the one sweep of a project left.

    Args:
        root: the project's root.
    """
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments(view_type=ViewType.ALL)]
    runs = list(client.search_runs(ids, run_view_type=ViewType.ALL, max_results=50_000))
    by_kind = {
        kind: [run for run in runs if run.data.tags.get("imgcls.kind") == kind] for kind in ("sweep", "trial", "fold")
    }
    trials = sorted((_trial_run(client, run) for run in by_kind["trial"]), key=lambda trial: trial.number)
    numbers = {trial.run_id: trial.number for trial in trials}
    folds = (_fold_run(client, run, numbers.get(run.data.tags["mlflow.parentRunId"], -1)) for run in by_kind["fold"])
    winners = {run.data.tags.get("imgcls.best_run_id") for run in by_kind["sweep"]}
    journal = _journal(root)
    orphans = [f"run {run.info.run_id} says RUNNING" for run in runs if run.info.status == "RUNNING"]
    orphans += [f"trial {trial.number} is {trial.state} in the journal" for trial in journal if _is_open(trial)]
    return Evidence(
        num_sweeps=len(by_kind["sweep"]),
        trials=tuple(trials),
        winner=next((trial.number for trial in trials if trial.run_id in winners), None),
        journal=journal,
        orphans=tuple(orphans),
        folds=tuple(sorted(folds, key=lambda fold: (fold.number, fold.fold))),
    )


def check_totals(found: Evidence, num_trials: int) -> Verdict:
    """Whether each trial is there once and whole, whatever its values.

    Args:
        found: what a sweep left.
        num_trials: that it was asked for.
    """
    verdict = Verdict()
    for orphan in found.orphans:
        verdict.add("orphans", 1, orphan)
    counts = Counter(trial.number for trial in found.trials)
    for number in range(num_trials):
        verdict.add("lost", int(counts[number] == 0), f"trial {number} has no run")
    for number, count in counts.items():
        verdict.add("doubled", count - 1, f"trial {number} has {count} runs")
        verdict.add("doubled", int(number >= num_trials), f"trial {number} is one more than was asked for")
    verdict.add("lost", num_trials - len(found.journal), f"the journal has {len(found.journal)} trials")
    verdict.add("doubled", max(0, len(found.journal) - num_trials), f"the journal has {len(found.journal)} trials")
    for (number, fold), count in Counter((run.number, run.fold) for run in found.folds).items():
        verdict.add("doubled", count - 1, f"trial {number} has {count} runs of fold {fold}")
        verdict.add("doubled", int(number not in counts), f"fold {fold} has no trial")
    for run in (*found.trials, *found.folds):
        verdict.add("doubled", run.num_doubled(), f"{run.name} has points twice")
        verdict.add("lost", run.num_lost(), f"{run.name} lacks epochs")
        if run.outcome not in ("completed", "pruned") or run.status != "FINISHED":
            verdict.differences.append(f"{run.name} ended {run.status}, {run.outcome} {run.reason}".rstrip())
    if found.num_sweeps != 1:
        verdict.differences.append(f"{found.num_sweeps} sweeps instead of one")
    if found.winner is None:
        verdict.differences.append("no winner")
    return verdict


def compare(reference: Evidence, found: Evidence) -> Verdict:
    """How a sweep differs from one that was never interrupted: totals, values to the bit, weights, winner.

    Args:
        reference: the uninterrupted one.
        found: the other.
    """
    verdict = check_totals(found, len(reference.trials))
    if found.winner != reference.winner:
        verdict.differences.append(f"trial {found.winner} won instead of trial {reference.winner}")
    found_runs = {run.name: run for run in (*found.trials, *found.folds)}
    for expected in (*reference.trials, *reference.folds):
        if (run := found_runs.pop(expected.name, None)) is not None:
            _compare_runs(expected, run, verdict)
        elif expected.fold:  # a trial without a run is counted among the totals
            verdict.add("lost", 1, f"{expected.name} has no run")
    for name, run in found_runs.items():
        verdict.add("doubled", int(run.fold > 0), f"{name} is one more than in the untouched sweep")
    for planned, told in zip(reference.journal, found.journal, strict=False):
        if planned != told:
            verdict.differences.append(f"trial {told.number} in the journal: {planned} became {told}")
    return verdict


def _compare_runs(expected: TrialRun, trial: TrialRun, verdict: Verdict) -> None:
    where = trial.name
    for name in ("outcome", "status"):
        if getattr(expected, name) != getattr(trial, name):
            verdict.differences.append(f"{where}: {name} {getattr(expected, name)} became {getattr(trial, name)}")
    for key in sorted({*expected.params, *trial.params}):
        before, after = expected.params.get(key, "nothing"), trial.params.get(key, "nothing")
        if before != after:
            verdict.differences.append(f"{where}: {key} = {before} became {after}")
    for metric in sorted({*expected.points, *trial.points}):
        _compare_points(where, metric, expected.points.get(metric, ()), trial.points.get(metric, ()), verdict)
    if not _same_weights(expected.weights, trial.weights):
        verdict.differences.append(f"{where}: other weights in checkpoints/best.pt")
    if expected.predictions != trial.predictions:
        verdict.differences.append(f"{where}: other predictions")


def _compare_points(
    where: str, metric: str, expected: Sequence[Point], points: Sequence[Point], verdict: Verdict
) -> None:
    if missing := sorted({step for step, _ in expected} - {step for step, _ in points}):
        last = max((step for step, _ in points), default=0)  # what is missing before it is counted among the totals
        verdict.lost += sum(step > last for step in missing) if metric == EVERY_EPOCH else 0
        verdict.differences.append(f"{where}: {metric} lacks steps {missing}")
    if surplus := sorted({step for step, _ in points} - {step for step, _ in expected}):
        verdict.differences.append(f"{where}: {metric} has steps {surplus} too many")
    if metric in TIMINGS:
        return
    before, after = dict(expected), dict(points)
    for step in sorted(before.keys() & after.keys()):
        if before[step].hex() != after[step].hex():
            verdict.differences.append(f"{where}: {metric} at step {step}: {before[step]!r} became {after[step]!r}")


def _same_weights(expected: Mapping[str, Tensor] | None, found: Mapping[str, Tensor] | None) -> bool:
    if expected is None or found is None:
        return expected is found
    return expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def _trial_run(client: MlflowClient, run: Run) -> TrialRun:
    return _run(client, run, int(run.data.tags["imgcls.trial"]))


def _fold_run(client: MlflowClient, run: Run, number: int) -> TrialRun:
    return replace(_run(client, run, number), fold=int(run.data.tags["imgcls.fold"]))


def _run(client: MlflowClient, run: Run, number: int) -> TrialRun:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    best, predictions = folder / "checkpoints" / "best.pt", folder / "predictions" / "val.csv"
    points = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return TrialRun(
        run_id=run.info.run_id,
        number=number,
        status=run.info.status,
        outcome=run.data.tags.get("imgcls.outcome", ""),
        params=dict(run.data.params),
        points={key: sorted((point.step, point.value) for point in found) for key, found in points.items()},
        weights=torch.load(best, weights_only=True)["model"] if best.exists() else None,
        predictions=predictions.read_bytes() if predictions.exists() else None,
        reason=run.data.tags.get("imgcls.reason", ""),
    )


def _journal(root: Path) -> tuple[Planned, ...]:
    """All trials of all journals of the project; one journal is right, and two show as trials too many."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials: list[Planned] = []
    for path in sorted((root / "mlruns" / ".studies").glob("*.journal")):
        storage = JournalStorage(JournalFileBackend(str(path)))
        for study in storage.get_all_studies():
            trials += [
                Planned(trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values)
                for trial in storage.get_all_trials(study._study_id)
            ]
    return tuple(sorted(trials, key=lambda trial: trial.number))


def _is_open(trial: Planned) -> bool:
    return trial.state in ("RUNNING", "WAITING")
