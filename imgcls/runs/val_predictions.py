"""What a run's model said of val, read back from its record, and the temperature that belongs to it."""

import io

import numpy as np
import pandas as pd

from imgcls.record import Artifact, MetricName
from imgcls.run_record import RunRecord
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import TemperatureFit, log_probabilities, temperature_fit
from imgcls.tracking.store import Tracker


def recorded_predictions(record: RunRecord, tracker: Tracker) -> pd.DataFrame:
    """The predictions that a run's model recorded on val: a row per image; names and classes are text, as written.

    Raises:
        InputError: it left none.
    """
    text = tracker.read_text(record.run_id, Artifact.VAL_PREDICTIONS)
    named = ("image", "digest", "group", "label", "prediction")
    return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(named, "str"), keep_default_na=False)


def recorded_fit(record: RunRecord, tracker: Tracker) -> TemperatureFit:
    """The temperature of a run and its gain, as recorded; of an earlier version's run, fitted on its val predictions.

    Raises:
        InputError: neither the temperature nor predictions are recorded.
    """
    names = (MetricName.BEST_TEMPERATURE, MetricName.BEST_TEMPERATURE_GAIN)
    if all(name in record.metrics for name in names):
        return TemperatureFit(*(record.metrics[name] for name in names))
    return temperature_fit(as_logits(recorded_predictions(record, tracker)))


def as_logits(table: pd.DataFrame) -> Predictions:
    """Val predictions as logits: the logarithms of their probabilities, which differ by a constant in each image."""
    names = [name.removeprefix("prob/") for name in table.columns if name.startswith("prob/")]
    probs = table[[f"prob/{name}" for name in names]].to_numpy(np.float64, na_value=np.nan)
    labels = np.array([names.index(label) for label in table["label"]], np.int64)
    return Predictions(log_probabilities(probs), labels, tuple(table["group"]) if "group" in table else ())
