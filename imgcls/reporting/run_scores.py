"""The scores of a run in words, with their intervals and what is to be said beside them."""

import math
from collections.abc import Mapping

import pandas as pd

from imgcls.metrics import ACCURACY, Metric, Scores, metric_named, reported
from imgcls.record import TEST, MetricName, Tag, best_name, ends_of
from imgcls.reporting.cautions import cautions
from imgcls.reporting.rounding import ends, rounded, score_text, with_interval
from imgcls.run_record import RunRecord
from imgcls.statistics.intervals import NO_INTERVAL, Interval, accuracy_interval
from imgcls.text import counted
from imgcls.tracking.store import Tracker


def score_of(record: RunRecord) -> str:
    """A run's score in words: its accuracy on test where it was judged there, else on val; empty where it has none.

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


def look_scores(evaluation: RunRecord, metric: str) -> str:
    """A run's scores on test for the first line of a description, which MLflow's UI cuts off after a few.

    Such as `**test/accuracy 0.87 (0.83 to 0.90)** on 449 test images, look 1.`, with the cautions of the run.

    Args:
        evaluation: that ended with scores.
        metric: that selected, such as `val/macro_f1`; it is first, and bold.
    """
    test = Scores.from_metrics(evaluation.metrics, "test")
    words = [
        f"{TEST}{name} {score_text(test[name], test.intervals.get(name), test.interval(ACCURACY.name))}"
        for name in dict.fromkeys((metric_named(metric).name, ACCURACY.name))
    ]
    first = ", ".join((f"**{words[0]}**", *words[1:]))
    num_test = evaluation.tags.get(Tag.NUM_TEST)  # some evaluations of earlier versions do not have it
    of_images = f" on {counted(int(num_test), 'test image')}" if num_test else ""
    return " ".join((f"{first}{of_images}, look {evaluation.look}.", *cautions(evaluation.tags)))


def val_score(record: RunRecord, metric: str) -> str:
    """A run's score on val in words, with its interval: a metric at the kept epoch. A sweep has its winner's."""
    return score_text(record.best(metric), best_interval(record, metric), best_accuracy_interval(record))


def val_number(record: RunRecord, metric: str) -> tuple[str, str]:
    """A run's score on val for a headline: rounded, and its interval, "" where it has none."""
    interval = best_interval(record, metric)
    number = rounded(record.best(metric), interval or best_accuracy_interval(record))
    return number, "" if interval is None or math.isnan(interval.half_width) else ends(interval)


def best_interval(record: RunRecord, metric: str) -> Interval | None:
    """A run's score on val: the 95% interval recorded beside it; None where the record has none.

    Args:
        record: of a run that trained, or of a sweep, which has its winner's.
        metric: such as `val/accuracy`.
    """
    if metric == ACCURACY.on_val:
        return best_accuracy_interval(record)
    return _ends(record.metrics, best_name(metric))


def best_accuracy_interval(record: RunRecord) -> Interval:
    """A run's score on val in accuracy: its 95% interval; `NO_INTERVAL` for too few or unknown groups."""
    if recorded := _ends(record.metrics, best_name(ACCURACY.on_val)):
        return recorded
    if record.has_groups:
        return NO_INTERVAL
    return accuracy_interval(record.best(ACCURACY.on_val), record.num_val)


def _ends(metrics: Mapping[str, float], name: str) -> Interval | None:
    low, high = (metrics.get(end) for end in ends_of(name))
    return None if low is None or high is None else Interval(low, high)


def history_table(run_id: str, metric: Metric, tracker: Tracker) -> pd.DataFrame:
    """A run's scores by epoch, as curves show them: `epoch`, `val/accuracy`, `val/loss` and a metric."""
    columns = {name: dict(tracker.history(run_id, name)) for name in reported(metric.on_val)}
    return pd.DataFrame(columns).rename_axis("epoch").sort_index().reset_index()
