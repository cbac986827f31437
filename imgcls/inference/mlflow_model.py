"""The folder of an MLflow model that answers for a run without imgcls: ONNX, code as it stands, no pickle."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, Schema
from PIL import Image

import imgcls
from imgcls.errors import InputError
from imgcls.inference.exported_model import INSTALL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints
    import mlflow.pyfunc

PACKAGES = ("mlflow", "onnxruntime", "pillow", "numpy", "pandas")
"""All that the model needs; it requires the versions that are installed here."""

CARRIED = (
    "errors.py", "text.py", "data/__init__.py", "data/decode.py", "data/image_formats.py", "data/preprocessing.py"
)  # fmt: skip
"""Files of imgcls that the model carries as they are; each imports only NumPy, Pillow and, relatively, one of them."""

PACKAGE = Path(imgcls.__file__).parent

SERVED_MODEL = Path(__file__).with_name("served_model.py")


def save_mlflow_model(folder: Path, onnx: Path, metadata: Mapping[str, str]) -> None:
    """Saves the MLflow model of an exported network.

    Args:
        folder: to make.
        onnx: the exported file, which holds its class names and preprocessing.
        metadata: of the exported file.

    Raises:
        InputError: one of `PACKAGES` is not installed.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of copies on this machine
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        shutil.copyfile(onnx, place / "model.onnx")
        shutil.copyfile(SERVED_MODEL, place / SERVED_MODEL.name)
        decoder = write_decoder(place)
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(place / SERVED_MODEL.name),
            artifacts={"model": str(place / "model.onnx"), "decoder": str(decoder)},
            signature=_signature(json.loads(metadata["class_names"])),
            pip_requirements=requirements(),
            metadata=dict(metadata),
            input_example=pd.DataFrame({"image": [_example()]}),
            **_no_uv_project(place),
        )
        _without_places(folder)


def _no_uv_project(place: Path) -> dict[str, Any]:
    """Keeps MLflow from packing the files of a uv project around the working folder; old versions never do."""
    parameters = inspect.signature(mlflow.pyfunc.save_model).parameters
    return {"uv_project_path": str(place)} if "uv_project_path" in parameters else {}


def _without_places(folder: Path) -> None:
    """Takes the places on this machine out of an MLflow model: it loads its files by their names in the folder."""
    model = Model.load(folder)
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    model.save(str(folder / MLMODEL_FILE_NAME))


def load_mlflow_model(folder: Path) -> Any:
    """Loads the MLflow model in a folder, as its server will load it."""
    return mlflow.pyfunc.load_model(str(folder))


def _signature(class_names: Sequence[str]) -> ModelSignature:
    probs = [ColSpec(DataType.double, f"prob/{name}") for name in class_names]
    # MLflow passes a `string` on unchanged. It would decode a `binary` itself: it skips letters that are not base64
    # without an error, and its errors for null and numbers do not name the row.
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image")]),
        outputs=Schema([ColSpec(DataType.string, "prediction"), *probs]),
    )


def _example() -> str:
    """A JPEG of no data set, in base64."""
    file = BytesIO()
    Image.linear_gradient("L").resize((64, 48)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def requirements() -> list[str]:
    """What the MLflow model needs to be installed, as pip names it, with the versions that are installed here.

    Raises:
        InputError: one of `PACKAGES` is not installed.
    """
    try:
        return [f"{name}=={version(name)}" for name in PACKAGES]
    except PackageNotFoundError as error:
        raise InputError(f"a served model needs {error.name}, which is not installed: {INSTALL}") from error


def write_decoder(folder: Path) -> Path:
    """Writes the MLflow model's decoder into a folder: a package whose name contains the digest of its files."""
    content = {name: (PACKAGE / name).read_bytes() for name in CARRIED}
    digest = hashlib.sha256()
    for name, code in content.items():
        digest.update(f"{name}:{len(code)}:".encode() + code)
    package = folder / f"imgcls_decoder_{digest.hexdigest()[:16]}"
    for name, code in content.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(code)
    (package / "__init__.py").write_text('"""The files of imgcls that decode images, as they are."""\n')
    return package


def remove_compiled(folder: Path) -> None:
    """Removes what Python compiled beside an MLflow model's code when the model was loaded."""
    for compiled in list(folder.rglob("__pycache__")):
        shutil.rmtree(compiled)
