"""The winner's luck: a sweep's best configurations trained again with fresh seeds, at an epoch fixed beforehand.

The best of many trials is partly the luckiest. What of its score stays when the seed changes is its confirmed mean;
what goes is its optimism. The luck of the val images stays in both, and only the test split is free of it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from imgcls.config.keys import Experiment
from imgcls.errors import InputError
from imgcls.evaluation.confirmation import Confirmation, Confirmed, fresh_seed, rank_confirmed, ranked_trials
from imgcls.record import MetricName, RunRecord, Tag
from imgcls.reporting.progress import Pace
from imgcls.runs.announce import announce
from imgcls.runs.earlier_versions import other_loss, recorded_squares
from imgcls.runs.prepare import Prepared, prepare
from imgcls.runs.rebuild import recorded_experiment
from imgcls.runs.train import train_run
from imgcls.search.winner import log_winner
from imgcls.signals import GracefulStop
from imgcls.text import counted
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)


def check_can_be_confirmed(sweep: RunRecord) -> None:
    """Refuses a run that is not a sweep, and a sweep without a completed trial.

    Raises:
        InputError: naming the run and the remedy.
    """
    if sweep.kind != "sweep":
        raise InputError(f"run {sweep.run_id} is of kind {sweep.kind or 'unknown'}, not a sweep; name a sweep's run id")
    if not sweep.best_run_id:
        raise InputError(f"sweep {sweep.run_id} has no winner yet ({sweep.outcome}); let it end first")


def confirm(
    run: Run, tracker: Tracker, *, top: int, seeds: int, stop: GracefulStop, announces: bool = False
) -> Confirmation:
    """Trains the best configurations again, and makes the best of their means the sweep's winner.

    Fresh runs that exist already are not trained again, so a stopped confirmation goes on where it was.

    Args:
        run: the sweep, being written.
        tracker: where its trials are and the fresh runs go.
        top: configurations, the best first; where fewer were completed, all of them, and the log says so.
        seeds: fresh seeds for each, at least 1.
        stop: asked after each step.
        announces: say what images are found before the first of them is trained on.

    Raises:
        Interrupted: `stop` was requested; the same command goes on.
    """
    sweep = recorded_experiment(run.run_id, tracker)
    candidates = _best_trials(run.run_id, tracker, sweep, top)
    jobs = [job for trial in candidates for job in _jobs(trial, sweep, seeds, tracker)]
    done = {job: run_id for job in jobs if (run_id := _earlier(run.run_id, job, tracker))}
    missing = [job for job in jobs if job not in done]
    if not missing:
        log.info("all of this confirmation is on record (%s): nothing is trained", counted(len(jobs), "run"))
    elif announces:
        announce(_prepare(missing[0], tracker), tracker, runs=counted(len(missing), "run"))
    begun, pace = time.time(), Pace(len(done))
    for job in missing:
        done[job] = _train(run.run_id, job, _prepare(job, tracker), tracker, stop)
        if tracker.get(done[job]).started < 1000 * begun:  # taken up: its time now is only part of a run's
            pace = Pace(len(done))
        log.info("confirmed %d of %d runs, %s", len(done), len(jobs), pace.left(len(done), len(jobs)))
    result = rank_confirmed([
        Confirmed(trial, tuple(tracker.get(done[job]) for job in jobs if job.trial is trial), sweep.search.metric)
        for trial in candidates
    ])  # fmt: skip
    _record(run, result, tracker)
    return result


@dataclass(frozen=True, eq=False)
class _Job:
    """A fresh run of a trial's configuration.

    Attributes:
        trial: whose configuration it is.
        index: of the fresh seed, from 0.
        experiment: the configuration with that seed, scored at the trial's best epoch.
    """

    trial: RunRecord
    index: int
    experiment: Experiment

    @property
    def number(self) -> str:
        """The trial's."""
        return str(self.trial.trial)


def _best_trials(sweep_run_id: str, tracker: Tracker, sweep: Experiment, top: int) -> list[RunRecord]:
    """Completed trials of different configurations, the best first, ranked as the leaderboard is."""
    distinct: list[RunRecord] = []
    for record in ranked_trials(tracker.children(sweep_run_id, "trial"), sweep.search.metric):
        if all(record.tags[Tag.CONFIG_HASH] != other.tags[Tag.CONFIG_HASH] for other in distinct):
            distinct.append(record)
    if len(distinct) < top:
        log.warning(
            "%d configurations were asked for; only %d of the sweep completed, and each is confirmed",
            top,
            len(distinct),
        )
    return distinct[:top]


def _jobs(trial: RunRecord, sweep: Experiment, seeds: int, tracker: Tracker) -> list[_Job]:
    """The trial's configuration with the seeds that all configurations share.

    Raises:
        InputError: an earlier version trained the trial with a loss that fresh runs would not have.
    """
    experiment = recorded_experiment(trial.run_id, tracker)
    if difference := other_loss(trial, experiment):
        raise InputError(
            f"trial {trial.run_id} cannot be confirmed, because fresh runs would have another loss: {difference}; "
            "search again with this version (imgcls sweep)"
        )
    fixed = {"train.score_epoch": trial.best_epoch, "train.patience": 0}
    values = [fixed | {"train.seed": fresh_seed(sweep.search.seed, index)} for index in range(seeds)]
    return [_Job(trial, index, experiment.replace(v, origin="confirm")) for index, v in enumerate(values)]


def _earlier(sweep_run_id: str, job: _Job, tracker: Tracker) -> str | None:
    """The run of an earlier sitting that did this job."""
    tags = {
        Tag.PARENT: sweep_run_id,
        Tag.KIND: "confirm",
        Tag.OUTCOME: "completed",
        Tag.TRIAL: job.number,
    }
    wanted = {key: str(value) for key, value in job.experiment.params().items() if key.startswith("train.")}
    same = [record for record in tracker.find(tags) if wanted.items() <= record.params.items()]
    return same[0].run_id if same else None


def _prepare(job: _Job, tracker: Tracker) -> Prepared:
    return prepare(job.experiment, tracker.root, recorded_squares(job.trial))


def _train(sweep_run_id: str, job: _Job, prepared: Prepared, tracker: Tracker, stop: GracefulStop) -> str:
    done = train_run(
        prepared,
        tracker,
        kind="confirm",
        name=f"confirm trial {job.number}, fresh seed {job.index + 1}",
        parent=sweep_run_id,
        tags={Tag.TRIAL: job.number, Tag.STUDY: job.trial.study},
        stop=stop,
    )
    return done.run_id


def _record(run: Run, result: Confirmation, tracker: Tracker) -> None:
    best, recorded = result.winner, tracker.get(run.run_id)
    metrics = {
        MetricName.CONFIRM_MEAN: best.mean,
        MetricName.CONFIRM_OPTIMISM: result.optimism,
        MetricName.CONFIRM_BEST_TRIAL_MEAN: result.best_trial.mean,
        MetricName.CONFIRM_NUM_SEEDS: float(result.num_seeds),
        MetricName.CONFIRM_NUM_CONFIGURATIONS: float(len(result.ranked)),
    }
    if result.num_seeds > 1 or MetricName.CONFIRM_STD in recorded.metrics:
        metrics[MetricName.CONFIRM_STD] = best.std  # NaN of one seed takes the place of an earlier confirmation's
    tags = {
        Tag.CONFIRMED_RUN_ID: result.best_run_id,
        Tag.CONFIRMED_TRIALS: ",".join(str(confirmed.trial) for confirmed in result.ranked),
    }
    log_winner(run, recorded, best.runs[0], result.best_trial.found_by, metrics, tags)
