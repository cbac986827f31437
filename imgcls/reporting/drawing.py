"""What all figures share: colours, sizes, axes and names. pyplot and its global state stay out."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imgcls.errors import Interrupted
from imgcls.machine_failures import explain
from imgcls.statistics.intervals import Interval

log = logging.getLogger(__name__)

# Okabe and Ito's palette, told apart by every common kind of colour blindness.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#666666"
PALE_BLUE = "#A6CEE3"
SMALL, TINY = 8, 6
"""Font sizes in points; titles take 10."""
DOTS_PER_INCH = 150
"""Of every picture: 1,260 pixels for the width of a report."""


def save_png(figure: Figure, *, cut: bool = True) -> bytes:
    """Renders a drawn figure as PNG with `DOTS_PER_INCH`; the same figure gives the same bytes.

    `cut` cuts its margins to what is drawn, for which it is drawn twice.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; the tables beside the figure have it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(
            buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight" if cut else None,
            metadata={"Software": None},
        )  # fmt: skip
    return buffer.getvalue()


@contextmanager
def pictures_of(run_id: str) -> Iterator[None]:
    """Draws the pictures of a run in its block; a failure is warned of with its reason, and the run goes on without.

    Raises:
        Interrupted: a stop was requested.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:  # whatever it is, the scores are there, and pictures can be drawn again
        why = explain(error) or f"{type(error).__name__}: {error}"
        log.warning("run %s goes on without pictures that could not be drawn: %s", run_id, why)


def panels(width: float, height: float, num: int = 1) -> tuple[Figure, list[Axes]]:
    """A new figure to draw on, its size in inches, with axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, num, squeeze=False).flatten().tolist()


def whole_numbers(axes: Axes, name: str) -> None:
    """Draws an x axis of whole numbers, such as epochs, with their name and no tick between two of them."""
    axes.set_xlabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def plain_axes(axes: Axes) -> None:
    """Draws axes with small ticks, horizontal grid lines, and no frame at the top and the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    axes.set_axisbelow(True)


def rows_with_intervals(axes: Axes, names: Sequence[str], intervals: Sequence[Interval]) -> None:
    """Draws a row for each name, with its interval as a line, and vertical grid lines."""
    places = range(len(names))
    axes.hlines(places, [i.low for i in intervals], [i.high for i in intervals], color=BLUE, linewidth=1.2)
    axes.set_yticks(places, names)
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.7)


def legend_above(axes: Axes, ncols: int = 3) -> None:
    """Draws a legend above the axes, where it covers no line of the drawing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=ncols, fontsize=SMALL, frameon=False, borderaxespad=0.2)


def sentence(text: str) -> Figure:
    """Draws a sentence in place of a figure that has nothing to show."""
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=10)
    return figure


def legible(name: str, limit: int = 22) -> str:
    """A name as a drawing has room for it: one line, whose middle is left out where it is long."""
    line = " ".join(name.split())
    if len(line) > limit:
        line = f"{line[: limit // 2]}…{line[-((limit - 1) // 2) :]}"
    return verbatim(line)


def verbatim(text: str) -> str:
    """A text for a drawing, as it is: Matplotlib would read what stands between two dollars as mathematics."""
    return text.replace("$", r"\$")


def not_completed(outcomes: Sequence[str]) -> str:
    """What all figures call trials that have a score and were not completed."""
    return "pruned or paused" if "paused" in outcomes else "pruned"
