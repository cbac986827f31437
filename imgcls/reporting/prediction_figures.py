"""Figures of a classifier's predictions: confusion and calibration. Each function gives a new `Figure`."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from imgcls.reporting.drawing import (
    BLUE,
    GREY,
    PALE_BLUE,
    SMALL,
    legend_above,
    legible,
    panels,
    plain_axes,
)
from imgcls.statistics.calibration import expected_calibration_error
from imgcls.statistics.calibration import reliability as bins_of_confidence
from imgcls.statistics.intervals import wilson
from imgcls.statistics.predictions import Predictions

MAX_ANNOTATED_CLASSES = 20
MAX_NAMED_CLASSES = 100


def confusion_matrix(matrix: NDArray[np.integer], class_names: Sequence[str]) -> Figure:
    """Figure of predictions, a confusion matrix: colour is the share of the true class, text the count and that share.

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
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    annotated = num_classes <= MAX_ANNOTATED_CLASSES
    names = [legible(name) for name in class_names]
    cell = _cell_inches(num_classes)
    margin = 0.9 + 0.065 * max(map(len, names))
    figure, (axes,) = panels(num_classes * cell + margin + 0.9, num_classes * cell + margin)
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


def reliability_diagram(of: Predictions, temperature: float = 1.0) -> Figure:
    """Figure of predictions by their confidence: the accuracy against it, over its histogram.

    A point stands at its bin's mean confidence, so its distance to the diagonal is the bin's share in the calibration
    error; its bar is the 95% Wilson interval, except for images in groups, which are not independent.

    Args:
        of: N images.
        temperature: above 0. Another than 1 adds, on the right, the same of logits divided by it.
    """
    shown = {"Without temperature": of, f"Temperature {temperature:.4g}": of.at(temperature)}
    if temperature == 1:
        shown = {"Temperature 1": of}
    # Every run draws one. With fixed margins it is drawn once; each automatic layout would draw it again.
    width = 1 + 4 * len(shown)
    figure = Figure(figsize=(width, 5.6))
    grid = {"hspace": 0.06, "wspace": 0.12, "left": 0.7 / width, "right": 1 - 0.2 / width, "bottom": 0.1, "top": 0.87}
    columns = figure.subplots(
        2, len(shown), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False, gridspec_kw=grid
    ).T
    for column, (words, predictions) in zip(columns, shown.items(), strict=True):
        _reliability_column(column, predictions, words)
    for axes, name in zip(columns[0], ("accuracy", "images"), strict=True):
        axes.set_ylabel(name)
    figure.suptitle(f"Calibration error (ECE) on {len(of.labels)} images", fontsize=10)
    return figure


def _reliability_column(column: NDArray[np.object_], of: Predictions, words: str) -> None:
    """Draws accuracy against confidence into the upper axes of a column, and the histogram into the lower ones."""
    reliability, has_intervals = bins_of_confidence(of.confidence, of.hits), not of.units.are_groups
    ece = expected_calibration_error(reliability)
    filled = np.flatnonzero(reliability.counts)
    left, widths = reliability.edges[:-1], np.diff(reliability.edges)
    confidence, accuracy = reliability.confidence[filled], reliability.accuracy[filled]
    counts = reliability.counts[filled]
    intervals = [wilson(round(share * num), int(num)) for share, num in zip(accuracy, counts, strict=True)]

    upper, lower = column
    upper.bar(left[filled], accuracy, widths[filled], align="edge", color=PALE_BLUE, edgecolor="white")
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfect calibration")
    # Points at 0 and at 1 lie on the frame: unclipped, they show whole.
    lows, highs = [i.low for i in intervals], [i.high for i in intervals]
    if has_intervals:
        upper.vlines(confidence, lows, highs, color=BLUE, linewidth=1.2, clip_on=False)
    label = "accuracy, 95% interval" if has_intervals else "accuracy"
    upper.plot(confidence, accuracy, "o", color=BLUE, markersize=4, label=label, clip_on=False)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    legend_above(upper, ncols=2)
    upper.set_title(f"{words}: {ece:.3f}", fontsize=10, pad=20)

    lower.bar(left, reliability.counts, widths, align="edge", color=BLUE, edgecolor="white")
    lower.set_xlabel("confidence (highest probability)")
    lower.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    for axes in (upper, lower):
        plain_axes(axes)


def _cell_inches(num_classes: int) -> float:
    if num_classes <= 4:
        return 1.1
    return 0.58 if num_classes <= MAX_ANNOTATED_CLASSES else max(7, min(num_classes * 0.12, 14)) / num_classes


def _annotate(axes: Axes, matrix: NDArray[np.integer], shares: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        share = shares[row, column]
        colour = "white" if share > 0.7 else "black"
        text = f"{matrix[row, column]}\n{share:.0%}"
        axes.text(column, row, text, color=colour, fontsize=SMALL, ha="center", va="center")


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
