"""The model that MLflow serves: bytes of image files in, one object an image out. MLflow keeps this file as it is.

It runs where imgcls is not installed. It needs mlflow, onnxruntime, NumPy, pandas and Pillow, and it carries the files
of imgcls that decode an image and make its square.
"""

import base64
import contextlib
import importlib
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

COLUMN = "image"
"""Name of the input's column."""

BATCH = 64
"""Most images that the network gets at once."""

MOST_REFUSALS = 10
"""Most images that an error names."""


LIKE_BASE64 = re.compile(rb"(data:[^,]*,)?[\w+/=-]+\s*")
"""What somebody meant as base64: no image file is like that, since plain PPM has spaces."""

NULLS = ("None", "nan", "null")
"""What MLflow makes of null in requests with `inputs`, where it turns every value into a text."""

NOT_BASE64 = (
    "a text that is not valid base64; send the bytes of an image file in standard base64, with + and / and padded with "
    "=, without a prefix such as data:"
)


class ServedModel(PythonModel):
    """The served model: decodes each image as imgcls does, and runs the exported network on its square."""

    def load_context(self, context: Any) -> None:
        """Loads the served model from the files that MLflow kept: `model`, an exported ONNX file, and `decoder`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores alone
        self._session = onnxruntime.InferenceSession(
            context.artifacts["model"], options, providers=["CPUExecutionProvider"]
        )
        about = self._session.get_modelmeta().custom_metadata_map
        self._class_names = list(json.loads(about["class_names"]))
        decoder = Path(context.artifacts["decoder"])
        self._decode = _carried(decoder, "data.decode")
        made = _carried(decoder, "data.preprocessing").Preprocessing.from_plain(json.loads(about["preprocessing"]))
        self._square = made.square

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Predicts each image of a table.

        Args:
            context: of MLflow.
            model_input: a table whose column `image` holds the bytes of an image file in each row, or its base64.
            params: none are known.

        Returns:
            A row per image: `prediction`, and `prob/CLASS` for each class, calibrated.

        Raises:
            MlflowException: images that cannot be read, each with its row, from 0, and the reason; then none is
                predicted.
        """
        squares = self._squares(list(model_input[COLUMN]))
        probs = [np.zeros((0, len(self._class_names)))]
        for start in range(0, len(squares), BATCH):
            images = np.stack(squares[start : start + BATCH]).transpose(0, 2, 3, 1)
            probs += self._session.run(["probs"], {"images": np.ascontiguousarray(images)})
        every = np.concatenate(probs).astype(np.float64)
        table = pd.DataFrame(every, columns=[f"prob/{name}" for name in self._class_names])
        table.insert(0, "prediction", [self._class_names[at] for at in every.argmax(axis=1)])
        return table

    def _squares(self, values: list[Any]) -> list[np.ndarray]:
        squares, refusals = [], []
        for row, value in enumerate(values):
            try:
                squares.append(self._square(self._decode.read_image(content_of(value))))
            except (self._decode.UnreadableImageError, ValueError) as error:
                refusals.append(f"row {row}: {error}")
        if refusals:
            left = len(refusals) - MOST_REFUSALS
            more = [f"and {left} more"] if left > 0 else []
            raise MlflowException.invalid_parameter_value(
                f"{len(refusals)} of {len(values)} images cannot be read: " + "; ".join(refusals[:MOST_REFUSALS] + more)
            )
        return squares


def content_of(value: Any) -> bytes:
    """The content of an image file, as a row of the served model's input holds it.

    Raises:
        ValueError: it is neither bytes nor base64.
    """
    if isinstance(value, str) and value not in NULLS:
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except ValueError as error:
            raise ValueError(NOT_BASE64) from error
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ValueError(f"{_kind(value)} instead of the bytes of an image file, which JSON takes in standard base64")
    content = bytes(value)
    # Whoever calls the model from Python may give base64 as bytes.
    with contextlib.suppress(ValueError):
        return base64.b64decode(content, validate=True)
    if LIKE_BASE64.fullmatch(content):
        raise ValueError(NOT_BASE64)
    return content


def _kind(value: Any) -> str:
    """What a value is in the words of JSON, where these have one for it."""
    if value is None or isinstance(value, str) or (isinstance(value, float) and value != value):
        return "null"
    if isinstance(value, (bool, np.bool_)):
        return "true or false"
    words: list[tuple[Any, str]] = [
        ((int, float, np.number), "a number"), ((list, tuple, np.ndarray), "a list"), (dict, "an object"),
    ]  # fmt: skip
    return next((word for types, word in words if isinstance(value, types)), type(value).__name__)


def threads() -> int:
    """Number of threads that the served model computes with: `OMP_NUM_THREADS`, or a thread for each usable core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _carried(folder: Path, module: str) -> ModuleType:
    """A module of the package in a folder. It has the folder's name, which contains the digest of its files.

    So models that carry different versions of imgcls can be served by one process.
    """
    name = folder.name
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise MlflowException(f"{folder} has no package; register the run again")
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{name}.{module}")


set_model(ServedModel())
