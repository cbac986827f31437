"""A classifier in a file that `imgcls export` wrote: ONNX under onnxruntime, or PT2 under torch."""

from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.preprocessing import Preprocessing
from imgcls.errors import InputError
from imgcls.inference.classifier import Classifier
from imgcls.inference.export_formats import ENDINGS, ENDINGS_IN_WORDS
from imgcls.statistics.temperature import log_probabilities, probabilities

log = logging.getLogger(__name__)

NAMES = ("run_id", "class_names", "preprocessing", "temperature")
"""Entries of a file's metadata without which it cannot be used."""

INSTALL = "pip install 'imgcls[ship]'"
"""The command that installs what exports and serves models; unquoted, zsh takes the brackets for a pattern."""

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""The graph: images uint8 (B, H, W, C) -> probabilities float32 (B, K)."""


class ExportedModel(Classifier):
    """An exported model: the graph of the file, and what its metadata say.

    Args:
        run: the graph.
        metadata: of the file.

    Attributes:
        metadata: of the file: name -> text, or JSON; docs/exporting.md lists them.

    Raises:
        KeyError: an entry is missing.
        ValueError: an entry of another form.
    """

    def __init__(self, run: Run, metadata: Mapping[str, str]) -> None:
        self._run, self.metadata = run, dict(metadata)
        self.run_id = metadata["run_id"]
        self.class_names = tuple(json.loads(metadata["class_names"]))
        self.preprocessing = Preprocessing.from_plain(json.loads(metadata["preprocessing"]))
        self.temperature = float(metadata["temperature"])
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"its temperature is {self.temperature}")
        side, channels = self.preprocessing.image_size, self.preprocessing.channels
        num_probs = self.whole(np.zeros((1, side, side, channels), np.uint8)).shape[1]
        if num_probs != len(self.class_names):
            raise ValueError(f"{len(self.class_names)} names of classes for {num_probs} probabilities")

    def whole(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Calibrated probabilities of whole images: the graph resizes them.

        Args:
            images: uint8 (B, H, W, 1 or 3), upright, of one size.

        Returns:
            float64 (B, K).
        """
        probs: NDArray[np.float64] = self._run(np.ascontiguousarray(images)).astype(np.float64)
        return probs

    def probs(self, squares: NDArray[np.uint8], *, raw: bool = False) -> NDArray[np.float64]:
        """See `Classifier.probs`; without temperature it is undone: p^T, normalised."""
        probs = self.whole(squares.transpose(0, 2, 3, 1))
        if not raw:
            normalised: NDArray[np.float64] = probs / probs.sum(axis=1, keepdims=True)
            return normalised
        return probabilities(log_probabilities(probs), 1 / self.temperature)


def load_exported(path: Path, *, is_trusted: bool = False) -> ExportedModel:
    """Loads an exported model.

    A .pt2 can run code when it is loaded, so load only what you or somebody you trust has made. An .onnx cannot.

    Args:
        path: ends with one of `ENDINGS`.
        is_trusted: no warning that a .pt2 can run code; it was written by this process.

    Raises:
        InputError: a missing, damaged or foreign file, another ending, or onnxruntime is not installed.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path.name}: an exported file ends with {ENDINGS_IN_WORDS}")
    if not path.is_file():
        raise InputError(f"the file {path} does not exist; `imgcls export RUN` writes one")
    if ending == ".pt2" and not is_trusted:
        log.warning(
            "%s may run code when it is loaded: load .pt2 files that you made yourself, and .onnx files from others",
            path.name,
        )
    run, metadata = LOADERS[ending](path)
    if missing := [name for name in NAMES if name not in metadata]:
        raise InputError(
            f"{path.name} was not written by `imgcls export`: its metadata have no {missing[0]}, so its preprocessing "
            "is unknown; export the run again"
        )
    try:
        return ExportedModel(run, metadata)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path.name} has damaged metadata ({error}); export the run again") from error


def onnx_session(path: Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU for a file; `threads` = 0 takes those that onnxruntime chooses.

    Raises:
        InputError: onnxruntime is not installed, or refuses the file.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InputError(f"{path.name} needs {error.name}, which is not installed: {INSTALL}") from error
    except ImportError as error:
        raise InputError(f"{path.name} needs onnxruntime, which cannot be imported here: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it would print is in the error that it raises
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime names its errors by status codes
        raise _damaged(path, error) from error


def _load_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    import torch

    session = onnx_session(path, torch.get_num_threads())
    names = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if names != ["images", "probs"]:
        raise InputError(f"{path.name} was not written by `imgcls export`: it does not make `probs` of `images`")
    return lambda images: session.run(["probs"], {"images": images})[0], session.get_modelmeta().custom_metadata_map


def _load_pt2(path: Path) -> tuple[Run, dict[str, str]]:
    import torch

    from imgcls.inference.exporter_output import quiet

    extra = {"metadata.json": ""}
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not an archive, or not all of it is there")
        with quiet():
            graph: Any = torch.export.load(path, extra_files=extra).module()
        metadata = json.loads(extra["metadata.json"] or "{}")
    except Exception as error:  # torch names none for bytes that are not its own
        raise _damaged(path, error) from error

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probs: NDArray[np.float32] = graph(torch.from_numpy(np.require(images, requirements="W"))).numpy()
        return probs

    return run, metadata


def _damaged(path: Path, error: Exception) -> InputError:
    why = str(error).strip().splitlines()
    return InputError(
        f"{path.name} is not an exported model, or is damaged: {why[0][:200] if why else type(error).__name__}; export "
        "the run again"
    )


LOADERS: dict[str, Callable[[Path], tuple[Run, dict[str, str]]]] = {".onnx": _load_onnx, ".pt2": _load_pt2}
"""Ending of a file -> what loads it."""
