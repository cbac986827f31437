"""The leaderboard of a sweep: one row a trial, best first."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from imgcls.metrics import ACCURACY, LOSS, metric_named, reported
from imgcls.record import MetricName, ends_of

OUTCOMES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
"""Words for the states of trials that have ended, in the order of the leaderboard."""


def make_leaderboard(trials: Iterable[FrozenTrial], metric: str, *, has_groups: bool) -> pd.DataFrame:
    """One row for each trial that has ended, best first; pruned and failed ones behind, whatever their score.

    Args:
        trials: of one study.
        metric: that ranks them.
        has_groups: whether the val images come in groups, so that each accuracy has an interval of its own, as every
            other metric that ranks has; the ends are missing where no interval holds.
    """
    order, rank = list(OUTCOMES.values()), metric_named(metric).rank
    with_ends = [name for name in dict.fromkeys((ACCURACY.on_val, metric)) if has_groups or name != ACCURACY.on_val]
    scores = [*reported(metric), *(end for name in with_ends for end in ends_of(name))]
    rows = [_row(trial, scores) for trial in trials if trial.state.is_finished()]
    rows.sort(key=lambda r: (order.index(r["outcome"]), rank(r[metric] or 0.0), r[LOSS.on_val] or 0.0, r["trial"]))
    return pd.DataFrame(rows)


def _row(trial: FrozenTrial, scores: Iterable[str]) -> dict[str, Any]:
    attrs = trial.user_attrs
    return {
        "trial": trial.number, "outcome": OUTCOMES[trial.state],
        **{name: attrs.get(name) for name in scores},
        MetricName.BEST_EPOCH: attrs.get("best_epoch"), **trial.params, "run_id": attrs.get("run_id", ""),
    }  # fmt: skip
