"""Figures of searched values: one key against the metric, and all keys at once. Each function gives a new `Figure`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from imgcls.config.ranges import Options, Range, Scalar
from imgcls.metrics import ACCURACY, Metric
from imgcls.reporting.drawing import (
    BLUE,
    GREY,
    ORANGE,
    PALE_BLUE,
    SMALL,
    legend_above,
    legible,
    not_completed,
    panels,
    plain_axes,
    sentence,
    verbatim,
)
from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.text import short

MOST_CHOICES = 10
"""Number of values up to which each value of a range has a place of its own in a figure."""

SPREAD = 0.24
"""How far trials with the same value are moved apart, at most, where the distance of two values is 1."""


@dataclass(frozen=True, eq=False)
class SearchedKey:
    """A searched key with what each trial drew of it, for figures and words.

    Attributes:
        name: dotted.
        options: the values in which it was searched.
        values: of each trial; None or NaN where a trial has none.
    """

    name: str
    options: Options
    values: Sequence[object]

    @cached_property
    def choices(self) -> tuple[Scalar, ...]:
        """Every value where there are few; empty for any other range."""
        if not isinstance(self.options, Range):
            return self.options
        num = self.options.num_values
        return () if num is None or num > MOST_CHOICES else tuple(map(self.options.value, range(num)))

    @property
    def is_log(self) -> bool:
        """Whether it was drawn evenly in the logarithm."""
        return isinstance(self.options, Range) and self.options.log

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Float (N,): the value of each trial, or its index among `choices`; NaN where it has none."""
        return np.array([self._place(value) for value in self.values], dtype=np.float64)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Float (N,): how far along its range the value of each trial lies, from 0 to 1."""
        if self.choices:
            return self.places / max(len(self.choices) - 1, 1)
        assert isinstance(self.options, Range)
        low, high = float(self.options.low), float(self.options.high)
        if self.is_log:
            return np.log(self.places / low) / math.log(high / low)
        return (self.places - low) / (high - low)

    def _place(self, value: object) -> float:
        if value is None or value != value:
            return math.nan
        if self.choices:
            return float(self.choices.index(value)) if value in self.choices else math.nan
        return float(value)  # type: ignore[arg-type]  # a range holds numbers


def values_of_key(
    key: SearchedKey, scores: Sequence[float], outcomes: Sequence[str], metric: Metric = ACCURACY,
    interval: Interval = NO_INTERVAL,
) -> Figure:  # fmt: skip
    """Figure of a searched key: what each trial reached with its value.

    Args:
        key: with a value a trial, the best trial first.
        scores: the metric of each trial; NaN where it has none, which is left out.
        outcomes: `completed`, `paused`, `pruned` or `failed`, of each.
        metric: what the scores are.
        interval: of the best trial's score, drawn as a band.

    Returns:
        A scatter; over each of few values, the median of its completed trials.
    """
    values, completed = np.asarray(scores, dtype=np.float64), np.asarray(outcomes) == "completed"
    drawn = ~np.isnan(values) & ~np.isnan(key.places)
    if not drawn.any():
        return sentence("No trial has a score.")
    figure, (axes,) = panels(6, 3.2)
    if not math.isnan(interval.low):
        axes.axhspan(interval.low, interval.high, color=PALE_BLUE, alpha=0.4, lw=0, label="95% interval of the best")
    places = key.places + _moved_apart(len(values)) if key.choices else key.places
    pruned, ended = drawn & ~completed, drawn & completed
    if pruned.any():
        label = not_completed(outcomes)
        axes.plot(places[pruned], values[pruned], "o", color=GREY, fillstyle="none", markersize=4, label=label)
    axes.plot(places[ended], values[ended], "o", color=BLUE, markersize=4, alpha=0.75, label="completed")
    axes.plot(places[:1], values[:1], "D", color=ORANGE, markeredgecolor="black", markersize=7, label="best")
    _draw_medians(axes, key, values, ended)
    _draw_scale(axes, key)
    axes.set_ylabel(metric.on_val)
    plain_axes(axes)
    legend_above(axes)
    return figure


def values_together(keys: Sequence[SearchedKey], num_best: int = 5) -> Figure:
    """Figure of the values of every key at once: a line a trial through its values, a row a key.

    Args:
        keys: with a value for each completed trial, the best trial first.
        num_best: trials that are drawn in colour.

    Returns:
        The rows. Without any key or completed trial, a sentence that says so.
    """
    num = len(keys[0].values) if keys else 0
    if not num:
        return sentence("No trial was completed.")
    figure, (axes,) = panels(6, 0.9 + 0.62 * len(keys))
    rows = np.arange(len(keys))
    apart = _moved_apart(num)
    shares = np.array([
        key.shares + (apart / max(len(key.choices) - 1, 1) * 0.4 if key.choices else 0) for key in keys
    ])  # fmt: skip
    axes.hlines(rows, 0, 1, color="#BBBBBB", linewidth=0.8)
    for trial in reversed(range(num)):
        looks = {"color": GREY, "alpha": 0.25, "linewidth": 0.8}
        if trial < num_best:
            looks = {"color": BLUE, "linewidth": 1.5, "marker": "o", "markersize": 3}
        if trial == 0:
            looks = {"color": ORANGE, "linewidth": 2.5, "marker": "D", "markersize": 6, "markeredgecolor": "black"}
        axes.plot(shares[:, trial], rows, **looks)  # type: ignore[arg-type]
    for row, key in enumerate(keys):
        for share, name in _marks(key):
            axes.annotate(
                name, (share, row), (0, -6), textcoords="offset points", ha="center", va="top", size=SMALL,
                bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.8}, zorder=3,
            )  # fmt: skip
    axes.set_yticks(rows, [legible(key.name, 40) for key in keys])
    axes.set(xlim=(-0.12, 1.12), ylim=(len(keys) - 0.4, -0.3), xticks=[])
    axes.tick_params(labelsize=SMALL, length=0)
    axes.spines[:].set_visible(False)
    return figure


def _moved_apart(num: int) -> NDArray[np.float64]:
    """Offsets of trials with the same value, spread by the golden ratio: the same at each drawing."""
    spread = np.asarray(((np.arange(num) * 0.618034) % 1 - 0.5) * 2 * SPREAD, dtype=np.float64)
    spread[:1] = 0  # the best
    return spread


def _draw_medians(axes: Axes, key: SearchedKey, values: NDArray[np.float64], of: NDArray[np.bool_]) -> None:
    scores = {place: values[of & (key.places == place)] for place in range(len(key.choices))}
    places = np.array([place for place, here in scores.items() if len(here)])
    if len(places):
        medians = [float(np.median(scores[place])) for place in places]
        axes.hlines(medians, places - 0.32, places + 0.32, color="black", linewidth=1.5, label="median")


def _draw_scale(axes: Axes, key: SearchedKey) -> None:
    axes.set_xlabel(legible(key.name, 40))
    if key.choices:
        axes.set_xticks(range(len(key.choices)), [legible(short(choice), 14) for choice in key.choices])
        axes.set_xlim(-0.5, len(key.choices) - 0.5)
        return
    assert isinstance(key.options, Range)
    low, high = float(key.options.low), float(key.options.high)
    if not key.is_log:
        axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        return
    axes.set_xscale("log")
    margin = (high / low) ** 0.03
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(float(value))))
    axes.set_xticks(_log_ticks(low, high))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in the range; where there are few, thirds of decades too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    heads = (1,) if len(powers) > 5 else (1, 3) if len(powers) > 3 else (1, 2, 5)
    return [tick for power in powers for head in heads if low <= (tick := head * 10.0**power) <= high] or [low, high]


def _marks(key: SearchedKey) -> list[tuple[float, str]]:
    """Where along a row which value lies: each of few values, else the ends."""
    if key.choices:
        last = max(len(key.choices) - 1, 1)
        return [(place / last, legible(short(choice), 10)) for place, choice in enumerate(key.choices)]
    assert isinstance(key.options, Range)
    return [(0.0, verbatim(short(key.options.low))), (1.0, verbatim(short(key.options.high)))]
