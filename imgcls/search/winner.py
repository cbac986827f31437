"""The winner of a sweep, as the sweep's own record names it: its id, its own scores beside it, and its pictures."""

import logging
import math
from collections.abc import Mapping

from imgcls.config.keys import Experiment
from imgcls.record import BEST_TRIAL, CONFIRM, Artifact, MetricName, Tag
from imgcls.reporting.cautions import caution_tags, flat_cautions
from imgcls.reporting.drawing import pictures_of
from imgcls.run_record import RunRecord
from imgcls.runs.rebuild import rebuild
from imgcls.runs.val_figures import LAST_FIGURE, write_val_figures
from imgcls.stored_names import BEST
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)


def flat(sweep: RunRecord) -> dict[str, object]:
    """The winner of a sweep, and its best trial, under the record's names, for programs.

    `best/...` is of the run `imgcls.best_run_id`, `best_trial/...` of `imgcls.best_trial_run_id`; `confirm/...` is
    there where a confirmation chose the winner. `imgcls.num_trials_wanted` is larger than `num_trials` where the sweep
    ended before it had them all; sweeps of earlier versions do not have it.
    """
    is_confirmed = sweep.confirmed_run_id == sweep.best_run_id
    prefixes = (MetricName.NUM_TRIALS, BEST, BEST_TRIAL, *((CONFIRM,) if is_confirmed else ()))
    return {
        "run_id": sweep.run_id,
        **{name: sweep.tags[name] for name in (Tag.BEST_RUN_ID, Tag.BEST_TRIAL_RUN_ID)},
        **({Tag.NUM_TRIALS_WANTED: wanted} if (wanted := sweep.num_trials_wanted) else {}),
        **{name: sweep.tags[name] for name in (Tag.WARM_START_RUN_ID, Tag.WARM_START_TRIALS) if name in sweep.tags},
        **({Tag.NUM_EARLIER_TRIALS: sweep.num_earlier_trials} if Tag.NUM_EARLIER_TRIALS in sweep.tags else {}),
        **{
            name: _as_counted(name, value)
            for name, value in sweep.metrics.items()
            if name.startswith(prefixes) and not math.isnan(value)
        },
        **flat_cautions(sweep.tags),
    }


def _as_counted(name: str, value: float) -> float | int:
    """MLflow holds counts as floats."""
    return int(value) if name.endswith("/epoch") or name.rpartition("/")[2].startswith("num_") else value


def draw_winner(winner: RunRecord, experiment: Experiment, tracker: Tracker) -> RunRecord:
    """Draws the winner's pictures on val into its own record, unless they are all there or none are asked for.

    A sweep that was killed while it drew them begins with them again.

    Args:
        winner: of a sweep.
        experiment: of the sweep.
        tracker: where it is.

    Returns:
        The winner's record after that.
    """
    if experiment.report.figures == "none" or tracker.has_artifact(winner.run_id, LAST_FIGURE):
        return winner
    if not tracker.has_artifact(winner.run_id, Artifact.BEST):
        log.warning("run %s has no %s, so it gets no pictures", winner.run_id, Artifact.BEST)
        return winner
    with pictures_of(winner.run_id):
        write_val_figures(tracker.amend(winner.run_id), rebuild(winner, tracker).as_scored(winner), tracker)
    return tracker.get(winner.run_id)


def log_winner(
    run: Run,
    recorded: RunRecord,
    winner: RunRecord,
    best_trial: RunRecord,
    metrics: Mapping[str, float],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Names a sweep's winner and its best trial, and repeats their scores beside their ids.

    What may be replaced later gets a point for each change, and none where nothing changed: MLflow shows the latest
    one, so each is of the time at which it became true. What is said beside the scores is taken from the winner: it may
    have been trained after images were opened that nobody had seen when the sweep began.

    Args:
        run: the sweep.
        recorded: what its record says now.
        winner: the run whose scores become the sweep's `best/...`.
        best_trial: the trial whose scores become the sweep's `best_trial/...`.
        metrics: further ones, name -> value.
        tags: further ones, name -> value.
    """
    ids = {Tag.BEST_RUN_ID: winner.run_id, Tag.BEST_TRIAL_RUN_ID: best_trial.run_id}
    scores = {**metrics, **_scores(BEST, winner), **_scores(BEST_TRIAL, best_trial)}
    changed = {name: value for name, value in scores.items() if str(recorded.metrics.get(name)) != str(value)}
    run.log_metrics(changed, tags={**ids, **caution_tags(winner.tags), **(tags or {})})


def _scores(prefix: str, run: RunRecord) -> dict[str, float]:
    return {prefix + name.removeprefix(BEST): value for name, value in run.metrics.items() if name.startswith(BEST)}
