"""Values as TOML, as an experiment file and an override have them."""

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from imgcls.errors import ConfigError

MOST_CHARACTERS = 2**16
"""Largest length of an experiment file in characters; the longest that imgcls writes have a tenth of it."""

MOST_DOTS = 200
"""Most dots in a line that may hold a dotted key; `tomllib` takes time that grows with the square of a key's parts."""


def parse_override(text: str) -> tuple[str, Any]:
    """Parses the TOML of an override: `KEY=VALUE` -> (key, value); the value may be a bare word for a string.

    The key may have quotes where a file would have them, as in `search.space."train.lr"`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, such as train.lr=3e-3")
    table = _toml_or_nothing(f"value = {value}")
    return _unquoted(key.strip()), table["value"] if len(table) == 1 else value.strip()


def as_options(values: Mapping[str, Any]) -> str:
    """The `--set` options that give these dotted keys their values, as they are typed in a shell."""
    return " ".join(f"--set {shlex.quote(f'{key}={_as_typed(value)}')}" for key, value in values.items())


def _as_typed(value: Any) -> str:
    """The value of an override: a bare word where that means the same string."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True, exclude_defaults=True)
    is_bare = isinstance(value, str) and parse_override(f"key={value}")[1] == value
    return value if is_bare else as_toml(value)


def _unquoted(key: str) -> str:
    """A dotted key without its quotes; text that is not a key stays as it is, and an error shows it later."""
    node, parts = _toml_or_nothing(f"{key} = true"), []
    while isinstance(node, dict) and len(node) == 1:
        ((part, node),) = node.items()
        parts.append(part)
    return ".".join(parts) if node is True else key


def _toml_or_nothing(text: str) -> Any:
    try:
        return parse_toml(text)
    except (ValueError, RecursionError):
        return {}


def toml_key(key: str) -> str:
    """The TOML of a key, in quotes where it needs them."""
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else as_toml(key)


def as_toml(value: Any) -> str:
    """The TOML of a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML has JSON's escapes, and one more: DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, BaseModel):
        return as_toml(value.model_dump(exclude_none=True))
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {as_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    return str(value)  # a date or a time, which no key takes


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML, and refuses what would keep the parser busy for minutes.

    Raises:
        ValueError: not TOML, or larger than any experiment.
        RecursionError: nested too deeply.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"longer than the {MOST_CHARACTERS} characters that an experiment may have")
    for number, line in enumerate(text.split("\n"), start=1):
        key, _, value = line.partition("=")
        dots = (line if "=" in value or not value else key).count(".")
        if dots > MOST_DOTS:
            raise ValueError(f"line {number} has {dots} dots, more than {MOST_DOTS}; break a long list into lines")
    return tomllib.loads(text)
