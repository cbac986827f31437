"""Where a project lies: its root, its experiments, and the files that they name."""

from __future__ import annotations

import os
from pathlib import Path

from imgcls.config.mistakes import value_text
from imgcls.errors import ConfigError
from imgcls.text import did_you_mean


def located(text: str, root: Path, key: str) -> Path:
    """Where a path of an experiment file lies; whether something is there is the caller's business.

    Args:
        text: the path as it was written; `~` is the user's home.
        root: the project's root, where a relative path starts.
        key: dotted, for the message.

    Raises:
        ConfigError: it is none that this system could have, or may look at.
    """
    try:
        path = root / Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a home of nobody
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{key} = {value_text(text)}: {reason}; name another place") from error
    return path


def find_experiment(name: str, cwd: Path) -> tuple[Path, Path]:
    """Resolves what the user typed to (file, project root).

    Args:
        name: a name in `experiments/`, or a path to a TOML file.
        cwd: the working directory.

    Returns:
        The file, and the folder that `data.path` and the stores are relative to: the one that holds the file's
        `experiments/` folder, else the working directory's project root.

    Raises:
        ConfigError: where there is no such file, naming those that there are.
    """
    experiments = project_root(cwd) / "experiments"
    places = [cwd / name, experiments / f"{name}.toml", cwd / f"{name}.toml", experiments / name]
    path = next((place for place in places if place.suffix == ".toml" and _is_file(place)), None)
    if path is None and _is_file(cwd / name):  # a file with another ending is read, and refused where it is no TOML
        path = cwd / name
    if path is None:
        raise ConfigError(f"no experiment {name!r}{_what_there_is(cwd / name, cwd, experiments)}")
    path = Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle
    return path, path.parent.parent if path.parent.name == "experiments" else project_root(cwd)


def _what_there_is(typed: Path, cwd: Path, experiments: Path) -> str:
    """The end of the error for an experiment that is not there: those beside it, or those in `experiments/`."""
    if _is_there(typed) and typed.is_dir():
        return f": {typed} is a folder; name a TOML file, whose data.path may be that folder"
    is_name = typed.parent == cwd and typed.suffix != ".toml"
    folders = filter(_is_there, [experiments] if is_name else [typed.parent, experiments])
    known = next(filter(None, (sorted(file.stem for file in folder.glob("*.toml")) for folder in folders)), [])
    there = f"known experiments: {', '.join(known)}" if known else f"{experiments} holds no experiment"
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


def project_root(cwd: Path) -> Path:
    """The nearest folder at or above `cwd` that holds an `experiments/` folder, else `cwd` itself."""
    cwd = cwd.resolve()
    return next((folder for folder in (cwd, *cwd.parents) if (folder / "experiments").is_dir()), cwd)
