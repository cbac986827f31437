"""Loads an experiment file, with its overrides."""

from collections.abc import Sequence
from pathlib import Path

from imgcls.config.keys import Experiment
from imgcls.config.toml import MOST_CHARACTERS, parse_override, parse_toml
from imgcls.errors import ConfigError


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Loads an experiment from its TOML file, and applies `KEY=VALUE` overrides such as `train.lr=3e-3`.

    Raises:
        ConfigError: naming the file, the key, the value and what would be right.
    """
    try:
        with path.open(encoding="utf-8") as file:
            tree = parse_toml(file.read(MOST_CHARACTERS + 1))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    tree.setdefault("name", path.stem)
    return with_overrides(Experiment.from_tables(tree, str(path)), overrides)


def with_overrides(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """Loads `KEY=VALUE` overrides into an experiment; a value is TOML, or a bare word for a string.

    Raises:
        ConfigError: naming the key, the value and what would be right.
    """
    values = dict(map(parse_override, overrides))
    return experiment.replace(values, origin="--set") if values else experiment
