"""Figures of a record. Each function gives a `Figure` of its own; pyplot and its global state stay out."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from imgcls.statistics.intervals import Interval, wilson
from imgcls.statistics.scores import Reliability

# Okabe and Ito's palette, told apart by every common kind of colour blindness.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#666666"
PALE_BLUE = "#A6CEE3"
RUN_COLOURS = (BLUE, ORANGE, "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
RUN_LINES = ("-", "--", ":", "-.")
"""Runs in one picture take each colour with the first style, then with the second: 28 looks."""
SMALL, TINY = 8, 6
"""Font sizes in points; titles take 10."""

MAX_ANNOTATED_CLASSES = 20
MAX_NAMED_CLASSES = 100
MAX_NAME = 22
"""Characters of a class name that a figure shows."""


def confusion_matrix(matrix: NDArray[np.integer], class_names: Sequence[str]) -> Figure:
    """Draws who is taken for whom: colour is the share of the true class, text the count and that share.

    Cells carry text up to 20 classes. From there on the colour scale is a square root, which lets rare mistakes show,
    and beyond 100 classes not every one is named.

    Args:
        matrix: int64 (K, K), row = true class, column = predicted class. A row of zeros is drawn grey.
        class_names: K names.

    Raises:
        ValueError: where `matrix` is not (K, K).
    """
    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"a confusion matrix {matrix.shape} for {num_classes} class names: give one row per name")
    shares = _row_shares(matrix)
    annotated = num_classes <= MAX_ANNOTATED_CLASSES
    names = [_legible(name) for name in class_names]
    cell = _cell_inches(num_classes)
    margin = 0.9 + 0.065 * max(map(len, names))
    figure = Figure(figsize=(num_classes * cell + margin + 0.9, num_classes * cell + margin), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        shares,
        cmap=colormaps["Blues"].with_extremes(bad="#E5E5E5"),
        norm=Normalize(0, 1) if annotated else PowerNorm(0.5, 0, 1),
    )
    if annotated:
        _annotate(axes, matrix, shares)
    _name_cells(axes, names, cell)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} images right", fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, format=PercentFormatter(1))
    bar.set_label("share of the true class", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    return figure


def reliability_diagram(reliability: Reliability, ece: float, *, has_intervals: bool = True) -> Figure:
    """Draws accuracy against confidence, over a histogram of confidence.

    A point stands at its bin's mean confidence, so its distance to the diagonal is the bin's share in the calibration
    error; its bar is the 95% Wilson interval, where there is one.

    Args:
        reliability: the bins.
        ece: expected calibration error, in [0, 1].
        has_intervals: draw the bars; False for images in groups, which are not independent.
    """
    filled = np.flatnonzero(reliability.counts)
    left, widths = reliability.edges[:-1], np.diff(reliability.edges)
    confidence, accuracy = reliability.confidence[filled], reliability.accuracy[filled]
    counts = reliability.counts[filled]
    intervals = [wilson(round(share * num), int(num)) for share, num in zip(accuracy, counts, strict=True)]

    figure = Figure(figsize=(5, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(left[filled], accuracy, widths[filled], align="edge", color=PALE_BLUE, edgecolor="white")
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfect calibration")
    # Points at 0 and at 1 lie on the frame: unclipped, they show whole.
    lows, highs = [i.low for i in intervals], [i.high for i in intervals]
    if has_intervals:
        upper.vlines(confidence, lows, highs, color=BLUE, linewidth=1.2, clip_on=False)
    label = "accuracy, 95% interval" if has_intervals else "accuracy"
    upper.plot(confidence, accuracy, "o", color=BLUE, markersize=4, label=label, clip_on=False)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    _legend_above(upper)
    figure.suptitle(f"Calibration error (ECE) {ece:.3f}, {reliability.counts.sum()} images", fontsize=10)

    lower.bar(left, reliability.counts, widths, align="edge", color=BLUE, edgecolor="white")
    lower.set(xlabel="confidence (highest probability)", ylabel="images")
    lower.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    for axes in (upper, lower):
        _plain(axes)
    return figure


def worst_mistakes(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.integer],
    probs: NDArray[np.floating],
    keys: Sequence[str],
    class_names: Sequence[str],
    num: int = 24,
) -> Figure:
    """Shows the wrong predictions of highest confidence, each under truth → prediction (confidence).

    Args:
        pixels: uint8 (N, C, H, W), C = 1 (grey) or 3 (RGB). Only the rows shown are read.
        labels: int64 (N,).
        probs: float (N, K).
        keys: N names of the images in their source.
        class_names: K names.
        num: how many to show at most, at least 1.

    Returns:
        A grid of images, or a sentence where nothing was predicted wrong.
    """
    predictions, confidence = probs.argmax(axis=1), probs.max(axis=1)
    mistakes = np.flatnonzero(predictions != labels)
    if not len(mistakes):
        return _sentence(f"No mistakes: all {len(labels)} images were predicted right.")
    shown = mistakes[np.argsort(-confidence[mistakes], kind="stable")][:num]
    num_columns = min(6, len(shown))
    num_rows = math.ceil(len(shown) / num_columns)
    # Three columns at least, so that the title has room.
    figure = Figure(figsize=(1.75 * max(num_columns, 3), 2.35 * num_rows + 0.4), layout="constrained")
    figure.suptitle(f"Mistakes of highest confidence: {len(shown)} of {len(mistakes)}", fontsize=10)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten().tolist()
    for axes in panels:
        axes.set_axis_off()
    for axes, row in zip(panels, shown, strict=False):
        truth, prediction = class_names[labels[row]], class_names[predictions[row]]
        _show_image(axes, pixels[row])
        axes.set_title(f"{_legible(truth)} →\n{_legible(prediction, 15)} ({confidence[row]:.1%})", fontsize=SMALL)
        _name_below(axes, keys[row])
    return figure


def near_duplicates(
    above: NDArray[np.uint8], below: NDArray[np.uint8], keys: Sequence[tuple[str, str]], num_pairs: int,
    title: str = "Near duplicates, train above val",
) -> Figure:  # fmt: skip
    """Shows images, each above the one that looks like it.

    Args:
        above: uint8 (N, C, H, W), C = 1 (grey) or 3 (RGB), N at least 1.
        below: uint8 (N, C, S, S), their counterparts.
        keys: N pairs of names.
        num_pairs: how many pairs there are in all.
        title: what they are.
    """
    num_columns = min(5, len(keys))
    num_blocks = math.ceil(len(keys) / num_columns)
    # In inches: two images of 1.66, a name of 0.2 below each, and a gap of 0.25 between one pair and the next; three
    # columns at least, so that the title has room. No constrained layout, which takes longer than the drawing.
    height = 0.4 + 3.97 * num_blocks
    figure = Figure(figsize=(1.75 * max(num_columns, 3), height))
    figure.suptitle(f"{title}: {len(keys)} of {num_pairs}", fontsize=10, y=1 - 0.2 / height)
    blocks = figure.add_gridspec(
        num_blocks, num_columns, top=1 - 0.4 / height, bottom=0.45 / height, left=0.01, right=0.99, wspace=0.06,
        hspace=0.45 / 3.52,
    )  # fmt: skip
    for number, names in enumerate(keys):
        halves = blocks[divmod(number, num_columns)].subgridspec(2, 1, hspace=0.2 / 1.66)
        for row, split in enumerate((above, below)):
            axes = figure.add_subplot(halves[row])
            axes.set_axis_off()
            _show_image(axes, split[number])
            _name_below(axes, names[row])
    return figure


def learning_curves(history: pd.DataFrame | Sequence[Mapping[str, float]], best_epoch: int | None = None) -> Figure:
    """Draws loss and accuracy over the epochs.

    Args:
        history: a row per epoch with `epoch` (completed epochs, from 1), `train/loss` and `val/loss` (nats),
            `val/accuracy` in [0, 1].
        best_epoch: the epoch whose weights were kept; marked where given.

    Returns:
        Two panels, or a sentence where no epoch was completed.
    """
    table = pd.DataFrame(history)
    if table.empty:
        return _sentence("No epoch was completed.")
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    marker = "o" if len(table) <= 40 else ""
    for axes, name, colour in (
        (loss, "train/loss", ORANGE),
        (loss, "val/loss", BLUE),
        (accuracy, "val/accuracy", BLUE),
    ):
        axes.plot(table["epoch"], table[name], color=colour, marker=marker, markersize=3, linewidth=1.5, label=name)
    loss.set_ylabel("loss (nats)")
    accuracy.set_ylabel("accuracy")
    for axes in (loss, accuracy):
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label=f"best epoch ({best_epoch})")
        axes.set_xlabel("epoch")
        axes.set_xlim(table["epoch"].min() - 0.5, table["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _plain(axes)
        _legend_above(axes)
    return figure


def overlaid_curves(runs: Mapping[str, pd.DataFrame | Sequence[Mapping[str, float]]]) -> Figure:
    """Draws the val scores of several runs over one another.

    Args:
        runs: name -> a row per epoch with `epoch` (completed epochs, from 1), `val/accuracy` in [0, 1] and `val/loss`
            (nats). A run without an epoch is left out.

    Returns:
        Two panels, or a sentence where no run completed an epoch.
    """
    tables = {name: table for name, rows in runs.items() if len(table := pd.DataFrame(rows))}
    if not tables:
        return _sentence("No epoch was completed.")
    num_legend_rows = math.ceil(len(tables) / 3)
    figure = Figure(figsize=(8.4, 3.5 + 0.2 * num_legend_rows), layout="constrained")
    panels = figure.subplots(1, 2)
    marker = "o" if max(map(len, tables.values())) <= 40 else ""
    for axes, metric, words in zip(panels, ("val/accuracy", "val/loss"), ("accuracy", "loss (nats)"), strict=True):
        for i, (name, table) in enumerate(tables.items()):
            axes.plot(
                table["epoch"], table[metric], RUN_LINES[i // len(RUN_COLOURS) % len(RUN_LINES)],
                color=RUN_COLOURS[i % len(RUN_COLOURS)], marker=marker, markersize=3, linewidth=1.5,
                label=_legible(name, 40),
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel=f"{words} on val")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _plain(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def search_history(
    trials: Sequence[int], values: Sequence[float], outcomes: Sequence[str], metric: str = "val/accuracy"
) -> Figure:
    """Draws what each trial of a sweep reached, and the best of the completed ones so far.

    Args:
        trials: their numbers, in any order.
        values: the metric of each; NaN where a trial has none, which then stands as a cross on the axis.
        outcomes: `completed`, `pruned` or `failed`, of each.
        metric: `val/accuracy`, of which more is better, or `val/loss`.

    Returns:
        A scatter, or a sentence where there are no trials.
    """
    table = pd.DataFrame({"trial": trials, "value": values, "outcome": outcomes}).sort_values("trial")
    if table.empty:
        return _sentence("No trial has ended.")
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.add_subplot()
    completed, pruned = (table[table["outcome"] == outcome] for outcome in ("completed", "pruned"))
    axes.plot(pruned["trial"], pruned["value"], "o", color=GREY, fillstyle="none", markersize=4, label="pruned")
    axes.plot(completed["trial"], completed["value"], "o", color=BLUE, markersize=4, label="completed")
    best = completed["value"].cummin() if metric == "val/loss" else completed["value"].cummax()
    axes.step(completed["trial"], best, where="post", color=ORANGE, linewidth=1.5, label="best so far")
    lost = table[table["value"].isna()]["trial"]
    if len(lost):
        at_the_bottom = axes.get_xaxis_transform()
        axes.plot(lost, [0] * len(lost), "x", color=GREY, transform=at_the_bottom, clip_on=False, label="no score")
    axes.set(xlabel="trial", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _plain(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=SMALL, frameon=False, borderaxespad=0.2)
    return figure


def importances(shares: Mapping[str, tuple[float, Interval]]) -> Figure:
    """Draws how much each searched key matters for the metric, the most important on top.

    Args:
        shares: dotted key -> share of the metric's variation, in [0, 1], and the range of that.

    Returns:
        Horizontal bars with their ranges, or a sentence where there are none.
    """
    if not shares:
        return _sentence("There are too few completed trials to say what matters.")
    ordered = sorted(shares.items(), key=lambda item: item[1][0])
    figure = Figure(figsize=(6, 0.9 + 0.32 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(ordered))
    axes.barh(places, [share for _, (share, _) in ordered], 0.6, color=PALE_BLUE)
    axes.hlines(places, [r.low for _, (_, r) in ordered], [r.high for _, (_, r) in ordered], color=BLUE, linewidth=1.2)
    axes.set_yticks(places, [f"{_legible(key, 40)}  {share:.0%}" for key, (share, _) in ordered])
    axes.set_xlabel("share of the metric's variation; lines: in 90% of resamples of the trials")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.margins(x=0.12)
    _plain_rows(axes)
    return figure


def leaderboard_intervals(
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[Interval],
    metric: str = "val/accuracy",
    num: int = 20,
) -> Figure:
    """Draws the best trials with their 95% intervals, so that one sees which cannot be told apart.

    Args:
        names: of the trials, best first.
        values: the metric of each.
        intervals: of each value.
        metric: what the values are.
        num: how many to show at most, at least 1.

    Returns:
        A dot with its whiskers a row, or a sentence where there are no trials.
    """
    rows = list(zip(names, values, intervals, strict=True))
    if not rows:
        return _sentence("No trial was completed.")
    shown = rows[:num]
    places = range(len(shown))
    figure = Figure(figsize=(6, 1.1 + 0.26 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.hlines(places, [i.low for _, _, i in shown], [i.high for _, _, i in shown], color=BLUE, linewidth=1.2)
    axes.plot([value for _, value, _ in shown], places, "o", color=BLUE, markersize=4)
    axes.set_yticks(places, [_legible(name, 40) for name, _, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric}, 95% interval")
    axes.set_title(f"The best {len(shown)} of {len(rows)} trials", fontsize=10)
    _plain_rows(axes)
    return figure


def save_png(figure: Figure, dpi: int = 150) -> bytes:
    """Renders a figure; the same figure gives the same bytes.

    Args:
        figure: from any function here.
        dpi: pixels per inch.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; the tables beside the figure have it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _row_shares(matrix: NDArray[np.integer]) -> NDArray[np.float64]:
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.full(matrix.shape, np.nan)
    np.divide(matrix, totals, out=shares, where=totals > 0)
    return shares


def _cell_inches(num_classes: int) -> float:
    if num_classes <= 4:
        return 1.1
    return 0.58 if num_classes <= MAX_ANNOTATED_CLASSES else max(7, min(num_classes * 0.12, 14)) / num_classes


def _annotate(axes: Axes, matrix: NDArray[np.integer], shares: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{matrix[row, column]}\n{share:.0%}",
            color="white" if share > 0.7 else "black",
            fontsize=SMALL,
            ha="center",
            va="center",
        )


def _name_cells(axes: Axes, names: Sequence[str], cell: float) -> None:
    step = math.ceil(len(names) / MAX_NAMED_CLASSES)
    named = range(0, len(names), step)
    size = min(SMALL, 0.75 * 72 * cell * step)
    labels = [names[i] for i in named]
    axes.set_yticks(named, labels, fontsize=size)
    # A character is about 0.6 of the font size wide.
    if max(map(len, names)) * 0.6 * size < 72 * cell:
        axes.set_xticks(named, labels, fontsize=size)
    elif len(names) <= MAX_ANNOTATED_CLASSES:
        axes.set_xticks(named, labels, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(named, labels, fontsize=size, rotation=90)
    axes.tick_params(length=0 if len(names) <= MAX_ANNOTATED_CLASSES else 2)
    axes.spines[:].set_visible(False)


def _show_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    if image.shape[0] == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(image.transpose(1, 2, 0))


def _name_below(axes: Axes, key: str) -> None:
    axes.text(0.5, -0.04, _tail(key), transform=axes.transAxes, fontsize=TINY, color=GREY, ha="center", va="top")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    axes.set_axisbelow(True)


def _plain_rows(axes: Axes) -> None:
    _plain(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.7)


def _legend_above(axes: Axes) -> None:
    # No curve can pass beneath it there.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=SMALL, frameon=False, borderaxespad=0.2)


def _sentence(text: str) -> Figure:
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=10)
    return figure


def _legible(name: str, limit: int = MAX_NAME) -> str:
    """One line, its middle left out where it is long, since long names differ at either end."""
    line = " ".join(name.split())
    if len(line) > limit:
        line = f"{line[: limit // 2]}…{line[-((limit - 1) // 2) :]}"
    return _verbatim(line)


def _tail(key: str, limit: int = 30) -> str:
    line = " ".join(key.split())
    return _verbatim(line if len(line) <= limit else f"…{line[1 - limit :]}")


def _verbatim(text: str) -> str:
    # Matplotlib reads what stands between two dollars as mathematics.
    return text.replace("$", r"\$")
