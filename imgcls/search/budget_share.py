"""The share of a budget that a search has on this machine, by a few timed steps and one timed figure."""

import time

from imgcls.config.keys import Experiment
from imgcls.reporting.drawing import save_png
from imgcls.reporting.training_figures import search_history
from imgcls.runs.prepare import Prepared
from imgcls.search.budget import Budget, SearchTime
from imgcls.training.measured_pace import measured_pace

OF_A_SWEEP, OF_A_WINNER = 6, 8
"""Number of figures of a sweep beside one for each searched key, and of its winner's on val."""

FIGURES_BESIDE = 2.0
"""Factor on the time of the figures: tables, pages and the predictions that they show."""


def share_of_budget(budget: Budget, prepared: Prepared, num_workers: int) -> SearchTime:
    """The share of a budget for the search of an experiment, measured before its first trial."""
    experiment, num_folds = prepared.experiment, prepared.dataset.num_folds
    dataset = prepared.dataset.of_fold(1) if num_folds else prepared.dataset
    pace = measured_pace(experiment, len(dataset.class_names), dataset.channels)
    confirm = experiment.search.confirm
    return SearchTime(
        budget,
        num_epochs=experiment.train.last_epoch * max(1, num_folds),
        epoch_seconds=pace.epoch(len(dataset.train), len(dataset.val)),
        report_seconds=FIGURES_BESIDE * _num_figures(experiment) * _figure_seconds(),
        confirm=(confirm.top, confirm.seeds),
        num_workers=num_workers,
        num_folds=num_folds,
    )


def _num_figures(experiment: Experiment) -> int:
    of_winner = 0 if experiment.report.figures == "none" else OF_A_WINNER
    return OF_A_SWEEP + len(experiment.search.space) + of_winner


def _figure_seconds() -> float:
    """Seconds of a figure; the first one, which loads what all need, does not count."""
    for _ in range(2):
        begun = time.perf_counter()
        save_png(search_history([0, 1], [0.5, 0.6], ["completed", "pruned"]))
    return time.perf_counter() - begun
