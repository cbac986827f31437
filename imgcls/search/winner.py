"""The winner of a sweep, as the sweep's own record names it: its id, and its own scores beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from imgcls.reporting.cautions import caution_tags
from imgcls.reporting.cautions import flat as flat_cautions
from imgcls.tracking.lookup import BEST_RUN
from imgcls.tracking.record import RunRecord
from imgcls.tracking.run import Run

CONFIRMED_RUN_ID = "imgcls.confirmed_run_id"
"""Tag of a sweep: the winner of its latest confirmation, of whose configuration the sweep's `confirm/mean` is."""

BEST_TRIAL_RUN_ID = "imgcls.best_trial_run_id"
"""Tag of a sweep: the trial that val ranked first. The sweep's `best_trial/...` metrics are this run's."""

SCORES = ("epoch", "val/accuracy", "val/accuracy_low", "val/accuracy_high", "val/loss")
"""What a sweep repeats of its winner, and of its best trial, where they have it."""


def scores_of_winner(winner: RunRecord) -> dict[str, float]:
    """The sweep's metrics `best/...`, from the run that `imgcls.best_run_id` names."""
    return {f"best/{name}": value for name, value in _scores(winner).items()}


def scores_of_best_trial(trial: RunRecord) -> dict[str, float]:
    """The sweep's metrics `best_trial/...`, from the run that `imgcls.best_trial_run_id` names."""
    return {f"best_trial/{name}": value for name, value in _scores(trial).items()}


def _scores(run: RunRecord) -> dict[str, float]:
    return {name: run.metrics[f"best/{name}"] for name in SCORES if f"best/{name}" in run.metrics}


def tags_of(winner: RunRecord, best_trial_run_id: str) -> dict[str, str]:
    """The sweep's tags that name the runs whose scores it repeats, and what is to be said beside the winner's.

    The winner may have been trained after images were opened that nobody had seen when the sweep began.
    """
    return {BEST_RUN: winner.run_id, BEST_TRIAL_RUN_ID: best_trial_run_id, **caution_tags(winner.tags)}


def flat(sweep: RunRecord) -> dict[str, object]:
    """A sweep that has ended, under the record's names, for programs.

    `best/...` is of the run `imgcls.best_run_id`, `best_trial/...` of `imgcls.best_trial_run_id`; `confirm/...` is
    there where a confirmation chose the winner.
    """
    is_confirmed = sweep.tags.get(CONFIRMED_RUN_ID) == sweep.tags[BEST_RUN]
    prefixes = ("num_trials", "best/", "best_trial/", *(("confirm/",) if is_confirmed else ()))
    return {
        "run_id": sweep.run_id,
        **{name: sweep.tags[name] for name in (BEST_RUN, BEST_TRIAL_RUN_ID)},
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


def log_latest(run: Run, recorded: RunRecord, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Logs metrics that may be replaced later: a point for each change, and none where nothing changed.

    MLflow shows the latest point, so each one is of the time at which it became true.

    Args:
        run: the sweep.
        recorded: what its record says now.
        metrics: name -> value.
        tags: name -> value.
    """
    changed = {name: value for name, value in metrics.items() if str(recorded.metrics.get(name)) != str(value)}
    run.log_metrics(changed, tags=tags)
