"""A project: its root, its `experiments/`, and the files that an experiment names by relative paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from imgcls.config.keys import DataConfig, ModelConfig
from imgcls.config.mistakes import value_text
from imgcls.errors import ConfigError
from imgcls.text import did_you_mean

MLRUNS = "mlruns"
"""Folder at a project's root with the artifacts of its own store; hidden folders in it coordinate processes."""


@dataclass(frozen=True)
class Project:
    """A project's root, from which every path of its experiments is resolved.

    Attributes:
        root: the nearest folder at or above the working directory that holds an `experiments/` folder.
    """

    root: Path

    @classmethod
    def around(cls, folder: Path) -> Project:
        """The project in which a folder lies; the folder itself where no `experiments/` is at or above it."""
        folder = folder.resolve()
        return cls(next((each for each in (folder, *folder.parents) if (each / "experiments").is_dir()), folder))

    def images(self, config: DataConfig) -> Path:
        """The folder that `data.path` names; `data/` where it is empty."""
        return self._path(config.path or "data", "data.path")

    def groups(self, config: DataConfig) -> Path | str:
        """The file that `data.groups` names, or the regular expression that it is."""
        return self._path(config.groups, "data.groups") if config.groups.endswith(".csv") else config.groups

    def weights(self, config: ModelConfig) -> Path | None:
        """The file that `model.weights` names; None where it names something else.

        Raises:
            ConfigError: the file does not exist.
        """
        if not config.weights_are_a_file:
            return None
        path = self._path(config.weights, "model.weights")
        if path.is_file():
            return path
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(
            f"model.weights = {config.weights!r}: no file {path.absolute()}{did_you_mean(path.name, beside)}"
        )

    def _path(self, text: str, key: str) -> Path:
        """A path of an experiment file, where `~` is the user's home, whether or not something is there.

        Raises:
            ConfigError: it is none that this system could have, or may look at.
        """
        try:
            path = self.root / Path(text).expanduser()
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return path
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a home of nobody
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{key} = {value_text(text)}: {reason}; name another place") from error
        return path


def find_experiment(name: str, cwd: Path) -> tuple[Path, Project]:
    """Finds the project of the experiment file that the user typed, and the file.

    Args:
        name: a name in `experiments/`, or a path to a TOML file.
        cwd: the working directory.

    Returns:
        The file, and the project that holds it in its `experiments/` folder, else the one around `cwd`.

    Raises:
        ConfigError: the file does not exist; the message names the experiments that exist.
    """
    project = Project.around(cwd)
    experiments = project.root / "experiments"
    places = [cwd / name, experiments / f"{name}.toml", cwd / f"{name}.toml", experiments / name]
    path = next((place for place in places if place.suffix == ".toml" and _is_file(place)), None)
    if path is None and _is_file(cwd / name):  # a file with another ending is read, and refused where it is no TOML
        path = cwd / name
    if path is None:
        raise ConfigError(f"no experiment {name!r}{_what_there_is(cwd / name, cwd, experiments)}")
    path = Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle
    return path, Project(path.parent.parent) if path.parent.name == "experiments" else project


def _what_there_is(typed: Path, cwd: Path, experiments: Path) -> str:
    """The end of the error for an experiment that is not there: those beside it, or those in `experiments/`."""
    if _is_there(typed) and typed.is_dir():
        return f": {typed} is a folder; name a TOML file, whose data.path may be that folder"
    is_name = typed.parent == cwd and typed.suffix != ".toml"
    folders = filter(_is_there, [experiments] if is_name else [typed.parent, experiments])
    known = next(filter(None, (sorted(file.stem for file in folder.glob("*.toml")) for folder in folders)), [])
    none = f"{experiments} holds no experiment; start in the folder of a project, or give the path of a TOML file"
    there = f"known experiments: {', '.join(known)}" if known else none
    return f"; {there}{did_you_mean(typed.stem, known)}"


def _is_file(path: Path) -> bool:
    return _is_there(path) and path.is_file()


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:  # nobody knows; reading it says why it cannot be read
        return True
    except (OSError, ValueError):  # such as a name that is too long
        return False
    return True
