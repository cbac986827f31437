"""Scores as people read them: with as many digits as their intervals support."""

import math

from imgcls.statistics.intervals import Interval

MAX_DECIMALS = 4
"""What `rounded` shows at most, however narrow the interval."""

UNDEFINED = "–"
"""What `rounded` shows for NaN."""

DECIMALS_WITHOUT_INTERVAL = 2
"""What `rounded` shows of a score without an interval."""


def rounded(value: float, interval: Interval) -> str:
    """Rounds a score to the digits that its interval supports.

    The last decimal shown is that of the half-width's first significant digit, the half-width itself being rounded to
    one digit first: 0.8742 +- 0.025 is "0.87", 0.8742 +- 0.0031 is "0.874", 0.8742 +- 0.2 is "0.9". Between 0 and
    `MAX_DECIMALS` decimals; NaN is "–". Nothing is rounded to perfection: a value below 1 gets as many decimals as it
    takes not to be shown as 1, and one above 0 likewise where its interval does not reach below 0.

    Args:
        value: the score, or an end of the interval.
        interval: of the score. Another score of the same images may borrow it.
    """
    if math.isnan(value):
        return UNDEFINED
    floor = 0.0 if interval.low >= 0 else -math.inf
    decimals = _decimals(interval)
    while _is_perfect(shown := f"{value:z.{decimals}f}", value, floor):
        decimals += 1
    return shown


def _is_perfect(shown: str, value: float, floor: float) -> bool:
    """Whether rounding took a value to 1, or down to the floor, that is neither."""
    return value < 1 <= float(shown) or float(shown) <= floor < value


def with_interval(value: float, interval: Interval) -> str:
    """A rounded score with its interval, as `0.85 (0.81 to 0.89)`."""
    return f"{rounded(value, interval)} ({ends(interval)})"


def ends(interval: Interval) -> str:
    """The rounded ends of an interval, as `0.81 to 0.89`; a dash for `NO_INTERVAL`."""
    if math.isnan(interval.half_width):
        return UNDEFINED
    return f"{rounded(interval.low, interval)} to {rounded(interval.high, interval)}"


def score_text(value: float, interval: Interval | None, of_accuracy: Interval) -> str:
    """A rounded score with its interval, or with the digits of the accuracy on the same images where it has none."""
    return rounded(value, of_accuracy) if interval is None else with_interval(value, interval)


def _decimals(interval: Interval) -> int:
    if math.isnan(interval.half_width):
        return DECIMALS_WITHOUT_INTERVAL
    if interval.half_width == 0:
        return MAX_DECIMALS
    exponent = int(f"{interval.half_width:.0e}".split("e")[1])
    return min(max(-exponent, 0), MAX_DECIMALS)
