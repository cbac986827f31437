"""The proof of an MLflow model before it is registered: its answers to the bytes of val images are the run's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.inference.mlflow_model import load_mlflow_model
from imgcls.inference.proof import Agreement, ProofError, agreement
from imgcls.inference.val_images import ValImages
from imgcls.progress import Progress

AT_ONCE = 64
"""Images that are asked of the model at once."""


def prove_served(
    folder: Path, images: ValImages, names: Sequence[str], class_names: Sequence[str], own: NDArray[np.float64]
) -> Agreement:
    """Proves the MLflow model in a folder: loads it as its server will load it, and sends it the run's val images.

    Args:
        folder: of the model.
        images: the N val images of the run.
        names: of the images.
        class_names: K names, in the order of `own`.
        own: float64 (N, K), what the model has to give.

    Raises:
        ProofError: a probability or a class differs by more than may be.
        DataError: val images that cannot be read any more.
    """
    model = load_mlflow_model(folder)
    found = Agreement()
    with Progress(len(images), "proving as served") as bar:
        for start in range(0, len(images), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(images)))
            answer = _answer(model, [images.content(row) for row in rows])
            probs = answer[[f"prob/{name}" for name in class_names]].to_numpy(np.float64)
            here = slice(start, rows.stop)
            found += agreement(probs, own[here], names[here], "the model that would be served")
            bar.update(len(rows))
    return found


def _answer(model: Any, contents: list[bytes]) -> pd.DataFrame:
    try:
        answer: pd.DataFrame = model.predict(pd.DataFrame({"image": contents}))
    except Exception as error:  # whatever a request would end with
        raise ProofError(f"the model that would be served cannot read val images that the run read: {error}") from error
    return answer
