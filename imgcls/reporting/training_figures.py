"""Figures of runs and sweeps: curves over the epochs, trials, importances. Each function gives a new `Figure`."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from imgcls.metrics import ACCURACY, LOSS, Metric
from imgcls.record import MetricName
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
    rows_with_intervals,
    sentence,
    whole_numbers,
)
from imgcls.statistics.intervals import Interval

RUN_COLOURS = (BLUE, ORANGE, "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
RUN_LINES = ("-", "--", ":", "-.")
"""Runs in one picture take each colour with the first style, then with the second: 28 looks."""


def learning_curves(
    history: pd.DataFrame | Sequence[Mapping[str, float]], best_epoch: int | None = None, metric: Metric = ACCURACY
) -> Figure:
    """Training figure of a run's learning curves: the loss, and the metric that selects or the accuracy, over epochs.

    Args:
        history: a row per epoch with `epoch` (completed epochs, from 1), `train/loss`, and the metrics on val.
        best_epoch: the epoch whose weights were kept; marked where given.
        metric: what selects.

    Returns:
        Two panels, or a sentence where no epoch was completed.
    """
    table = pd.DataFrame(history)
    if table.empty:
        return sentence("No epoch was completed.")
    # Every run draws one. With fixed margins it is drawn once; an automatic layout would draw it again.
    figure = Figure(figsize=(8.4, 3.6))
    grid = {"left": 0.11, "right": 0.99, "bottom": 0.125, "top": 0.91, "wspace": 0.28}
    loss, beside = figure.subplots(1, 2, gridspec_kw=grid)
    second = _beside_the_loss(metric)
    marker = "o" if len(table) <= 40 else ""
    for axes, name, colour in (
        (loss, MetricName.TRAIN_LOSS, ORANGE),
        (loss, LOSS.on_val, BLUE),
        (beside, second.on_val, BLUE),
    ):
        axes.plot(table["epoch"], table[name], color=colour, marker=marker, markersize=3, linewidth=1.5, label=name)
    loss.set_ylabel(LOSS.words)
    beside.set_ylabel(second.words)
    for axes in (loss, beside):
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label=f"best epoch ({best_epoch})")
        axes.set_xlim(table["epoch"].min() - 0.5, table["epoch"].max() + 0.5)
        whole_numbers(axes, "epoch")
        plain_axes(axes)
        legend_above(axes)
    return figure


def _beside_the_loss(metric: Metric) -> Metric:
    return ACCURACY if metric is LOSS else metric


def overlaid_curves(
    runs: Mapping[str, pd.DataFrame | Sequence[Mapping[str, float]]], metric: Metric = ACCURACY
) -> Figure:
    """Training figure of the learning curves of several runs over one another, on val.

    Args:
        runs: name -> a row per epoch with `epoch` (completed epochs, from 1), `val/loss` and the metric that selects,
            or the accuracy. A run without an epoch is left out.
        metric: what selects.

    Returns:
        Two panels, or a sentence where no run completed an epoch.
    """
    tables = {name: table for name, rows in runs.items() if len(table := pd.DataFrame(rows))}
    if not tables:
        return sentence("No epoch was completed.")
    figure, both = panels(8.4, 3.5 + 0.2 * math.ceil(len(tables) / 3), num=2)
    marker = "o" if max(map(len, tables.values())) <= 40 else ""
    for axes, drawn in zip(both, (_beside_the_loss(metric), LOSS), strict=True):
        for i, (name, table) in enumerate(tables.items()):
            axes.plot(
                table["epoch"], table[drawn.on_val], RUN_LINES[i // len(RUN_COLOURS) % len(RUN_LINES)],
                color=RUN_COLOURS[i % len(RUN_COLOURS)], marker=marker, markersize=3, linewidth=1.5,
                label=legible(name, 40),
            )  # fmt: skip
        axes.set_ylabel(f"{drawn.words} on val")
        whole_numbers(axes, "epoch")
        plain_axes(axes)
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def search_history(
    trials: Sequence[int], values: Sequence[float], outcomes: Sequence[str], metric: Metric = ACCURACY
) -> Figure:
    """Training figure of a search: what each trial reached, and the best of the completed ones so far.

    Args:
        trials: their numbers, in any order.
        values: the metric of each; NaN where a trial has none, which then stands as a cross on the axis.
        outcomes: `completed`, `paused`, `pruned` or `failed`, of each.
        metric: what the values are.

    Returns:
        A scatter, or a sentence where there are no trials.
    """
    table = pd.DataFrame({"trial": trials, "value": values, "outcome": outcomes}).sort_values("trial")
    if table.empty:
        return sentence("No trial has ended.")
    figure, (axes,) = panels(7, 3.8)
    completed, pruned = (table[table["outcome"].isin(kind)] for kind in (["completed"], ["paused", "pruned"]))
    label = not_completed(outcomes)
    axes.plot(pruned["trial"], pruned["value"], "o", color=GREY, fillstyle="none", markersize=4, label=label)
    axes.plot(completed["trial"], completed["value"], "o", color=BLUE, markersize=4, label="completed")
    best = completed["value"].cummax() if metric.higher_is_better else completed["value"].cummin()
    axes.step(completed["trial"], best, where="post", color=ORANGE, linewidth=1.5, label="best so far")
    lost = table[table["value"].isna()]["trial"]
    if len(lost):
        at_the_bottom = axes.get_xaxis_transform()
        axes.plot(lost, [0] * len(lost), "x", color=GREY, transform=at_the_bottom, clip_on=False, label="no score")
    axes.set_ylabel(metric.on_val)
    whole_numbers(axes, "trial")
    plain_axes(axes)
    legend_above(axes, ncols=4)
    return figure


def importances(shares: Mapping[str, tuple[float, Interval]]) -> Figure:
    """Training figure of how much each searched key matters for the metric, the most important on top.

    Args:
        shares: dotted key -> share of the metric's variation, in [0, 1], and the range of that.

    Returns:
        Horizontal bars with their ranges, or a sentence where there are none.
    """
    if not shares:
        return sentence("There are too few completed trials to say what matters.")
    ordered = sorted(shares.items(), key=lambda item: item[1][0])
    figure, (axes,) = panels(6, 0.9 + 0.32 * len(ordered))
    axes.barh(range(len(ordered)), [share for _, (share, _) in ordered], 0.6, color=PALE_BLUE)
    names = [f"{legible(key, 40)}  {share:.0%}" for key, (share, _) in ordered]
    rows_with_intervals(axes, names, [interval for _, (_, interval) in ordered])
    axes.set_xlabel("share of the metric's variation; lines: in 90% of resamples of the trials")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.margins(x=0.12)
    return figure


def leaderboard_intervals(
    names: Sequence[str], values: Sequence[float], intervals: Sequence[Interval], metric: Metric = ACCURACY,
    num: int = 20,
) -> Figure:  # fmt: skip
    """Training figure of the best trials with their 95% intervals: one sees which of them cannot be told apart.

    Args:
        names: of the trials, best first.
        values: the metric of each.
        intervals: of each value.
        metric: what the values are.
        num: how many to show at most, at least 1.

    Returns:
        A dot with its whiskers a row, or a sentence where there are no trials.
    """
    if not names:
        return sentence("No trial was completed.")
    shown = [legible(name, 40) for name in names[:num]]
    figure, (axes,) = panels(6, 1.1 + 0.26 * len(shown))
    rows_with_intervals(axes, shown, intervals[:num])
    axes.plot(values[:num], range(len(shown)), "o", color=BLUE, markersize=4)
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric.on_val}, 95% interval")
    axes.set_title(f"The best {len(shown)} of {len(names)} trials", fontsize=10)
    return figure
