"""The winner's luck: a sweep's best configurations trained again with fresh seeds, at an epoch fixed beforehand.

The best of many trials is partly the luckiest. What of its score stays when the seed changes is its confirmed mean;
what goes is its optimism. The luck of the val images stays in both, and only the test split is free of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from imgcls.config import Experiment, load_experiment
from imgcls.earlier import other_loss, recorded_squares
from imgcls.errors import InputError
from imgcls.evaluation.confirmation import (
    CONFIRMED_TRIALS,
    Confirmation,
    Confirmed,
    fresh_seed,
    rank_confirmed,
    ranked_trials,
)
from imgcls.progress import Pace
from imgcls.run import CONFIG, Prepared, announce, prepare, train_run
from imgcls.search.winner import CONFIRMED_RUN_ID, log_latest, scores_of_best_trial, scores_of_winner, tags_of
from imgcls.shown import counted
from imgcls.signals import GracefulStop
from imgcls.tracking.record import RunRecord
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
    for trial in candidates:
        _refuse_another_loss(trial, tracker)
    jobs = [(trial, index) for trial in candidates for index in range(seeds)]
    done, missing = {}, []
    for trial, index in jobs:
        experiment = _with_fresh_seed(trial, index, sweep, tracker)
        if run_id := _earlier(run.run_id, trial, experiment, tracker):
            done[trial.run_id, index] = run_id
        else:
            missing.append((trial, index, experiment))
    if not missing:
        log.info("all of this confirmation is on record (%s): nothing is trained", counted(len(jobs), "run"))
    begun, pace = time.time(), Pace(len(done))
    for trial, index, experiment in missing:
        prepared = prepare(experiment, root, recorded_squares(trial))
        if announces and experiment is missing[0][2]:
            announce(prepared, tracker, runs=counted(len(missing), "run"))
        run_id = _train(run.run_id, trial, index, prepared, tracker, stop)
        done[trial.run_id, index] = run_id
        if tracker.get(run_id).started < 1000 * begun:  # taken up: its time now says nothing of a whole run's
            pace = Pace(len(done))
        log.info("confirmed %d of %d runs, %s", len(done), len(jobs), pace.left(len(done), len(jobs)))
    result = _conclude(candidates, done, sweep, seeds, tracker)
    _record(run, result, tracker)
    return result


def _best_trials(sweep_run_id: str, tracker: Tracker, sweep: Experiment, top: int) -> list[RunRecord]:
    """Completed trials of different configurations, the best first, ranked as the leaderboard is."""
    distinct: list[RunRecord] = []
    for record in ranked_trials(tracker.children(sweep_run_id, "trial"), sweep.search.metric):
        if all(record.tags["imgcls.config_hash"] != other.tags["imgcls.config_hash"] for other in distinct):
            distinct.append(record)
    if len(distinct) < top:
        log.warning(
            "%d configurations were asked for; only %d of the sweep completed, and each is confirmed",
            top,
            len(distinct),
        )
    return distinct[:top]


def _refuse_another_loss(trial: RunRecord, tracker: Tracker) -> None:
    with tracker.fetch(trial.run_id, CONFIG) as path:
        difference = other_loss(trial, load_experiment(path))
    if difference:
        raise InputError(
            f"trial {trial.run_id} cannot be confirmed, because fresh runs would have another loss: {difference}; "
            "search again with this version (imgcls sweep)"
        )


def _with_fresh_seed(trial: RunRecord, index: int, sweep: Experiment, tracker: Tracker) -> Experiment:
    """The trial's configuration with the seed that all configurations share, scored at the trial's best epoch."""
    with tracker.fetch(trial.run_id, CONFIG) as path:
        experiment = load_experiment(path)
    seed = fresh_seed(sweep.search.seed, index)
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
    return rank_confirmed(
        [
            Confirmed(
                found_by=trial,
                runs=tuple(tracker.get(done[trial.run_id, index]) for index in range(seeds)),
                metric=sweep.search.metric,
            )
            for trial in candidates
        ]
    )


def _record(run: Run, result: Confirmation, tracker: Tracker) -> None:
    """What was confirmed, and the winner's own scores in place of those of the trial that was the winner."""
    best, recorded = result.winner, tracker.get(run.run_id)
    metrics = {
        "confirm/mean": best.mean,
        "confirm/optimism": result.optimism,
        "confirm/best_trial_mean": result.best_trial.mean,
        "confirm/num_seeds": float(result.num_seeds),
        "confirm/num_configurations": float(len(result.ranked)),
    }
    if result.num_seeds > 1 or "confirm/std" in recorded.metrics:
        metrics["confirm/std"] = best.std  # NaN of one seed takes the place of an earlier confirmation's
    tags = {
        **tags_of(best.runs[0], result.best_trial.found_by.run_id),
        CONFIRMED_RUN_ID: result.best_run_id,
        CONFIRMED_TRIALS: ",".join(str(confirmed.trial) for confirmed in result.ranked),
    }
    metrics |= scores_of_winner(best.runs[0]) | scores_of_best_trial(result.best_trial.found_by)
    log_latest(run, recorded, metrics, tags)
