"""The report of a sweep, from its record in MLflow alone: written when it ends, and again when it is confirmed."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from imgcls.config import Experiment, load_experiment
from imgcls.reporting import figures, html
from imgcls.reporting.cautions import cautions
from imgcls.reporting.report import Confirmed as ConfirmedRow
from imgcls.reporting.report import SweepFacts, sweep_markdown
from imgcls.reporting.statistics import Interval, accuracy_interval, ends, mean_interval, rounded
from imgcls.run import CONFIG
from imgcls.search import space as spaces
from imgcls.search.confirm import Confirmation, Confirmed
from imgcls.tracking.record import RunRecord
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

LEADERBOARD, IMPORTANCES = "report/leaderboard.csv", "report/importances.json"
REPORT_MD, REPORT_HTML = "report/report.md", "report/report.html"

NUM_CURVES = 5
"""Trials whose curves are drawn over one another; more cannot be told apart."""


def write_report(run: Run, tracker: Tracker, confirmation: Confirmation | None = None) -> str:
    """Writes `report.md`, `report.html` and the description that MLflow's UI shows.

    Args:
        run: the sweep, whose leaderboard and importances are recorded already.
        tracker: where its record is.
        confirmation: of its best configurations, where there is one.

    Returns:
        The report as Markdown.
    """
    sweep = tracker.get(run.run_id)
    with tracker.fetch(run.run_id, CONFIG) as path:
        experiment = load_experiment(path)
    board = pd.read_csv(io.StringIO(tracker.read_text(run.run_id, LEADERBOARD)))
    importances: dict[str, float] = json.loads(tracker.read_text(run.run_id, IMPORTANCES))
    markdown = sweep_markdown(_facts(sweep, experiment, board, importances, confirmation))
    pictures = _pictures(sweep, experiment, board, importances, tracker)
    run.log_text(REPORT_MD, markdown)
    run.log_text(REPORT_HTML, html.render(markdown, pictures, title=f"{sweep.experiment}: sweep"))
    run.describe(markdown)
    return markdown


def evaluate_command(run_id: str) -> str:
    """The line that opens the test split for a run."""
    return f"python evaluate.py --run-id {run_id}"


def confirmed_rows(confirmation: Confirmation) -> list[ConfirmedRow]:
    """The configurations with their intervals over the seeds, each paired by seed with the best one."""
    best = confirmation.winner
    return [_confirmed_row(confirmed, best) for confirmed in confirmation.ranked]


def _confirmed_row(confirmed: Confirmed, best: Confirmed) -> ConfirmedRow:
    differences = [mine - theirs for mine, theirs in zip(confirmed.values, best.values, strict=True)]
    is_best, several = confirmed is best, len(confirmed.values) > 1
    return ConfirmedRow(
        trial=confirmed.trial,
        epoch=confirmed.epoch,
        mean=confirmed.mean,
        std=confirmed.std,
        num_seeds=len(confirmed.values),
        interval=mean_interval(confirmed.values) if several else None,
        difference=None if is_best else confirmed.mean - best.mean,
        difference_interval=None if is_best or not several else mean_interval(differences),
    )


def _facts(
    sweep: RunRecord,
    experiment: Experiment,
    board: pd.DataFrame,
    importances: Mapping[str, float],
    confirmation: Confirmation | None,
) -> SweepFacts:
    metric = experiment.search.metric
    best_run_id = sweep.tags["imgcls.best_run_id"]
    return SweepFacts(
        name=sweep.tags["imgcls.study"],
        run_id=sweep.run_id,
        num_trials=len(board),
        outcomes=dict(Counter(board["outcome"])),
        metric=metric,
        leaderboard=board,
        best_run_id=best_run_id,
        best_value=float(board.iloc[0][metric]),
        searched={key: spaces.describe(options) for key, options in experiment.search.space.items()},
        evaluate_command=evaluate_command(best_run_id),
        num_val=int(sweep.tags["imgcls.num_val"]),
        importances=importances,
        confirmation=confirmed_rows(confirmation) if confirmation else (),
        optimism=confirmation.optimism if confirmation else None,
        cautions=cautions(sweep.tags),
    )


def _pictures(
    sweep: RunRecord, experiment: Experiment, board: pd.DataFrame, importances: Mapping[str, float], tracker: Tracker
) -> list[tuple[str, bytes]]:
    metric = experiment.search.metric
    completed = board[board["outcome"] == "completed"]
    drawn = {
        "What each trial reached": figures.search_history(
            board["trial"].tolist(), board[metric].astype(float).tolist(), board["outcome"].tolist(), metric
        ),
        "What mattered": figures.importances(importances),
        "The best trials on val": figures.overlaid_curves(
            {f"trial {row.trial}": _history(str(row.run_id), tracker) for row in completed[:NUM_CURVES].itertuples()}
        ),
    }
    if metric == "val/accuracy":
        drawn["Which trials can be told apart"] = figures.leaderboard_intervals(
            [f"trial {number}" for number in completed["trial"]],
            completed[metric].tolist(),
            [accuracy_interval(value, int(sweep.tags["imgcls.num_val"])) for value in completed[metric]],
        )
    return [(caption, figures.save_png(figure)) for caption, figure in drawn.items()]


def _history(run_id: str, tracker: Tracker) -> pd.DataFrame:
    columns = {name: dict(tracker.history(run_id, name)) for name in ("val/accuracy", "val/loss")}
    return pd.DataFrame(columns).rename_axis("epoch").reset_index()


def as_text(confirmation: Confirmation) -> str:
    """The confirmation as a table for the shell, with no more digits than each mean supports."""
    rows, best = [], confirmation.best_trial
    for row in confirmed_rows(confirmation):
        digits = row.interval or Interval(row.mean, row.mean)
        behind = "" if row.difference is None else rounded(row.difference, row.difference_interval or digits)
        std = "" if math.isnan(row.std) else f" ± {rounded(row.std, digits)}"
        rows.append({
            "trial": row.trial, "epoch": row.epoch, "seeds": row.num_seeds,
            confirmation.metric: f"{rounded(row.mean, digits)}{std}",
            "95% interval": _shown_ends(row.interval),
            "minus the best": behind,
            "95% interval of it": _shown_ends(row.difference_interval),
        })  # fmt: skip
    digits = mean_interval(best.values) if len(best.values) > 1 else Interval(best.mean, best.mean)
    return (
        f"{pd.DataFrame(rows).to_string(index=False)}\n\n"
        f"Optimism {rounded(confirmation.optimism, digits)}: the {confirmation.metric} of the best trial "
        f"({best.trial}), minus its configuration's confirmed mean"
    )


def _shown_ends(interval: Interval | None) -> str:
    return ends(interval) if interval else ""
