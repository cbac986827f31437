"""The report of a sweep, from its record, its winner's and its trials'; every score in it is of validation."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from imgcls.config.keys import Experiment
from imgcls.evaluation.confirmation import Confirmation, confirmation_table, mean_words, optimism_sentence
from imgcls.evaluation.selection import Selection, Trials, selection_of, story
from imgcls.metrics import ACCURACY, metric_named
from imgcls.record import Artifact, Tag
from imgcls.reporting import html, training_figures
from imgcls.reporting.cautions import cautions, warned
from imgcls.reporting.drawing import pictures_of, save_png
from imgcls.reporting.methods_section import methods, model_words, split_words
from imgcls.reporting.report import Headline, Link, Picture, Report, Section, markdown
from imgcls.reporting.run_links import run_link, within_ui
from imgcls.reporting.run_scores import history_table, val_number, val_score
from imgcls.reporting.tables import escaped, frame_table, markdown_table, shell
from imgcls.reporting.where_to_look import fetch_config
from imgcls.run_record import RunRecord
from imgcls.runs.rebuild import recorded_experiment
from imgcls.runs.val_sections import val_sections
from imgcls.search import space as spaces
from imgcls.search.leaderboard import leaderboard_intervals, with_intervals
from imgcls.search.search_page import importance_words
from imgcls.search.warm_start import WarmStart
from imgcls.search.workers import order_matters
from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.text import counted
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker


@dataclass(frozen=True)
class SweepFacts:
    """What the report of a sweep is made from.

    Attributes:
        sweep: its own record.
        selection: of its winner.
        best_trial: that val ranked first.
        leaderboard: a row per trial, best first; any columns.
        searched: dotted key -> its range in words.
        importances: dotted key -> its share of the metric's variation, and the range of that; empty where unknown.
        pictures: caption -> figure, of the search.
        links: to the runs.
        on_val: sections on what the winner gets wrong.
        warm_start: paragraphs on the earlier sweep from which it started.
    """

    sweep: RunRecord
    selection: Selection
    best_trial: RunRecord
    leaderboard: pd.DataFrame
    searched: Mapping[str, str]
    importances: Mapping[str, tuple[float, Interval]]
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    links: Sequence[Link] = ()
    on_val: Sequence[Section] = ()
    warm_start: Sequence[str] = ()


def sweep_report(of: SweepFacts) -> Report:
    """The sweep report: what to show as a page and as Markdown."""
    sweep, selection = of.sweep, of.selection
    searched = (
        f"Run `{sweep.run_id}` searched for the best `{selection.metric}` in {selection.searched}. They were "
        "compared on val alone."
        + (" The same `imgcls sweep` goes on with the trials that are missing." if selection.missing_trials else "")
    )
    sections = [
        Section("Winner", [searched, *of.warm_start, *_winner(sweep, selection), *of.links]),
        *_confirmation(sweep, selection),
        *of.on_val,
        Section("Trials", [*_leaderboard(sweep, selection, of.leaderboard), *_pictures_of(of, TRIALS)]),
        Section("Searched", [*_searched(of), *_pictures_of(of, (IMPORTANCES,)), SEARCH_PAGE]),
        Section(
            "For a methods section",
            [warned(_methods(sweep, selection, of.best_trial, of.searched), cautions(sweep.tags))],
        ),
        Section(
            "How to repeat it",
            [
                "The sweep left its whole configuration, which feeds a new sweep as it is:",
                shell(fetch_config(sweep.run_id)),
                *_by_several_workers(sweep),
            ],
        ),
    ]  # fmt: skip
    return Report(f"{sweep.study}: sweep", _headline(sweep, selection), sections)


def _by_several_workers(sweep: RunRecord) -> list[str]:
    if sweep.num_workers == 1:
        return []
    matters = order_matters(sweep.params.get("search.sampler", "tpe"), sweep.params.get("search.pruner", "median"))
    where = " of a Ray cluster" if sweep.engine == "ray" else ""
    return [f"It was trained by {sweep.num_workers} workers{where}: {matters}."]


def _searched(of: SweepFacts) -> list[str]:
    return [
        markdown_table(("key", "range"), of.searched.items()),
        *importance_words(of.importances, of.sweep.compared_after),
    ]


def _pictures_of(of: SweepFacts, captions: Sequence[str]) -> list[Picture]:
    return [of.pictures[caption] for caption in captions if caption in of.pictures]


def _headline(sweep: RunRecord, selection: Selection) -> Headline:
    winner, metric = selection.run, metric_named(selection.metric)
    number, interval = val_number(winner, selection.metric)
    chosen = selection.chosen or selection.chosen_by_other_scores
    optimistic = f" The same images selected {chosen}, so it is optimistic." if chosen else ""
    return Headline(
        number,
        interval,
        f"{metric.words} on {sweep.num_val} validation images, of the winner of {_num_trials(selection)}.{optimistic}",
        " ".join(cautions(sweep.tags)),
    )


def _num_trials(selection: Selection) -> str:
    return selection.searched if selection.missing_trials else selection.compared


SEARCH_PAGE = f"`{Artifact.PLOTS}` of the sweep shows each key by itself, and all of them at once."
"""Where the sweep report sends readers who want to see the values."""


def evaluate_command(run_id: str) -> str:
    """The sweep report's command that opens the test split for the winner."""
    return f"imgcls evaluate {run_id}"


def _winner(sweep: RunRecord, selection: Selection) -> tuple[str, ...]:
    winner = selection.run
    won = (
        f"Run `{winner.run_id}` with `{selection.metric}` {val_score(winner, selection.metric)} at epoch "
        f"{winner.best_epoch}. {' '.join(story(selection))}"
    )
    return (
        warned(won, cautions(sweep.tags)),
        "This opens the test split for it:",
        shell(evaluate_command(winner.run_id)),
        *_outdated_confirmation(sweep, selection),
    )


def _current_confirmation(selection: Selection) -> Confirmation | None:
    """The latest one, where its winner still is the sweep's."""
    return selection.confirmation if selection.place_of_mean is not None else None


def _confirmation(sweep: RunRecord, selection: Selection) -> list[Section]:
    confirmation = _current_confirmation(selection)
    if confirmation is None:
        return []
    blocks = [
        frame_table(confirmation_table(confirmation)),
        "Each epoch was fixed beforehand by the trial that found the configuration, since choosing it again in each "
        "run would bias these scores upwards. Intervals are of the mean over seeds; differences are paired by seed.",
        optimism_sentence(confirmation),
        warned(
            "Fresh seeds do not remove the luck of the val images, which selected these configurations.",
            cautions(sweep.tags),
        ),
    ]
    return [Section("Confirmation with fresh seeds", blocks)]


def _outdated_confirmation(sweep: RunRecord, selection: Selection) -> tuple[str, ...]:
    latest = selection.confirmation
    if latest is None or _current_confirmation(selection) is not None:
        return ()
    trials = ", ".join(str(confirmed.trial) for confirmed in latest.ranked)
    return (
        f"An earlier confirmation compared trials {trials}. A better trial has come since and is not confirmed:",
        shell(f"imgcls confirm {sweep.run_id}"),
    )


def _leaderboard(sweep: RunRecord, selection: Selection, board: pd.DataFrame) -> tuple[str, ...]:
    num_val = sweep.num_val
    first = "put the first row first" if _current_confirmation(selection) else "selected the first row too"
    method = "Wilson's 95% interval"
    if groups := sweep.tags.get(Tag.NUM_VAL_GROUPS):
        method = f"95% intervals that count {groups} groups, not images, as independent,"
    metric = metric_named(selection.metric)
    own = f" The interval of the {metric.words}: {metric.method}." if metric is not ACCURACY and metric.method else ""
    note = (
        f"Accuracies with {method} over {num_val} val images.{own} Each score is that of "
        f"{_which_epoch(sweep)}, and it {first}."
    )
    return frame_table(with_intervals(board, num_val)), warned(note, cautions(sweep.tags))


STARTED_WARM = "The search started from the best configurations of an earlier one."
"""What the methods paragraph of a sweep report says of a warm start; the number of trials says the rest."""


def _which_epoch(sweep: RunRecord) -> str:
    return "its best epoch" if sweep.params.get("train.score_epoch", "0") == "0" else "an epoch fixed beforehand"


def _methods(sweep: RunRecord, selection: Selection, best_trial: RunRecord, searched: Mapping[str, str]) -> str:
    """One paragraph that reads without the rest of the report."""
    winner, metric, confirmation = selection.run, selection.metric, _current_confirmation(selection)
    ranges = "; ".join(f"{key}: {words}" for key, words in searched.items())
    return " ".join(
        (
            f"The configuration was searched by {metric.removeprefix('val/')} on {sweep.num_val} "
            f"validation images in {_num_trials(selection)} ({escaped(ranges)}), each scored at {_which_epoch(sweep)}. "
            f"The best of them, trial {best_trial.trial}, reached {val_score(best_trial, metric)}; "
            "measured on the images that selected, it is optimistic.",
            *([_confirmed_in_words(confirmation)] if confirmation else []),
            f"The winner is run {winner.run_id} ({escaped(model_words(winner))}; {escaped(split_words(winner))}).",
            *map(escaped, methods(winner)),
            *([STARTED_WARM] if Tag.WARM_START_RUN_ID in sweep.tags else []),
            "The sweep did not open the test split.",
        )
    )


def _confirmed_in_words(confirmation: Confirmation) -> str:
    num, seeds = len(confirmation.ranked), counted(confirmation.num_seeds, "fresh seed")
    what = "The best configuration was" if num == 1 else f"The best {num} configurations were"
    score = "mean" if confirmation.num_seeds > 1 else "score"
    return (
        f"{what} trained again with {seeds} at an epoch fixed beforehand; that of trial {confirmation.winner.trial} "
        f"had the best {score}, {mean_words(confirmation.winner)}, and its first seed is the winner."
    )


NUM_CURVES = 5
"""Number of trials whose curves are drawn over one another; more cannot be told apart."""


def write_report(run: Run, tracker: Tracker, winner: RunRecord, best_trial: RunRecord) -> None:
    """Writes the sweep report, `report.md`, `report.html` and the description that MLflow's UI shows.

    Args:
        run: the sweep, whose winner, leaderboard and importances are recorded already.
        tracker: where its record is.
        winner: of the sweep.
        best_trial: that val ranked first.
    """
    sweep = tracker.get(run.run_id)
    experiment = recorded_experiment(run.run_id, tracker)
    board = pd.read_csv(io.StringIO(tracker.read_text(run.run_id, Artifact.LEADERBOARD)))
    selection = selection_of(winner, tracker, Trials.of_leaderboard(board))
    importances = _recorded_importances(run.run_id, tracker)
    searched = {key: spaces.describe(options) for key, options in experiment.search.space.items()}
    pictures: dict[str, Picture] = {}
    with pictures_of(run.run_id):
        pictures = _pictures(sweep, experiment, board, importances, tracker)
    report = sweep_report(
        SweepFacts(
            sweep, selection, best_trial, board, searched, importances,
            pictures=pictures,
            links=[run_link("The winner", winner, tracker), run_link("The sweep", sweep, tracker)],
            on_val=val_sections(winner, tracker),
            warm_start=[" ".join(warm.in_words())] if (warm := WarmStart.recorded(run.run_id, tracker)) else [],
        )
    )  # fmt: skip
    run.log_text(Artifact.REPORT, markdown(*report))
    run.log_text(Artifact.REPORT_HTML, html.page(*report))
    text = markdown("", None, report.sections)
    run.describe(f"{_result(selection)}\n\n{within_ui(text, tracker)}")


def _result(selection: Selection) -> str:
    """The first line of the sweep report as MLflow's UI shows it, where a description is cut off after a few lines."""
    winner, metric = selection.run, selection.metric
    return f"{metric} **{val_score(winner, metric)}** of run `{winner.run_id}`, the winner of {selection.searched}."


def _recorded_importances(sweep_run_id: str, tracker: Tracker) -> dict[str, tuple[float, Interval]]:
    """Each key's share with its range; none for a sweep of an earlier version, which recorded no ranges."""
    if not tracker.has_artifact(sweep_run_id, Artifact.IMPORTANCE_RANGES):
        return {}
    shares: dict[str, float] = json.loads(tracker.read_text(sweep_run_id, Artifact.IMPORTANCES))
    ranges: dict[str, tuple[float, float]] = json.loads(tracker.read_text(sweep_run_id, Artifact.IMPORTANCE_RANGES))
    return {key: (share, Interval(*ranges[key])) for key, share in shares.items()}


HISTORY, IMPORTANCES, CURVES, TOLD_APART = (
    "What each trial reached. The line is the best so far.",
    "How much each key explains, with the range in resamples.",
    "The best trials on val, epoch by epoch.",
    "Trials whose intervals overlap widely cannot be told apart by these val images.",
)  # fmt: skip
"""Captions of the figures."""

TRIALS = (HISTORY, TOLD_APART, CURVES)
"""Those beside the leaderboard."""


def _pictures(
    sweep: RunRecord, experiment: Experiment, board: pd.DataFrame,
    importances: Mapping[str, tuple[float, Interval]], tracker: Tracker,
) -> dict[str, Picture]:  # fmt: skip
    metric = metric_named(experiment.search.metric)
    completed = board[board["outcome"] == "completed"]
    best = ", ".join(f"trial {number}" for number in completed["trial"][:NUM_CURVES])
    drawn = {
        HISTORY: (
            training_figures.search_history(
                board["trial"].tolist(), board[metric.on_val].astype(float).tolist(), board["outcome"].tolist(), metric
            ),
            f"{metric.on_val} of each of {counted(len(board), 'trial')}, in the order in which they ran.",
        ),
        CURVES: (
            training_figures.overlaid_curves(
                {
                    f"trial {row.trial}": history_table(str(row.run_id), metric, tracker)
                    for row in completed[:NUM_CURVES].itertuples()
                },
                metric,
            ),
            f"Curves over the epochs on val, of {best}.",
        ),
    }
    if importances:
        drawn[IMPORTANCES] = (
            training_figures.importances(importances), "Bars of the importances that the table above lists.",
        )  # fmt: skip
    intervals = leaderboard_intervals(completed, metric.on_val, sweep.num_val)
    if any(intervals):
        drawn[TOLD_APART] = (
            training_figures.leaderboard_intervals(
                [f"trial {number}" for number in completed["trial"]],
                completed[metric.on_val].tolist(),
                [of or NO_INTERVAL for of in intervals],
                metric,
            ),
            f"{metric.on_val} of the best trials with their 95% intervals, as the table above lists them.",
        )
    return {caption: Picture(save_png(figure), alt, caption) for caption, (figure, alt) in drawn.items()}
