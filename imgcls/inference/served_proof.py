"""The proof of an MLflow model before it is registered: it gives the run's own predictions for the run's val images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from imgcls import terminal
from imgcls.errors import ImgclsError
from imgcls.inference.mlflow_model import load_mlflow_model
from imgcls.inference.val_images import ValImages
from imgcls.statistics.temperature import probabilities

BOUND = 5e-4
"""Most by which a probability may differ from the run's own."""

AT_ONCE = 64
"""Images that are asked of the model at once."""


class ProofError(ImgclsError):
    """Error of a model that does not give the predictions of its run; it does not leave the workbench."""


@dataclass(frozen=True)
class ServedProof:
    """The proof of an MLflow model.

    Attributes:
        num_images: val images that it was asked.
        largest: |difference| of a probability from the run's own.
        num_other_class: images to which it gives another class. The run's two highest probabilities of each lie closer
            than twice the bound.
    """

    num_images: int
    largest: float
    num_other_class: int


def prove(folder: Path, images: ValImages, recorded: pd.DataFrame, temperature: float) -> ServedProof:
    """Proves the MLflow model in a folder: loads it as whoever serves it does, and asks it for the run's val images.

    Args:
        folder: of the model.
        images: the run's val images, in the order of the table.
        recorded: the run's `predictions/val.csv`.
        temperature: of the run's calibrated probabilities, which earlier versions did not record.

    Raises:
        ProofError: a probability or a class differs by more than may be.
        DataError: val images that cannot be read any more.
    """
    model = load_mlflow_model(folder)
    own = calibrated(recorded, temperature)
    names = [str(name).removeprefix("calibrated/") for name in own]
    served, predictions = [], []
    starts = range(0, len(images), AT_ONCE)
    bar = tqdm(starts, desc="proving", unit=" batches", file=terminal.stderr(), leave=False, disable=None)
    for start in bar:
        rows = range(start, min(start + AT_ONCE, len(images)))
        answer = model.predict(pd.DataFrame({"image": [images.content(row) for row in rows]}))
        served.append(answer[[f"prob/{name}" for name in names]].to_numpy(np.float64))
        predictions += list(answer["prediction"])
    return _compared(np.concatenate(served), predictions, own.to_numpy(np.float64), names, list(recorded["image"]))


def calibrated(recorded: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """A run's calibrated probabilities as columns `calibrated/CLASS`: recorded, or from those without temperature."""
    there = [name for name in recorded if str(name).startswith("calibrated/")]
    if there:
        return recorded[there]
    raw = [name for name in recorded if str(name).startswith("prob/")]
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(recorded[raw].to_numpy(np.float64)), np.log(np.finfo(np.float64).tiny))
    names = [f"calibrated/{str(name).removeprefix('prob/')}" for name in raw]
    return pd.DataFrame(probabilities(logits, temperature), columns=names)


def _compared(
    served: NDArray[np.float64], predictions: list[str], own: NDArray[np.float64], names: list[str], images: list[str]
) -> ServedProof:
    differences = np.abs(served - own).max(axis=1)
    second, first = np.sort(own, axis=1)[:, -2:].T
    other_class = np.array([names[at] for at in own.argmax(axis=1)]) != np.array(predictions)
    wrong = np.flatnonzero(~(differences <= BOUND) | (other_class & ~(first - second < 2 * BOUND)))  # NaN is wrong
    if len(wrong):
        row = int(wrong[0])
        raise ProofError(
            f"the model that would be served differs from the run's own predictions for {len(wrong)} of {len(images)} "
            f"val images, first for {images[row]}: a probability by {differences[row]:.2g}, where {BOUND:g} is "
            "allowed; nothing was registered"
        )
    return ServedProof(len(images), float(differences.max()), int(other_class.sum()))
