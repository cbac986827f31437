"""Finds the classifier that a user means: a run in any form, a version in MLflow's registry, or an exported file."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imgcls.errors import InputError
from imgcls.inference.export_formats import ENDINGS
from imgcls.project import Project
from imgcls.text import nearest
from imgcls.tracking.find_run import trained_record
from imgcls.tracking.registry import REGISTERED
from imgcls.tracking.store import Tracker
from imgcls.tracking.store_address import check_recorded, is_recorded

if TYPE_CHECKING:
    from imgcls.inference.classifier import Classifier
    from imgcls.inference.run_model import RunModel
    from imgcls.inference.sealed_images import SealedImages

log = logging.getLogger(__name__)


def find_model(text: str, folder: Path) -> Classifier:
    """Finds a classifier and loads it.

    Args:
        text: a run's id, the first six characters of it or more, `last`, or `best`; a sweep stands for its winner. Or
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`, which stand for the run that was registered. Or a file that
            `imgcls export` wrote, by a path that ends with .onnx or .pt2.
        folder: where the user is: relative paths begin there, and the record is that of the project around it.

    Raises:
        InputError: the run, the version or the file does not exist; the error names a similar one.
    """
    project = Project.around(folder)
    if text.lower().endswith(ENDINGS):
        model = _of_file(folder / text)
        if is_recorded(project.root):
            model.seal = partial(_seal_of, model.run_id, Tracker(project.root))
        return model
    check_recorded(project.root)
    return find_run_model(text, Tracker(project.root))


def find_run_model(text: str, tracker: Tracker) -> RunModel:
    """The classifier of a run, found as in `find_model`.

    Raises:
        InputError: the run does not exist, or has not completed.
    """
    run_id = registered_run(text, tracker) if text.startswith(REGISTERED) else text
    record = trained_record(run_id, tracker)

    from imgcls.inference.run_model import load_run_model  # with torch, which no refusal has to wait for

    return load_run_model(record, tracker)


def registered_run(uri: str, tracker: Tracker) -> str:
    """The run of a version in MLflow's registry.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        tracker: whose registry is asked.

    Raises:
        InputError: the version does not exist, or imgcls did not register it.
    """
    version = tracker.registry().find(uri)
    if not version.is_proved:
        raise InputError(
            f"version {version.number} of {version.name} was not registered by imgcls, so its preprocessing is "
            "unknown; `imgcls register RUN` registers a run"
        )
    log.info("%s is version %d, of run %s", uri, version.number, version.run_id)
    return version.run_id


def _seal_of(run_id: str, tracker: Tracker) -> SealedImages:
    from imgcls.inference.sealed_images import sealed_from_stranger, sealed_images

    try:
        record = tracker.get(run_id)
    except InputError:
        return sealed_from_stranger(run_id, tracker)
    return sealed_images(record, tracker)


def _of_file(path: Path) -> Classifier:
    if not path.is_file():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, [name for name in beside if name.lower().endswith(ENDINGS)])
        meant = f"; did you mean {path.with_name(near)}?" if near else ""
        raise InputError(f"the file {path} does not exist{meant}")

    from imgcls.inference.exported_model import load_exported

    return load_exported(path)
