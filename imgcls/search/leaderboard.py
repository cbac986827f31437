"""The leaderboard of a sweep: one row a trial, best first; its scores with their intervals."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from imgcls.metrics import ACCURACY, BY_NAME, LOSS, metric_named, reported
from imgcls.record import MetricName, ends_of
from imgcls.reporting.rounding import score_text
from imgcls.reporting.tables import shown
from imgcls.search.promotion import is_paused
from imgcls.statistics.intervals import Interval, accuracy_interval
from imgcls.stored_names import stored_name

OUTCOMES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
"""Words for the states of trials that have ended."""

ORDER = ("completed", "paused", "pruned", "failed")
"""Outcomes of trials in the order of the leaderboard."""


def make_leaderboard(trials: Iterable[FrozenTrial], metric: str, *, has_groups: bool) -> pd.DataFrame:
    """Makes the leaderboard of a sweep: a row for each trial that has ended or is paused, completed ones first.

    Args:
        trials: of one study.
        metric: that ranks them.
        has_groups: whether the val images come in groups, so that each accuracy has an interval of its own, as every
            other metric that ranks has; the ends are missing where no interval holds.
    """
    rank = metric_named(metric).rank
    with_ends = [name for name in dict.fromkeys((ACCURACY.on_val, metric)) if has_groups or name != ACCURACY.on_val]
    scores = [*reported(metric), *(end for name in with_ends for end in ends_of(name))]
    rows = [_row(trial, scores) for trial in trials if trial.state.is_finished() or is_paused(trial)]
    rows.sort(key=lambda r: (ORDER.index(r["outcome"]), rank(r[metric] or 0.0), r[LOSS.on_val] or 0.0, r["trial"]))
    return pd.DataFrame(rows)


def _row(trial: FrozenTrial, scores: Iterable[str]) -> dict[str, Any]:
    attrs = trial.user_attrs
    return {
        "trial": trial.number, "outcome": "paused" if is_paused(trial) else OUTCOMES[trial.state],
        **{name: attrs.get(name) for name in scores},
        MetricName.BEST_EPOCH: attrs.get(stored_name(MetricName.BEST_EPOCH)),
        **trial.params, "run_id": attrs.get("run_id", ""),
    }  # fmt: skip


def leaderboard_intervals(leaderboard: pd.DataFrame, metric: str, num_val: int) -> list[Interval | None]:
    """The leaderboard's 95% intervals, one a trial, or None; an accuracy has `NO_INTERVAL` in too few groups.

    Args:
        leaderboard: a row a trial. The ends of an interval are in columns such as `val/loss_low` and `val/loss_high`;
            without them an accuracy has Wilson's.
        metric: such as `val/accuracy`, which is a column.
        num_val: images behind its scores.
    """
    low, high = ends_of(metric)
    is_accuracy = metric == ACCURACY.on_val

    def interval(trial: Mapping[Any, float]) -> Interval | None:
        if math.isnan(trial[metric]):
            return None
        if not {low, high} <= trial.keys():
            return accuracy_interval(trial[metric], num_val) if is_accuracy else None
        found = Interval(trial[low], trial[high])
        return None if math.isnan(found.low) and not is_accuracy else found

    columns = leaderboard.columns.intersection([metric, low, high])
    return [interval(trial) for trial in leaderboard[columns].astype(float).to_dict("records")]


def with_intervals(leaderboard: pd.DataFrame, num_val: int) -> pd.DataFrame:
    """The leaderboard with its scores in words: each with its interval, or with the digits of the accuracy's.

    Args:
        leaderboard: as in `leaderboard_intervals`, with any further columns.
        num_val: images behind its scores.
    """
    metrics = [name for name in BY_NAME if name in leaderboard]
    if ACCURACY.on_val not in metrics:
        return leaderboard
    ends = [end for name in metrics for end in ends_of(name)]
    board = leaderboard.drop(columns=ends, errors="ignore").astype(object)
    of_accuracy = leaderboard_intervals(leaderboard, ACCURACY.on_val, num_val)
    for name in metrics:
        own = leaderboard_intervals(leaderboard, name, num_val)
        cells = zip(leaderboard[name], own, of_accuracy, strict=True)
        board[name] = [shown(value) if of is None else score_text(value, one, of) for value, one, of in cells]
    return board
