"""What a key may be searched in: a list of its values or a range, checked against the key itself."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from imgcls.config.mistakes import mistakes, value_text, why_not_searched
from imgcls.config.ranges import Range
from imgcls.config.schema import Section

Scalar = bool | int | float | str
Options = Range | Annotated[tuple[Scalar, ...], Field(min_length=1)]

MOST_IN_A_FLOAT = 2**53
"""The largest number up to which a 64-bit float holds every whole number; Optuna keeps values of ranges as floats."""


def checked_options(key: str, options: Options, schema: type[Section]) -> Options:
    """The values that a search space has for a key, in the key's own type: `low = 0` for a share becomes 0.0.

    Args:
        key: dotted.
        options: as the user wrote them.
        schema: the sections and keys there are.

    Raises:
        ValueError: a key that cannot be searched, or a value that the key itself would refuse.
    """
    if why := why_not_searched(key, schema):
        raise ValueError(f"search.space.{key}: {why}")

    def typed(value: Scalar, part: str = "") -> Any:
        try:
            return _adapter(key, schema).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            wrong = "; ".join(mistakes(error, value, schema))
            raise ValueError(f"search.space.{key}{part} = {value_text(value)}: {wrong}") from None

    if not isinstance(options, Range):
        values = tuple(typed(value) for value in options)
        if len(set(values)) < len(values):
            raise ValueError(f"search.space.{key} = {value_text(options)}: names a value twice")
        return values
    low, high, step = typed(options.low, ".low"), typed(options.high, ".high"), options.step
    if isinstance(low, float):
        step = None if step is None else float(step)
    elif isinstance(step, float):
        raise ValueError(f"search.space.{key}.step = {step}: must be a whole number")
    elif high > MOST_IN_A_FLOAT:
        raise ValueError(f"search.space.{key}.high = {high}: a range must end at 2^53 or before; list what lies beyond")
    return Range(low=low, high=high, log=options.log, step=step)


@functools.cache
def _adapter(key: str, schema: type[Section]) -> TypeAdapter[Any]:
    """Validates a value of a key of one of the sections."""
    section, _, name = key.partition(".")
    field = type(schema.model_fields[section].default).model_fields[name]
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(kind)
