"""What a sweep leaves for people, from its record in MLflow alone: written when it ends, and again when confirmed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import pandas as pd

from imgcls.config import Experiment, load_experiment
from imgcls.evaluation.confirmation import Confirmation
from imgcls.evaluation.selection import Trials, selection_of
from imgcls.reporting import figures, html
from imgcls.reporting.report import leaderboard_intervals
from imgcls.reporting.statistics import NO_INTERVAL
from imgcls.run import CONFIG
from imgcls.search import space as spaces
from imgcls.search.report import confirmation_header, confirmation_rows, optimism_sentence, sweep_markdown
from imgcls.search.winner import BEST_TRIAL_RUN_ID
from imgcls.statistics.intervals import Interval
from imgcls.tracking.lookup import BEST_RUN
from imgcls.tracking.record import RunRecord
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

LEADERBOARD, IMPORTANCES = "report/leaderboard.csv", "report/importances.json"
IMPORTANCE_RANGES = "report/importance_ranges.json"
REPORT_MD, REPORT_HTML = "report/report.md", "report/report.html"

NUM_CURVES = 5
"""Trials whose curves are drawn over one another; more cannot be told apart."""


def write_report(run: Run, tracker: Tracker) -> str:
    """Writes `report.md`, `report.html` and the description that MLflow's UI shows.

    Args:
        run: the sweep, whose winner, leaderboard and importances are recorded already.
        tracker: where its record is.

    Returns:
        The report as Markdown.
    """
    sweep = tracker.get(run.run_id)
    with tracker.fetch(run.run_id, CONFIG) as path:
        experiment = load_experiment(path)
    board = pd.read_csv(io.StringIO(tracker.read_text(run.run_id, LEADERBOARD)))
    selection = selection_of(tracker.get(sweep.tags[BEST_RUN]), tracker, Trials.of_leaderboard(board))
    best_trial = tracker.get(sweep.tags[BEST_TRIAL_RUN_ID])
    importances = _recorded_importances(run.run_id, tracker)
    searched = {key: spaces.describe(options) for key, options in experiment.search.space.items()}
    markdown = sweep_markdown(sweep, selection, best_trial, board, searched, importances)
    pictures = _pictures(sweep, experiment, board, importances, tracker)
    run.log_text(REPORT_MD, markdown)
    run.log_text(REPORT_HTML, html.render(markdown, pictures, title=f"{sweep.experiment}: sweep"))
    run.describe(markdown)
    return markdown


def _recorded_importances(sweep_run_id: str, tracker: Tracker) -> dict[str, tuple[float, Interval]]:
    """Each key's share with its range; none for a sweep of an earlier version, which recorded no ranges."""
    if not tracker.has_artifact(sweep_run_id, IMPORTANCE_RANGES):
        return {}
    shares: dict[str, float] = json.loads(tracker.read_text(sweep_run_id, IMPORTANCES))
    ranges: dict[str, tuple[float, float]] = json.loads(tracker.read_text(sweep_run_id, IMPORTANCE_RANGES))
    return {key: (share, Interval(*ranges[key])) for key, share in shares.items()}


def _pictures(
    sweep: RunRecord, experiment: Experiment, board: pd.DataFrame,
    importances: Mapping[str, tuple[float, Interval]], tracker: Tracker,
) -> list[tuple[str, bytes]]:  # fmt: skip
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
            [of or NO_INTERVAL for of in leaderboard_intervals(completed, int(sweep.tags["imgcls.num_val"]))],
        )
    return [(caption, figures.save_png(figure)) for caption, figure in drawn.items()]


def _history(run_id: str, tracker: Tracker) -> pd.DataFrame:
    columns = {name: dict(tracker.history(run_id, name)) for name in ("val/accuracy", "val/loss")}
    return pd.DataFrame(columns).rename_axis("epoch").reset_index()


def as_text(confirmation: Confirmation) -> str:
    """The confirmation as a table for the shell, with no more digits than each mean supports."""
    table = pd.DataFrame(confirmation_rows(confirmation), columns=list(confirmation_header(confirmation)))
    return f"{table.to_string(index=False)}\n\n{optimism_sentence(confirmation)}"
