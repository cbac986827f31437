"""An experiment as the library loads it: from a file or a mapping, with overrides; it knows its project."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from imgcls.config import keys, load
from imgcls.errors import InputError
from imgcls.project import Project, find_experiment

ExperimentSource = str | os.PathLike[str] | Mapping[str, Any]
"""What `load_experiment` takes: a name in `experiments/`, a path to a TOML file, or the tables of such a file."""


class Experiment(keys.Experiment):
    """All keys of one experiment, typed and checked, and the project to which it belongs.

    The tables are attributes, such as `experiment.train.lr`; docs/keys.md explains each key. An experiment is never
    changed: `replace` gives another one. `print(experiment)` shows it as the TOML of a file.
    """

    _project: Project | None = PrivateAttr(default=None)

    @property
    def project(self) -> Project:
        """Where its paths start and its record lies."""
        return self._project or Project.around(Path.cwd())

    @classmethod
    def of(cls, experiment: keys.Experiment, project: Project) -> Experiment:
        """The experiment of the library for one of a file, which has been checked, in this project."""
        made = cls.model_construct(**{name: getattr(experiment, name) for name in keys.Experiment.model_fields})
        made._project = project
        return made

    def replace(self, values: Mapping[str, Any], *, origin: str = "override") -> Experiment:
        """Another experiment of the library, in the same project.

        Args:
            values: tables or dotted keys with new values, such as `{"train": {"lr": 3e-3}}` or `{"train.lr": 3e-3}`.
            origin: how errors call where the values come from.

        Raises:
            ConfigError: naming the key, its value and what would be right.
        """
        return self.of(super().replace(plain(values), origin=origin), self.project)

    def __str__(self) -> str:
        return self.to_toml()


def load_experiment(experiment: ExperimentSource, /, **overrides: Any) -> Experiment:
    """Loads an experiment for the library, by its name, from a TOML file or from a mapping.

    Args:
        experiment: a name in the `experiments/` of the project around the working folder, a path to a TOML file, or a
            mapping with the tables of such a file, as `tomllib` gives it, which needs `name`.
        overrides: tables or dotted keys with new values: `train={"lr": 3e-3}`, or `**{"train.lr": 3e-3}`.

    Returns:
        The experiment. Its project is the folder around `experiments/` where the file lies in one, else the project
        around the working folder, else the working folder. Paths start there, and so does the record.

    Raises:
        ConfigError: no such experiment, an unknown key, one given twice, or an impossible value; it names what would be
            right.
        InputError: neither a name, a path nor a mapping.
    """
    if isinstance(experiment, Mapping):
        loaded, project = keys.Experiment.from_tables(plain(experiment), "experiment"), Project.around(Path.cwd())
    else:
        path, project = find_experiment(_name_or_path(experiment), Path.cwd())
        loaded = load.load_experiment(path)
    own = Experiment.of(loaded, project)
    return own.replace(overrides) if overrides else own


def _name_or_path(experiment: object) -> str:
    text = os.fspath(experiment) if isinstance(experiment, os.PathLike) else experiment
    if isinstance(text, str):
        return text
    raise InputError(
        f"{experiment!r} names no experiment; give a name in experiments/, the path of a TOML file, or a mapping with "
        "the tables of such a file"
    )


def plain(value: Any) -> Any:
    """A value for an experiment as TOML would give it: paths become text, numbers of NumPy plain numbers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    is_number = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    return value.item() if is_number else value
