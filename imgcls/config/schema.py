"""What every table of an experiment file has in common, and the keys in such tables."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def fields_of(section: type[Section], table: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, description) of every table and every key in it, in the order of the file."""
    for name, field in section.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield f"{table}{name}", default, field.description or ""
        if isinstance(default, Section):
            yield from fields_of(type(default), f"{table}{name}.")


@functools.cache
def known_keys(schema: type[Section]) -> tuple[str, ...]:
    """Every section and every dotted key, in the order of the file."""
    return tuple(key for key, _, _ in fields_of(schema))


@functools.cache
def value_keys(schema: type[Section]) -> tuple[str, ...]:
    """Every dotted key that is not a section, in the order of the file."""
    return tuple(key for key, default, _ in fields_of(schema) if not isinstance(default, Section))
