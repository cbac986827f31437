"""The table of keys: the default and the meaning of each."""

from imgcls.config.key_names import Section, fields_of, known_keys
from imgcls.config.keys import Experiment
from imgcls.config.mistakes import hint
from imgcls.config.toml import as_toml
from imgcls.errors import ConfigError


def config_table(prefix: str = "") -> list[tuple[str, str, str]]:
    """The table of the keys of an experiment file: the default of each, and what it means.

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
