"""Types of values that keys of an experiment have: names, shares, ranges and choices, each with its limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field


def _must_be(remedy: str, is_right: Callable[[Any], object]) -> AfterValidator:
    def check(value: Any) -> Any:
        if not is_right(value):
            raise ValueError(f"must be {remedy}")
        return value

    return AfterValidator(check)


TestViews = Literal["one", "flips", "orientations"]
"""Type of `data.test_views`."""

Fit = Literal["crop", "pad", "squash"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[
    str,
    _must_be(
        "up to 100 letters, digits, dots, underscores and hyphens, the first a letter or digit",
        re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch,
    ),
]
Device = Annotated[
    str,
    _must_be('"auto", "cpu", "cuda", "cuda:N" or "mps"', re.compile("auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?").fullmatch),
]
Ends = tuple[float, float]
AreaRange = Annotated[Ends, _must_be("[low, high] with 0 < low <= high <= 1", lambda ends: 0 < ends[0] <= ends[1] <= 1)]
RatioRange = Annotated[Ends, _must_be("[low, high] with 0 < low <= high", lambda ends: 0.0 < ends[0] <= ends[1])]
