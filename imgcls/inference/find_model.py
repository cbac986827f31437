"""Finds the classifier that a user means: a run in any form, a version in MLflow's registry, or an exported file."""

from __future__ import annotations

from pathlib import Path

from imgcls.errors import InputError
from imgcls.inference.classifier import Classifier
from imgcls.inference.exported_model import load_exported
from imgcls.inference.run_model import RunModel, load_run_model
from imgcls.project import Project
from imgcls.runs.rebuild import trained_record
from imgcls.text import nearest
from imgcls.tracking.store import Tracker

EXPORTED = (".onnx", ".pt2")
"""Endings of exported files."""


def find_model(text: str, folder: Path) -> Classifier:
    """Finds a classifier and loads it.

    Args:
        text: a run's id, the first six characters of it or more, `last`, or `best`; a sweep stands for its winner. Or
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`, which stand for the run that was registered. Or a file that
            `imgcls export` wrote, by a path that ends with .onnx or .pt2.
        folder: where the user is: relative paths begin there, and the record is that of the project around it.

    Raises:
        InputError: there is no such run, version or file; what has a similar name is said.
    """
    if text.lower().endswith(EXPORTED):
        return _of_file(folder / text)
    return find_run_model(text, Tracker(Project.around(folder).root))


def find_run_model(text: str, tracker: Tracker) -> RunModel:
    """The classifier of a run, found as in `find_model`.

    Raises:
        InputError: there is no such run, or none that has completed.
    """
    return load_run_model(trained_record(text, tracker), tracker)


def _of_file(path: Path) -> Classifier:
    if not path.is_file():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, [name for name in beside if name.lower().endswith(EXPORTED)])
        raise InputError(f"no file {path}" + (f"; did you mean {path.with_name(near)}?" if near else ""))
    return load_exported(path)
