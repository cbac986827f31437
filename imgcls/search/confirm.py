"""The winner's luck: a sweep's best configurations trained again with fresh seeds, at an epoch fixed beforehand.

The best of many trials is partly the luckiest. What of its score stays when the seed changes is its confirmed mean;
what goes is its optimism. The luck of the val images stays in both, and only the test split is free of it.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from imgcls.config.keys import Experiment
from imgcls.errors import InputError
from imgcls.evaluation.confirmation import (
    Confirmation,
    Confirmed,
    fresh_runs_of,
    fresh_seed,
    rank_confirmed,
    ranked_trials,
)
from imgcls.project import Project
from imgcls.record import MetricName, Tag
from imgcls.reporting.run_progress import Pace
from imgcls.run_record import RunRecord
from imgcls.runs.announce import announce
from imgcls.runs.earlier_versions import other_loss, recorded_squares
from imgcls.runs.prepare import Prepared, prepare
from imgcls.runs.rebuild import recorded_experiment
from imgcls.runs.record_writer import Finished
from imgcls.runs.train import train_run
from imgcls.runs.used_params import SHARE_OF_THE_MACHINE, described_work, used_params
from imgcls.search.budget import ConfirmationTime
from imgcls.search.engines import Cluster, trained
from imgcls.search.study import only_one
from imgcls.search.sweep_report import write_report
from imgcls.search.trial import Job, cached_tracker
from imgcls.search.winner import draw_winner, log_winner
from imgcls.search.workers import fitting_workers, workers_here
from imgcls.text import counted
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)


def confirm_sweep(run_id: str, tracker: Tracker, *, top: int, seeds: int) -> Confirmation:
    """Confirms the best configurations of a sweep that has ended; see `confirm`.

    Raises:
        InputError: no such sweep, none with a winner, or one that is running now.
        Interrupted: a stop was requested; the same command goes on.
    """
    sweep = tracker.get(run_id)
    if sweep.kind != "sweep":
        raise InputError(f"run {run_id} is of kind {sweep.kind or 'unknown'}, not a sweep; name a sweep's run id")
    if not sweep.best_run_id:
        raise InputError(f"sweep {run_id} has no winner yet ({sweep.outcome}); let it end first")
    with only_one(tracker.root, sweep.study), tracker.reopen_run(run_id) as run:
        # Read again: another process may have confirmed it just before this one had the claim.
        found = confirm(run, tracker.get(run_id), tracker, top=top, seeds=seeds, announces=True)
        assert found is not None  # only a budget leaves no time for it
        return found


def confirm(
    run: Run, sweep: RunRecord, tracker: Tracker, *, top: int, seeds: int, announces: bool = False,
    time_left: ConfirmationTime | None = None, cluster: Cluster | None = None,
) -> Confirmation | None:  # fmt: skip
    """Confirms a sweep: trains its best configurations again, and makes the best of their means its winner.

    Fresh runs that exist already are not trained again, so a stopped confirmation goes on where it was. Each fresh run
    has the threads of its trial, and as many run side by side as trials did. No run depends on another, so the order in
    which they end does not matter.

    Args:
        run: the sweep, being written.
        sweep: its record, with its winner.
        tracker: where its trials are and the fresh runs go.
        top: configurations, the best first; where fewer were completed, all of them, and the log says so.
        seeds: fresh seeds for each, at least 1.
        announces: say what images are found before the first of them is trained on.
        time_left: of a budget, into which perhaps only fewer configurations or seeds fit.
        cluster: trains them instead of this machine.

    Returns:
        What was confirmed; None where time was left for nothing.

    Raises:
        Interrupted: a stop was requested; the same command goes on.
    """
    experiment = recorded_experiment(sweep.run_id, tracker)
    metric, num_models = experiment.search.metric, experiment.data.num_models
    trials = _best_trials(tracker.children(sweep.run_id, "trial"), metric, top)
    if time_left is not None:
        top, seeds = time_left.fitting(len(trials), seeds, [trial.best_epoch * num_models for trial in trials])
        trials = trials[:top]
    fresh_seeds = [fresh_seed(experiment.search.seed, index) for index in range(seeds)]
    of_trials = [_jobs(trial, sweep, tracker, fresh_seeds) for trial in trials]
    jobs = [job for with_one_seed in zip(*of_trials, strict=True) for job in with_one_seed]
    done = {job: record for job in jobs if (record := job.recorded(tracker))}
    missing = [job for job in jobs if job not in done]
    if not missing and jobs:
        log.info("all of this confirmation is on record (%s): nothing is trained", counted(len(jobs), "run"))
    elif announces:
        announce(missing[0].prepare(), tracker, runs=counted(len(missing), "run"))
    begun, pace = time.time(), Pace(len(done))
    try:
        num_processes = experiment.search.processes_per_trial
        num_workers = fitting_workers(min(workers_here(sweep), len(missing)), num_processes, experiment.train)
        for job, finished in trained(_in_time(missing, time_left), num_workers, cluster, num_processes):
            done[job] = tracker.get(finished.run_id)
            if done[job].started < 1000 * begun:  # taken up: its time now is only part of a run's
                pace = Pace(len(done))
            log.info("confirmed %d of %d runs, %s", len(done), len(jobs), pace.left(len(done), len(jobs)))
    finally:
        tracker.close_orphans()  # of workers that were lost
    runs = _comparable([[done[job] for job in takewhile(done.__contains__, of_trial)] for of_trial in of_trials])
    if not runs:
        return None
    result = rank_confirmed([Confirmed(trial, of_trial, metric) for trial, of_trial in zip(trials, runs, strict=False)])
    _record(run, sweep, result)
    winner = draw_winner(result.winner.runs[0], experiment, tracker)
    write_report(run, tracker, winner, result.best_trial.found_by)
    return result


def _comparable(of_trials: Sequence[Sequence[RunRecord]]) -> list[tuple[RunRecord, ...]]:
    """The fresh runs of each configuration, all with the same seeds; the first configurations where time was short."""
    num_seeds = max(1, min(map(len, of_trials), default=0))
    return [tuple(runs[:num_seeds]) for runs in of_trials if len(runs) >= num_seeds]


def _best_trials(trials: Sequence[RunRecord], metric: str, top: int) -> list[RunRecord]:
    """Completed trials of different configurations, the best first, ranked as the leaderboard is."""
    distinct: dict[str, RunRecord] = {}
    for record in ranked_trials(trials, metric):
        # Not by CONFIG_HASH: that of earlier versions counts the threads, and how many trials were asked for.
        distinct.setdefault(json.dumps(described_work(record.params), sort_keys=True), record)
    if len(distinct) < top:
        log.warning(
            "%d configurations were asked for; only %d of the sweep completed, and each is confirmed",
            top, len(distinct),
        )  # fmt: skip
    return list(distinct.values())[:top]


@dataclass(frozen=True, eq=False)
class FreshRun(Job):
    """A fresh run of a trial's configuration, scored at the trial's best epoch.

    Attributes:
        root: the project's root.
        sweep: the sweep that is confirmed.
        trial: whose configuration it is.
        index: of the fresh seed, from 0.
    """

    root: Path
    sweep: RunRecord
    trial: RunRecord
    index: int

    @property
    def name(self) -> str:
        """Such as `confirm trial 3, fresh seed 1`."""
        return f"confirm trial {self.trial.trial}, fresh seed {self.index + 1}"

    @property
    def num_epochs(self) -> int:
        """Epochs that the run trains; with folds, those of all folds together."""
        return self.trial.best_epoch * self.experiment.data.num_models

    def recorded(self, tracker: Tracker) -> RunRecord | None:
        """The run of an earlier sitting, or of an earlier version, that did this job.

        A key that the record lacks has its default: it came later.
        """
        default, params = Experiment(name=self.experiment.name).params(), used_params(self.experiment.params())
        keys = [key for key in params if key.startswith("train.") and key not in SHARE_OF_THE_MACHINE]
        for run in fresh_runs_of(self.trial, tracker):
            if all(run.params.get(key, default.get(key)) == params[key] for key in keys):
                return run
        return None

    def prepare(self) -> Prepared:
        """With the squares that the trial had."""
        return prepare(self.experiment, Project(self.root), recorded_squares(self.trial))

    def run(self) -> Finished:
        """Trains it under its sweep's run."""
        tracker = cached_tracker(self.root)
        return train_run(
            self.prepare(),
            tracker,
            kind="confirm",
            name=self.name,
            tags={Tag.PARENT: self.sweep.run_id, Tag.TRIAL: str(self.trial.trial), Tag.STUDY: self.sweep.study},
        )


def _in_time(jobs: Sequence[FreshRun], time_left: ConfirmationTime | None) -> Iterator[FreshRun]:
    """Those of the jobs that there is time for, when they begin."""
    for job in jobs:
        if time_left is not None and not time_left.has_time_for(job.num_epochs):
            return
        yield job


def _jobs(trial: RunRecord, sweep: RunRecord, tracker: Tracker, seeds: Sequence[int]) -> list[FreshRun]:
    """The trial's configuration with the seeds that all configurations share, and with the trial's threads.

    Raises:
        InputError: an earlier version trained the trial with a loss that fresh runs would not have.
    """
    experiment = recorded_experiment(trial.run_id, tracker)
    if difference := other_loss(trial, experiment):
        raise InputError(
            f"trial {trial.run_id} cannot be confirmed, because fresh runs would have another loss: {difference}; "
            "search again with this version (imgcls sweep)"
        )
    kind, _, _ = experiment.train.device.partition(":")  # workers have a GPU each
    fixed = {"train.score_epoch": trial.best_epoch, "train.patience": 0, "train.device": kind}
    fresh = [experiment.replace(fixed | {"train.seed": seed}, origin="confirm") for seed in seeds]
    return [FreshRun(each, tracker.root, sweep, trial, index) for index, each in enumerate(fresh)]


def _record(run: Run, sweep: RunRecord, result: Confirmation) -> None:
    best = result.winner
    metrics = {
        MetricName.CONFIRM_MEAN: best.mean,
        MetricName.CONFIRM_OPTIMISM: result.optimism,
        MetricName.CONFIRM_BEST_TRIAL_MEAN: result.best_trial.mean,
        MetricName.CONFIRM_NUM_SEEDS: float(result.num_seeds),
        MetricName.CONFIRM_NUM_CONFIGURATIONS: float(len(result.ranked)),
    }
    if result.num_seeds > 1 or MetricName.CONFIRM_STD in sweep.metrics:
        metrics[MetricName.CONFIRM_STD] = best.std  # NaN of one seed takes the place of an earlier confirmation's
    tags = {
        Tag.CONFIRMED_RUN_ID: result.best_run_id,
        Tag.CONFIRMED_TRIALS: ",".join(str(confirmed.trial) for confirmed in result.ranked),
    }
    log_winner(run, sweep, best.runs[0], result.best_trial.found_by, metrics, tags)
