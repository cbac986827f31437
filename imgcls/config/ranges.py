"""A numeric range of a search space, and the values in it."""

from __future__ import annotations

import fractions

from pydantic import model_validator

from imgcls.config.schema import Section


class Range(Section):
    """A numeric range to search."""

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


def _as_written(number: int | float) -> fractions.Fraction:
    """So that 0.3 is three steps of 0.1."""
    return fractions.Fraction(repr(number))
