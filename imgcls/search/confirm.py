"""The winner's luck: a sweep's best configurations trained again with fresh seeds, at an epoch fixed beforehand.

The best of many trials is partly the luckiest. What of its score stays when the seed changes is its confirmed mean;
what goes is its optimism. The luck of the val images stays in both, and only the test split is free of it.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgcls.config import Experiment, load_experiment
from imgcls.errors import InputError
from imgcls.progress import duration
from imgcls.rng import derive_seed
from imgcls.run import CONFIG, Prepared, announce, prepare, train_run
from imgcls.search.trial import direction
from imgcls.signals import GracefulStop
from imgcls.tracking.record import RunRecord
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Confirmed:
    """One configuration with fresh seeds.

    Attributes:
        trial: number of the trial that found it.
        trial_value: that trial's metric at its best epoch.
        epoch: that epoch, at which the fresh runs are scored too.
        values: the metric of each fresh run at this epoch, in the order of the seeds.
        run_ids: of the fresh runs, in the same order.
    """

    trial: int
    trial_value: float
    epoch: int
    values: tuple[float, ...]
    run_ids: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Of `values`."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Standard deviation of `values` over the seeds, with N - 1; NaN of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True)
class Confirmation:
    """The best configurations of a sweep, ranked by their confirmed means.

    Attributes:
        metric: what is compared.
        ranked: the best first.
        best_trial: the configuration that the sweep's best trial found.
    """

    metric: str
    ranked: tuple[Confirmed, ...]
    best_trial: Confirmed

    @property
    def optimism(self) -> float:
        """The best trial's metric minus its configuration's confirmed mean.

        Above 0 for an accuracy, and below 0 for a loss, where that trial was lucky.
        """
        return self.best_trial.trial_value - self.best_trial.mean

    @property
    def winner(self) -> Confirmed:
        """The configuration with the best mean."""
        return self.ranked[0]

    @property
    def best_run_id(self) -> str:
        """The sweep's winner: the first fresh seed of the best configuration, chosen by place and not by score."""
        return self.winner.run_ids[0]


def check_can_be_confirmed(sweep: RunRecord) -> None:
    """Refuses what is no sweep, or one without a completed trial to confirm.

    Raises:
        InputError: naming the run and the remedy.
    """
    if sweep.kind != "sweep":
        raise InputError(f"run {sweep.run_id} is no sweep but of kind {sweep.kind or 'unknown'}; name a sweep's run id")
    if "imgcls.best_run_id" not in sweep.tags:
        raise InputError(f"sweep {sweep.run_id} has no winner yet ({sweep.outcome}); let it end first")


def confirm(
    run: Run, tracker: Tracker, root: Path, *, top: int, seeds: int, stop: GracefulStop, announces: bool = False
) -> Confirmation:
    """Trains the best configurations again, and makes the best of their means the sweep's winner.

    Fresh runs that exist already are not trained again, so a stopped confirmation goes on where it was.

    Args:
        run: the sweep, being written.
        tracker: where its trials are and the fresh runs go.
        root: the project's root, for relative data paths.
        top: configurations, the best first; where fewer were completed, all of them, and the log says so.
        seeds: fresh seeds for each, at least 1.
        stop: asked after each step.
        announces: say what images are found before the first of them is trained on.

    Raises:
        Interrupted: `stop` was requested; the same command goes on.
    """
    with tracker.fetch(run.run_id, CONFIG) as path:
        sweep = load_experiment(path)
    candidates = _best_trials(run.run_id, tracker, sweep, top)
    jobs = [(trial, index) for trial in candidates for index in range(seeds)]
    started, fresh, done = time.monotonic(), 0, {}
    for number, (trial, index) in enumerate(jobs):
        experiment = _with_fresh_seed(trial, index, sweep, tracker)
        run_id = _earlier(run.run_id, trial, experiment, tracker)
        if run_id is None:
            prepared = prepare(experiment, root)
            if announces and not fresh:
                announce(prepared, tracker, runs=f"{len(jobs)} runs")
            run_id = _train(run.run_id, trial, index, prepared, tracker, stop)
            fresh += 1
            left = (time.monotonic() - started) / fresh * (len(jobs) - number - 1)
            log.info("confirmed %d of %d runs, %s left", number + 1, len(jobs), duration(left))
        done[trial.run_id, index] = run_id
    result = _conclude(candidates, done, sweep, seeds, tracker)
    _record(run, result, tracker)
    return result


def recorded_confirmation(sweep_run_id: str, tracker: Tracker) -> Confirmation | None:
    """What an earlier sitting confirmed, where its winner still is the sweep's."""
    sweep = tracker.get(sweep_run_id)
    fresh = [r for r in tracker.children(sweep_run_id, "confirm") if r.outcome == "completed"]
    if sweep.tags["imgcls.best_run_id"] not in [record.run_id for record in fresh]:
        return None
    with tracker.fetch(sweep_run_id, CONFIG) as path:
        experiment = load_experiment(path)
    numbers = sweep.tags["imgcls.confirmed_trials"].split(",")
    trials = [r for r in tracker.children(sweep_run_id, "trial") if r.tags["imgcls.trial"] in numbers]
    candidates = sorted((r for r in trials if r.outcome == "completed"), key=lambda r: _rank(r, experiment))
    seeds = int(sweep.metrics["confirm/num_seeds"])
    done = {}
    for trial in candidates:
        for index in range(seeds):
            run_id = _earlier(sweep_run_id, trial, _with_fresh_seed(trial, index, experiment, tracker), tracker)
            if run_id is None:  # deleted since
                return None
            done[trial.run_id, index] = run_id
    return _conclude(candidates, done, experiment, seeds, tracker)


def _best_trials(sweep_run_id: str, tracker: Tracker, sweep: Experiment, top: int) -> list[RunRecord]:
    """Completed trials of different configurations, the best first, ranked as the leaderboard is."""
    records = [r for r in tracker.children(sweep_run_id, "trial") if r.outcome == "completed"]
    ranked = sorted(records, key=lambda record: _rank(record, sweep))
    distinct: list[RunRecord] = []
    for record in ranked:
        if all(record.tags["imgcls.config_hash"] != other.tags["imgcls.config_hash"] for other in distinct):
            distinct.append(record)
    if len(distinct) < top:
        log.warning("%d configurations were asked for, and %d were completed: these are confirmed", top, len(distinct))
    return distinct[:top]


def _rank(record: RunRecord, sweep: Experiment) -> tuple[float, float, int]:
    sign = 1 if direction(sweep) == "minimize" else -1
    metric = record.metrics[f"best/{sweep.search.metric}"]
    return sign * metric, record.metrics["best/val/loss"], int(record.tags["imgcls.trial"])


def _with_fresh_seed(trial: RunRecord, index: int, sweep: Experiment, tracker: Tracker) -> Experiment:
    """The trial's configuration with the seed that all configurations share, scored at the trial's best epoch."""
    with tracker.fetch(trial.run_id, CONFIG) as path:
        experiment = load_experiment(path)
    seed = derive_seed(sweep.search.seed, "confirm", index) % 2**31
    assert seed != experiment.train.seed
    fixed = {"train.seed": seed, "train.score_epoch": int(trial.metrics["best/epoch"]), "train.patience": 0}
    return experiment.replace(fixed, origin="confirm")


def _earlier(sweep_run_id: str, trial: RunRecord, experiment: Experiment, tracker: Tracker) -> str | None:
    tags = {
        "mlflow.parentRunId": sweep_run_id,
        "imgcls.kind": "confirm",
        "imgcls.outcome": "completed",
        "imgcls.trial": trial.tags["imgcls.trial"],
    }
    wanted = {key: str(value) for key, value in experiment.params().items() if key.startswith("train.")}
    same = [record for record in tracker.find(tags) if wanted.items() <= record.params.items()]
    return same[0].run_id if same else None


def _train(
    sweep_run_id: str, trial: RunRecord, index: int, prepared: Prepared, tracker: Tracker, stop: GracefulStop
) -> str:  # fmt: skip
    number = trial.tags["imgcls.trial"]
    done = train_run(
        prepared,
        tracker,
        kind="confirm",
        name=f"confirm trial {number}, fresh seed {index + 1}",
        parent=sweep_run_id,
        tags={"imgcls.trial": number, "imgcls.study": trial.tags["imgcls.study"]},
        stop=stop,
    )
    return done.run_id


def _conclude(
    candidates: Sequence[RunRecord], done: dict[tuple[str, int], str], sweep: Experiment, seeds: int, tracker: Tracker
) -> Confirmation:
    name = f"best/{sweep.search.metric}"
    confirmed = []
    for trial in candidates:
        run_ids = tuple(done[trial.run_id, index] for index in range(seeds))
        confirmed.append(
            Confirmed(
                trial=int(trial.tags["imgcls.trial"]),
                trial_value=trial.metrics[name],
                epoch=int(trial.metrics["best/epoch"]),
                values=tuple(tracker.get(run_id).metrics[name] for run_id in run_ids),
                run_ids=run_ids,
            )
        )
    sign = 1 if direction(sweep) == "minimize" else -1
    return Confirmation(
        metric=sweep.search.metric,
        ranked=tuple(sorted(confirmed, key=lambda c: (sign * c.mean, c.trial))),
        best_trial=confirmed[0],
    )


def _record(run: Run, result: Confirmation, tracker: Tracker) -> None:
    best = result.winner
    metrics = {
        "confirm/mean": best.mean,
        "confirm/optimism": result.optimism,
        "confirm/num_seeds": float(len(best.values)),
        "confirm/num_configurations": float(len(result.ranked)),
    }
    if len(best.values) > 1:
        metrics["confirm/std"] = best.std
    tags = {
        "imgcls.best_run_id": result.best_run_id,
        "imgcls.confirmed_trials": ",".join(str(confirmed.trial) for confirmed in result.ranked),
    }
    begun = [tracker.get(run_id).started for confirmed in result.ranked for run_id in confirmed.run_ids]
    run.log_metrics(metrics, tags=tags, at=max(begun))  # concluding twice gives the same points
