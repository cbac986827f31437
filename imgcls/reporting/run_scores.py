"""The scores of a run in words, with their intervals and what is to be said beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from imgcls.record import ACCURACY_ENDS, MetricName, RunRecord, Tag, best_name
from imgcls.reporting.cautions import cautions
from imgcls.reporting.rounding import accuracy_interval, metric_text, rounded, with_interval
from imgcls.reporting.tables import escaped, shown
from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.statistics.scores import Scores

INTERVAL_COLUMNS = ("val/accuracy_low", "val/accuracy_high")
"""Columns of a leaderboard whose images come in groups: the ends of each accuracy's 95 % interval."""


def score_of(record: RunRecord) -> str:
    """A run's accuracy for people: on test where it was judged there, else on val; empty where it has none.

    With its 95% interval, and with the run's cautions.
    """
    metrics = record.metrics
    if MetricName.TEST_ACCURACY in metrics:
        test = Scores.from_metrics(metrics, "test")
        score = f"{MetricName.TEST_ACCURACY} {with_interval(test.accuracy, test.accuracy_interval)}"
    elif best_name("val/accuracy") in metrics and Tag.NUM_VAL in record.tags:
        score = f"val/accuracy {val_score(record, 'val/accuracy')}"
    else:
        return ""
    said = cautions(record.tags)
    return f"{score}. {' '.join(said)}" if said else score


def warning(sentences: Sequence[str]) -> tuple[str, ...]:
    """The paragraph of cautions that stands beside a score, or none where there are no sentences."""
    return (f"**Warning:** {escaped(' '.join(sentences))}",) if sentences else ()


def warned(paragraph: str, sentences: Sequence[str]) -> str:
    """A paragraph with a score in it, and the cautions that stand beside it."""
    return " ".join((paragraph, *warning(sentences)))


def val_score(record: RunRecord, metric: str) -> str:
    """A run's val metric at the epoch that it kept, for people: an accuracy with its interval, a loss with its digits.

    Args:
        record: of a run that trained, or of a sweep, which has its winner's.
        metric: such as `val/accuracy`.
    """
    return metric_text(metric, record.best(metric), best_accuracy_interval(record))


def best_accuracy_interval(record: RunRecord) -> Interval:
    """95% interval of a run's `best/val/accuracy`; `NO_INTERVAL` where images come in too few groups, or unknown ones.

    Args:
        record: of a run that trained, or of a sweep, which has its winner's.
    """
    low, high = (record.metrics.get(name) for name in ACCURACY_ENDS)
    if low is not None and high is not None:
        return Interval(low, high)
    if record.has_groups:
        return NO_INTERVAL
    return accuracy_interval(record.best("val/accuracy"), record.num_val)


def _accuracy_interval(accuracy: float | None, num_images: int | None) -> Interval | None:
    """Wilson's, or None where it is unknown or NaN."""
    if accuracy is None or num_images is None or math.isnan(accuracy):
        return None
    return accuracy_interval(accuracy, num_images)


def leaderboard_intervals(leaderboard: pd.DataFrame, num_val: int) -> list[Interval | None]:
    """Of each trial's accuracy; None where it has none, and `NO_INTERVAL` where there are too few groups."""
    if set(INTERVAL_COLUMNS) <= set(leaderboard.columns):
        return [Interval(float(low), float(high)) for low, high in leaderboard[list(INTERVAL_COLUMNS)].to_numpy(float)]
    return [_accuracy_interval(accuracy, num_val) for accuracy in leaderboard["val/accuracy"]]


def with_intervals(leaderboard: pd.DataFrame, num_val: int) -> pd.DataFrame:
    """A leaderboard for people: accuracies with their intervals, losses with as many digits.

    Args:
        leaderboard: a row a trial, any columns; where images come in groups, those of `INTERVAL_COLUMNS` too.
        num_val: images behind its scores.
    """
    if "val/accuracy" not in leaderboard:
        return leaderboard
    intervals = leaderboard_intervals(leaderboard, num_val)
    board = leaderboard.drop(columns=list(INTERVAL_COLUMNS), errors="ignore").astype(object)
    for column, show in (("val/accuracy", with_interval), ("val/loss", rounded)):
        if column in board:
            pairs = zip(leaderboard[column], intervals, strict=True)
            board[column] = [shown(value) if interval is None else show(value, interval) for value, interval in pairs]
    return board
