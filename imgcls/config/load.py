"""Loads an experiment file with its overrides, and explains its keys."""

from collections.abc import Sequence
from pathlib import Path

from imgcls.config.key_names import Section, fields_of, known_keys
from imgcls.config.keys import Experiment
from imgcls.config.mistakes import hint
from imgcls.config.toml import MOST_CHARACTERS, as_toml, parse_override, parse_toml
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


def config_table(prefix: str = "") -> list[tuple[str, str, str]]:
    """Loads an experiment file's explanation: of every key its default and what it means.

    Args:
        prefix: of the keys that are wanted; where no dotted key begins so, of their last parts.

    Returns:
        Rows of (dotted key, default as in a file, what it means).

    Raises:
        ConfigError: there is none, naming the key that may have been meant.
    """
    begun = prefix.lower()
    fields = (field for field in fields_of(Experiment) if "." in field[0] and not isinstance(field[1], Section))
    rows = [(key, as_toml(value), meaning) for key, value, meaning in fields]
    found = [row for row in rows if row[0].startswith(begun)]
    found = found or [row for row in rows if row[0].rpartition(".")[2].startswith(begun)]
    if not found:
        raise ConfigError(f"no key begins with {prefix!r}{hint(prefix, known_keys(Experiment))}")
    return found
