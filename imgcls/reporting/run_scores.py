"""The scores of a run in words, with their intervals and what is to be said beside them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from imgcls.metrics import ACCURACY, BY_NAME, Metric, Scores, reported
from imgcls.record import MetricName, RunRecord, Tag, best_name, ends_of
from imgcls.reporting.cautions import cautions
from imgcls.reporting.rounding import score_text, with_interval
from imgcls.reporting.tables import escaped, shown
from imgcls.statistics.intervals import NO_INTERVAL, Interval, accuracy_interval
from imgcls.tracking.store import Tracker


def score_of(record: RunRecord) -> str:
    """A run's accuracy in words: on test where it was judged there, else on val; empty where it has none.

    With its 95% interval, and with the run's cautions.
    """
    metrics = record.metrics
    if MetricName.TEST_ACCURACY in metrics:
        test = Scores.from_metrics(metrics, "test")
        score = f"{MetricName.TEST_ACCURACY} {with_interval(test[ACCURACY.name], test.interval(ACCURACY.name))}"
    elif best_name(ACCURACY.on_val) in metrics and Tag.NUM_VAL in record.tags:
        score = f"{ACCURACY.on_val} {val_score(record, ACCURACY.on_val)}"
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
    """A run's val score in words, with its interval: a metric at the epoch that it kept. A sweep has its winner's."""
    return score_text(record.best(metric), best_interval(record, metric), best_accuracy_interval(record))


def best_interval(record: RunRecord, metric: str) -> Interval | None:
    """95% interval of a run's val score at the epoch that it kept; None where the record has none.

    Args:
        record: of a run that trained, or of a sweep, which has its winner's.
        metric: such as `val/accuracy`.
    """
    if metric == ACCURACY.on_val:
        return best_accuracy_interval(record)
    return _ends(record.metrics, best_name(metric))


def best_accuracy_interval(record: RunRecord) -> Interval:
    """95% interval of a run's val accuracy; `NO_INTERVAL` where images come in too few groups or in unknown ones."""
    if recorded := _ends(record.metrics, best_name(ACCURACY.on_val)):
        return recorded
    if record.has_groups:
        return NO_INTERVAL
    return accuracy_interval(record.best(ACCURACY.on_val), record.num_val)


def _ends(metrics: Mapping[str, float], name: str) -> Interval | None:
    low, high = (metrics.get(end) for end in ends_of(name))
    return None if low is None or high is None else Interval(low, high)


def history_table(run_id: str, metric: Metric, tracker: Tracker) -> pd.DataFrame:
    """The scores of a run by epoch, as curves show them: `epoch`, `val/accuracy`, `val/loss` and a metric."""
    columns = {name: dict(tracker.history(run_id, name)) for name in reported(metric.on_val)}
    return pd.DataFrame(columns).rename_axis("epoch").sort_index().reset_index()


def leaderboard_intervals(leaderboard: pd.DataFrame, metric: str, num_val: int) -> list[Interval | None]:
    """95% interval of each trial's score in a leaderboard, or None; an accuracy has `NO_INTERVAL` in too few groups.

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
    """A leaderboard with its scores in words: each with its interval, or with the digits of the accuracy's.

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
