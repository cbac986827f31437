"""The leaderboard of a sweep: one row a trial, best first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from imgcls.record import MetricName
from imgcls.reporting.run_scores import INTERVAL_COLUMNS

OUTCOMES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
"""Words for the states of trials that have ended, in the order of the leaderboard."""


def make_leaderboard(trials: Iterable[FrozenTrial], metric: str, *, has_groups: bool) -> pd.DataFrame:
    """One row for each trial that has ended, best first; pruned and failed ones behind, whatever their score.

    Args:
        trials: of one study.
        metric: that ranks them.
        has_groups: whether the val images come in groups, so that each accuracy has an interval of its own; its ends
            are NaN where there are too few groups for one.
    """
    order, sign = list(OUTCOMES.values()), 1 if metric == "val/loss" else -1
    rows = [_row(trial, has_groups=has_groups) for trial in trials if trial.state.is_finished()]
    rows.sort(key=lambda r: (order.index(r["outcome"]), sign * (r[metric] or 0.0), r["val/loss"] or 0.0, r["trial"]))
    return pd.DataFrame(rows)


def _row(trial: FrozenTrial, *, has_groups: bool) -> dict[str, Any]:
    attrs = trial.user_attrs
    return {
        "trial": trial.number, "outcome": OUTCOMES[trial.state],
        "val/accuracy": attrs.get("val/accuracy"), "val/loss": attrs.get("val/loss"),
        **{column: attrs.get(column, math.nan) for column in INTERVAL_COLUMNS if has_groups},
        MetricName.BEST_EPOCH: attrs.get("best_epoch"), **trial.params, "run_id": attrs.get("run_id", ""),
    }  # fmt: skip
