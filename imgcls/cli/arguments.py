"""Arguments and options that several verbs take, and what is opened for them: an experiment, the record."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.output import OPENING
from imgcls.terminal import waiting

if TYPE_CHECKING:
    from imgcls.config.keys import Experiment
    from imgcls.project import Project
    from imgcls.tracking.store import Tracker

ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name in experiments/, or a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as train.lr=3e-3; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one flat JSON object instead of text.")]
AsJsonList = Annotated[bool, typer.Option("--json", help="Print a JSON list of flat objects instead of text.")]


def open_tracker() -> Tracker:
    """Where a verb's arguments name no experiment: opens the record of the project around the working folder.

    Raises:
        InputError: the project has no record yet.
    """
    with waiting("loading MLflow"):
        from imgcls.project import Project
        from imgcls.tracking.store import Tracker
        from imgcls.tracking.store_address import check_recorded

    root = Project.around(Path.cwd()).root
    check_recorded(root)
    with waiting(OPENING):
        return Tracker(root)


def read_experiment(name: str, overrides: Iterable[str] | None) -> tuple[Experiment, Project]:
    """Reads the arguments of a verb: the experiment that they name, with every `--set`, and its project."""
    from imgcls.config.load import load_experiment
    from imgcls.project import find_experiment

    path, project = find_experiment(name, Path.cwd())
    return load_experiment(path, tuple(overrides or ())), project
