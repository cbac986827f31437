"""Figures of images with words: mistakes, maps, likely label errors, batches. Each function gives a new `Figure`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imgcls.reporting.drawing import GREY, SMALL, TINY, legible, sentence, verbatim

TILE, LINE, NAME, GAP = 1.66, 0.15, 0.2, 0.1
"""Inches: side of an image, height of a line above it, of the name below it, and space between two images."""


class Images(Protocol):
    """Images of a figure, of which only the rows shown are read: an array, or what gives rows of it."""

    def __getitem__(self, row: int, /) -> Any:
        """uint8 (C, H, W), C = 1 (grey) or 3 (RGB)."""


@dataclass(frozen=True)
class Tile:
    """An image of a figure.

    Attributes:
        image: uint8 (C, H, W), C = 1 (grey) or 3 (RGB).
        words: up to two lines above it.
        name: below it, "" for none.
        heat: float (h, w), at least 0: map drawn over a second copy of the image, below the first; None for none.
    """

    image: NDArray[np.uint8]
    words: str
    name: str = ""
    heat: NDArray[np.floating] | None = None


def image_grid(tiles: Sequence[Tile], title: str) -> Figure:
    """Figure of images, each with its words; row by row, six in a row.

    Args:
        tiles: at least one; with a map each, or none with a map.
        title: of the whole.
    """
    num_columns, num_images = min(6, len(tiles)), 1 + (tiles[0].heat is not None)
    num_blocks = math.ceil(len(tiles) / num_columns)
    above = 0.06 + LINE * max(1 + tile.words.count("\n") for tile in tiles)
    block = above + num_images * TILE + (NAME if any(tile.name for tile in tiles) else GAP)
    # Three columns at least, so that the title has room. Fixed places: a constrained layout takes longer than drawing.
    width, height = max(num_columns, 3) * (TILE + GAP) + GAP, 0.4 + num_blocks * block
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=10, y=1 - 0.2 / height)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, num_columns)
        top = 0.4 + row * block + above
        for place in range(num_images):
            left, bottom = GAP + column * (TILE + GAP), height - top - (place + 1) * TILE
            axes = figure.add_axes((left / width, bottom / height, TILE / width, TILE / height))
            axes.set_axis_off()
            _show_image(axes, tile.image)
            if place == 0:
                axes.set_title(tile.words, fontsize=SMALL, pad=3, y=1)  # without y, a place is searched for, slowly
            if place == 1 and tile.heat is not None:
                _show_heat(axes, tile.heat, tile.image.shape[1:])
            if place == num_images - 1:
                _name_below(axes, tile.name)
    return figure


def surest_mistakes(labels: NDArray[np.integer], probs: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows of the images that a figure of mistakes shows: those predicted wrong, the highest confidence first.

    Args:
        labels: int64 (N,).
        probs: float (N, K).
    """
    mistakes = np.flatnonzero(probs.argmax(axis=1) != labels)
    order: NDArray[np.int64] = mistakes[np.argsort(-probs.max(axis=1)[mistakes], kind="stable")]
    return order


def worst_mistakes(
    pixels: Images,
    labels: NDArray[np.integer],
    probs: NDArray[np.floating],
    keys: Sequence[str],
    class_names: Sequence[str],
    num: int = 24,
    maps: NDArray[np.floating] | None = None,
) -> Figure:
    """Figure of the wrong predictions of the highest confidence: images, each under truth → prediction (confidence).

    Args:
        pixels: of the N images.
        labels: int64 (N,).
        probs: float (N, K).
        keys: N names of the images in their source.
        class_names: K names.
        num: how many to show at most, at least 1.
        maps: float (M, h, w) of the M surest mistakes, drawn over the images once more; then M are shown.

    Returns:
        A grid of images, or a sentence where nothing was predicted wrong.
    """
    mistakes = surest_mistakes(labels, probs)
    if not len(mistakes):
        return sentence(f"No mistakes: all {len(labels)} images were predicted right.")
    shown = mistakes[: num if maps is None else len(maps)]
    heats: Sequence[NDArray[np.floating] | None] = [None] * len(shown) if maps is None else list(maps)
    tiles = []
    for row, heat in zip(shown, heats, strict=True):
        prediction = probs[row].argmax()
        words = _from_to(class_names[labels[row]], f"({probs[row, prediction]:.1%})", class_names[prediction])
        tiles.append(Tile(pixels[row], words, keys[row], heat))
    what = "Mistakes of highest confidence" if maps is None else "Where the network looked"
    return image_grid(tiles, f"{what}: {len(shown)} of {len(mistakes)}")


def likely_label_errors(
    pixels: Images,
    labels: NDArray[np.integer],
    keys: Sequence[str],
    class_names: Sequence[str],
    errors: pd.DataFrame,
    num: int = 24,
) -> Figure:
    """Figure of the images whose labels are likely wrong, each under label → suggested class.

    Args:
        pixels: of the N images.
        labels: int64 (N,).
        keys: N names of the images in their source.
        class_names: K names.
        errors: as `statistics.label_errors` gives them; only those that are likely are shown.
        num: how many to show at most, at least 1.

    Returns:
        A grid of images, or a sentence where no label is likely wrong.
    """
    likely = errors[errors["is_likely"]]
    if likely.empty:
        return sentence(f"No likely label errors among {len(labels)} images.")
    tiles = [
        Tile(pixels[row], _from_to(class_names[labels[row]], f"({share:.1%})?", class_names[suggested]), keys[row])
        for row, suggested, share in likely[["row", "suggested", "prob_suggested"]][:num].itertuples(index=False)
    ]
    return image_grid(tiles, f"Likely label errors: {len(tiles)} of {len(likely)}")


def training_sample(images: NDArray[np.uint8], targets: NDArray[np.floating], class_names: Sequence[str]) -> Figure:
    """Figure of augmented training images, each under its label, or under both labels where two images are mixed.

    Args:
        images: uint8 (N, C, S, S), C = 1 (grey) or 3 (RGB).
        targets: float (N, K), the share of each class in the label.
        class_names: K names.
    """
    tiles = [Tile(image, _shares(target, class_names)) for image, target in zip(images, targets, strict=True)]
    return image_grid(tiles, "Training images as the network sees them")


def _shares(target: NDArray[np.floating], class_names: Sequence[str]) -> str:
    largest = np.argsort(-target, kind="stable")[:2]
    if target[largest[1]] == 0:
        return legible(class_names[largest[0]])
    return "\n".join(f"{legible(class_names[label], 16)} {target[label]:.0%}" for label in largest)


def _from_to(before: str, share: str, after: str) -> str:
    return f"{legible(before)} →\n{legible(after, 15)} {share}"


def near_duplicates(
    above: NDArray[np.uint8], below: NDArray[np.uint8], keys: Sequence[tuple[str, str]], num_pairs: int,
    title: str = "Near duplicates, train above val",
) -> Figure:  # fmt: skip
    """Figure beside those of predictions: pairs of images, each above the one that looks like it.

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


def _show_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    grey_or_rgb = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(grey_or_rgb, cmap="gray", vmin=0, vmax=255)  # RGB takes no notice of the last three


def _show_heat(axes: Axes, heat: NDArray[np.floating], size: tuple[int, ...]) -> None:
    """Draws a map over an image of `size` (H, W), each on its own scale."""
    height, width = size
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    highest = float(heat.max()) or 1.0
    axes.imshow(heat, cmap="inferno", alpha=0.55, vmin=0, vmax=highest, extent=extent, interpolation="bilinear")


def _name_below(axes: Axes, key: str) -> None:
    line = " ".join(key.split())
    tail = verbatim(line if len(line) <= 30 else f"…{line[-29:]}")
    axes.text(0.5, -0.04, tail, transform=axes.transAxes, fontsize=TINY, color=GREY, ha="center", va="top")
