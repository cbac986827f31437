"""The proof of a model before it leaves the workbench: it gives the run's own predictions for the run's val images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.errors import ImgclsError
from imgcls.record import Artifact
from imgcls.statistics.temperature import log_probabilities, probabilities
from imgcls.text import counted

BOUND = 5e-4
"""Most by which a probability may differ from the run's own."""


class ProofError(ImgclsError):
    """Error of a model that does not give the predictions of its run; it does not leave the workbench."""


@dataclass(frozen=True)
class Agreement:
    """What the proof found on some images: how well two sets of predictions agree.

    Attributes:
        num_images: that were compared.
        largest: |difference| of two probabilities.
        num_other_class: images with another class, where the reference's two highest probabilities lie closer than
            twice the bound.
    """

    num_images: int = 0
    largest: float = 0.0
    num_other_class: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        """On the images of both."""
        return Agreement(
            self.num_images + other.num_images,
            max(self.largest, other.largest),
            self.num_other_class + other.num_other_class,
        )


def agreement(
    probs: NDArray[np.floating],
    expected: NDArray[np.float64],
    images: Sequence[str],
    what: str,
    bound: float = BOUND,
    of: str = "the run's own predictions",
) -> Agreement:
    """Proves that probabilities agree with those of a reference.

    A class may differ where the reference's two highest probabilities lie closer than twice the bound.

    Args:
        probs: float (N, K), of the model that is proved.
        expected: float64 (N, K), of the reference.
        images: name of each image.
        what: what is proved, in words, such as `the ONNX file`.
        bound: most by which a probability may differ.
        of: the reference, in words.

    Raises:
        ProofError: they do not; it names the first image that differs, and its numbers.
    """
    differences = np.abs(probs.astype(np.float64) - expected).max(axis=1)
    second, first = np.sort(expected, axis=1)[:, -2:].T
    other_class = expected.argmax(axis=1) != probs.argmax(axis=1)
    wrong = np.flatnonzero(~(differences <= bound) | (other_class & ~(first - second < 2 * bound)))  # NaN is wrong
    if len(wrong):
        row = int(wrong[0])
        raise ProofError(
            f"{what} does not give {of}, so it does not leave the workbench. First image that "
            f"differs: {images[row]}, a probability by {differences[row]:.2g} where {bound:.2g} is allowed (highest "
            f"{probs[row].max():.6g}, expected {first[row]:.6g}); {len(wrong)} of {len(images)} compared at once "
            "differ"
        )
    return Agreement(len(images), float(differences.max(initial=0.0)), int(other_class.sum()))


CONSISTENT = 1e-5
"""Most by which a recorded probability may differ from what the other columns of its row give; they were rounded."""


def recorded_probs(recorded: pd.DataFrame, temperature: float) -> NDArray[np.float64]:
    """The recorded predictions of val, which a model has to give: calibrated probabilities, float64 (N, K).

    Args:
        recorded: `predictions/val.csv`; where an earlier version wrote it, they follow from those without temperature.
        temperature: of the run.

    Raises:
        ProofError: a row whose columns contradict each other, so that somebody changed it.
    """
    raw = _columns(recorded, "prob/")
    calibrated = probabilities(log_probabilities(raw.to_numpy(np.float64)), temperature)
    written = _columns(recorded, "calibrated/")
    own = written.to_numpy(np.float64) if len(written.columns) else calibrated
    highest = raw.columns[raw.to_numpy(np.float64).argmax(axis=1)].str.removeprefix("prob/")
    differ = ~(np.abs(own - calibrated).max(axis=1) <= CONSISTENT) | (
        highest.to_numpy() != recorded["prediction"].to_numpy()
    )
    if differ.any():
        row = int(differ.argmax())
        raise ProofError(
            f"{Artifact.VAL_PREDICTIONS} was changed: in the row of {recorded['image'].iloc[row]}, the columns prob/, "
            f"calibrated/ and prediction contradict each other ({counted(int(differ.sum()), 'row')} in all). Nothing "
            "is proved by it, so nothing leaves the workbench; restore the file, or train the run again"
        )
    return own


def _columns(recorded: pd.DataFrame, kind: str) -> pd.DataFrame:
    return recorded[[name for name in recorded if str(name).startswith(kind)]]
