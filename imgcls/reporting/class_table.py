"""The class table of a report: precision, recall and F1 of each class, with the interval of its recall."""

import math

import pandas as pd

from imgcls.reporting.rounding import UNDEFINED, ends, rounded
from imgcls.reporting.tables import markdown_table
from imgcls.statistics.intervals import Interval

ABSENT_CLASSES = (
    "The macro-F1 is the mean of the column F1. As in scikit-learn with zero_division=0, a share with nothing to "
    "divide by counts 0, and a class that is neither present nor predicted is left out (–)."
)
"""What the class table says of a class without images or without predictions."""


def class_table(per_class: pd.DataFrame) -> str:
    """The class table as Markdown: no score has more digits than the interval of the class's recall supports.

    Args:
        per_class: as `statistics.per_class` gives it.
    """
    columns = per_class[["class", "precision", "recall", "f1", "num_images", "recall_low", "recall_high"]]
    return markdown_table(
        ("class", "precision", "recall", "95% interval", "F1", "images"),
        [_class_row(*row) for row in columns.itertuples(index=False, name=None)],
    )


def _class_row(
    name: str, precision: float, recall: float, f1: float, num_images: int, low: float, high: float
) -> tuple[str, ...]:
    if math.isnan(f1):
        return name, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, "0"
    if not num_images:  # every image predicted as this class is another's
        return name, "0", UNDEFINED, UNDEFINED, "0", "0"
    interval = Interval(low, high)
    shown = rounded(precision, interval), rounded(recall, interval), ends(interval), rounded(f1, interval)
    return name, *shown, str(num_images)
