"""The values in which a key may be searched: a list or a numeric range, checked against the key itself."""

from __future__ import annotations

import fractions
import functools
import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from imgcls.config.key_names import Section
from imgcls.config.mistakes import mistakes, value_text, why_not_searched

Scalar = bool | int | float | str

MOST_IN_A_FLOAT = 2**53
"""The largest number up to which a 64-bit float holds every whole number; Optuna keeps values of ranges as floats."""


class Range(Section):
    """A range of numbers, from `low` to `high`, as the values of a searched key."""

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value, included."""
    log: bool = False
    """Draw evenly in the logarithm."""
    step: int | float | None = None
    """Distance between values; without it, every value (1 for whole numbers)."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be less than high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log = true needs low > 0 and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step = {self.step} must be positive")
        if self.step is not None and self._steps_to(self.high).denominator != 1:
            raise ValueError(f"high = {self.high} must be low = {self.low} and a whole number of steps of {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant: bounds and step are integers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @property
    def num_values(self) -> int | None:
        """Values that the range holds; None for a continuous or a logarithmic one."""
        if self.log or not (self.whole or self.step):
            return None
        return int(self._steps_to(self.high)) + 1

    def value(self, index: int) -> int | float:
        """`low + index * step`, reckoned in the decimals as they are written and rounded once: 0.3, not 0.1 + 0.2."""
        exact = _as_written(self.low) + index * _as_written(self.step or 1)
        return int(exact) if self.whole else float(exact)

    def nearest_index(self, value: int | float) -> int:
        """Index of the value that lies nearest."""
        return round(self._steps_to(value))

    def __contains__(self, value: int | float) -> bool:
        if not self.low <= value <= self.high:
            return False
        return self.num_values is None or self._steps_to(value).denominator == 1

    def _steps_to(self, value: int | float) -> fractions.Fraction:
        return (_as_written(value) - _as_written(self.low)) / _as_written(self.step or 1)


Options = Range | Annotated[tuple[Scalar, ...], Field(min_length=1)]


def checked_options(key: str, options: Options, schema: type[Section]) -> Options:
    """Checks the range or list of values of a searched key, and gives it in the key's own type: 0 for a share is 0.0.

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


def _as_written(number: int | float) -> fractions.Fraction:
    """So that 0.3 is three steps of 0.1."""
    return fractions.Fraction(repr(number))
