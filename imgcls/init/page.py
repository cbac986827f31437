"""The page about a folder: counts, samples as the model will see them, extremes, duplicates, and what was chosen."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from imgcls.config.toml import as_toml
from imgcls.data.decode import resize_squares
from imgcls.data.image_set import DecodedImages
from imgcls.init.budget import in_words
from imgcls.init.choices import Proposal
from imgcls.init.findings import same_pixels, unreadable_files
from imgcls.init.look import Look
from imgcls.reporting.drawing import BLUE, GREY, PALE_BLUE, SMALL, legible, panels, plain_axes, save_png
from imgcls.reporting.html import page
from imgcls.reporting.report import Headline, Picture, Section
from imgcls.reporting.tables import markdown_table
from imgcls.text import counted, duration

SAMPLES, EXTREMES = 8, 6
"""Number of images that are shown of a class, and of each extreme."""

MOST_CLASSES, MOST_BARS, MOST_PAIRS, MOST_UNREADABLE = 40, 40, 6, 200
"""Number of classes with samples, of bars, of pairs, and of unreadable files that are shown."""

LEAST_TILE, MOST_TILE, GAP = 72, 112, 4
"""Pixels of the side of an image as it is shown, and between two of them."""


def images_page(look: Look, proposal: Proposal, found: Sequence[tuple[str, str]], folder: str) -> str:
    """The page about a folder, as HTML.

    Args:
        look: the images; those of test are never shown.
        proposal: the experiment.
        found: what was found, (what, words).
        folder: as the user named it.
    """
    plan = proposal.plan
    headline = Headline(
        number=f"{look.found.num_all:,} images, {len(look.dataset.class_names):,} classes",
        meaning=f"{folder}. Next: imgcls sweep {proposal.name} ({in_words(plan)}, about {duration(plan.seconds)}).",
        caution=look.dataset.leaks.summary,
    )
    sections = [
        Section("What was found", [markdown_table(("what", "found"), found)]),
        Section("Files that cannot be read", list(_unreadable(look))),
        Section("Images of each class", [_bars(look)]),
        Section("As the model will see them", list(_samples(look))),
        Section("Sizes", [_sizes(look)]),
        Section("Extremes", list(_extremes(look))),
        Section("Duplicates", list(_duplicates(look))),
        Section("What was chosen", [_chosen(proposal)]),
    ]
    return page(f"The images of {proposal.name}", headline, [section for section in sections if section.blocks])


def _unreadable(look: Look) -> Iterator[str]:
    files = unreadable_files(look)
    if not files:
        return
    left = len(files) - MOST_UNREADABLE
    if left > 0:
        yield f"The first {MOST_UNREADABLE} of {len(files):,}; {left:,} more are left out here."
    yield markdown_table(("file", "reason"), files[:MOST_UNREADABLE])


def _bars(look: Look) -> Picture:
    names, counts = look.dataset.class_names, look.found.counts
    order = np.argsort(-counts, kind="stable")
    shown = order if len(order) <= MOST_BARS else np.concatenate([order[: MOST_BARS // 2], order[-MOST_BARS // 2 :]])
    first, last = order[0], order[-1]
    if counts[first] == counts[last]:
        ends = f"each of the {len(order)} classes has {counts[first]:,}"
        which = f"{len(shown)} of the {len(order)} classes"
    else:
        ends = f"the largest is {names[first]} with {counts[first]:,}, the smallest {names[last]} with {counts[last]:,}"
        which = f"the {MOST_BARS // 2} largest and the {MOST_BARS // 2} smallest of the {len(order)} classes"
    caption = f"Shown are {which}; {ends}." if len(shown) < len(order) else ""
    return Picture(save_png(bars_figure(look, shown)), f"Bars of the images of each class: {ends}.", caption)


def bars_figure(look: Look, shown: NDArray[np.int64]) -> Figure:
    """A figure of the images of some classes as bars, whose legend lies above them.

    Args:
        look: the images.
        shown: int64 (K,), the classes from the top.
    """
    names, places = look.dataset.class_names, np.arange(len(shown))[::-1]
    figure, (axes,) = panels(6.4, 1.0 + 0.22 * len(shown))
    axes.barh(places, look.found.counts[shown], color=PALE_BLUE, label="all")
    if not look.is_sample:
        axes.barh(places, look.train_counts[shown], color=BLUE, label="train")
    axes.set_yticks(places, [legible(names[row]) for row in shown], fontsize=SMALL)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images", fontsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return figure


def _samples(look: Look) -> Iterator[str | Picture]:
    train, names, side = look.dataset.train, look.dataset.class_names, look.data.image_size
    yield (
        f"Train images as squares of {side} x {side} pixels (`data.fit = {as_toml(look.data.fit)}`), not augmented. "
        + (f"Of {len(names)} classes, the first {MOST_CLASSES} are shown." if len(names) > MOST_CLASSES else "")
    )
    for label, name in enumerate(names[:MOST_CLASSES]):
        rows = np.flatnonzero(train.labels == label)
        chosen = rows[np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(int)]
        words = f"{name}: {len(chosen)} of {counted(len(rows), 'train image')}"
        yield Picture(_strip(look, [(train, row) for row in chosen]), f"Samples of {words}", words, is_drawing=False)


def _sizes(look: Look) -> str | Picture:
    sizes, counts = np.unique(look.found.headers.sizes, axis=0, return_counts=True)
    if len(sizes) <= 1:
        return "".join(f"Every image has {width} x {height} pixels." for width, height in sizes)
    figure, (axes,) = panels(5.2, 3.6)
    axes.scatter(sizes[:, 0], sizes[:, 1], s=8 + 120 * counts / counts.max(), color=BLUE, alpha=0.5, linewidths=0)
    axes.axhline(look.data.image_size, color=GREY, linewidth=0.8, linestyle="--")
    axes.axvline(look.data.image_size, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xlabel("width in pixels", fontsize=SMALL)
    axes.set_ylabel("height in pixels", fontsize=SMALL)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    plain_axes(axes)
    (narrow, low), (wide, high) = sizes.min(axis=0), sizes.max(axis=0)
    words = f"{len(sizes):,} sizes, from {narrow} to {wide} wide and from {low} to {high} high"
    return Picture(save_png(figure), f"Widths and heights: {words}", f"{words}. Dashed: the side that the model sees.")


def _extremes(look: Look) -> Iterator[Picture]:
    images = [(split, row) for split in look.shown for row in range(len(split))]
    moments = np.concatenate([split.moments for split in look.shown]).mean(axis=1)
    nums = [np.prod(split.stored.shape[2:]) for split in look.shown for _ in range(len(split))]
    means = moments[:, 0] / nums
    deviations = np.sqrt(np.maximum(0, moments[:, 1] / nums - means**2))
    shapes = look.sizes.max(axis=1) / np.maximum(1, look.sizes.min(axis=1))
    kinds = [
        ("Darkest", means, "mean level"),
        ("Brightest", -means, "mean level"),
        ("Flattest", deviations, "contrast"),
    ]
    if shapes.max() > 1.01 * np.median(shapes):
        kinds.append(("Oddest shape", -np.abs(np.log(shapes / np.median(shapes))), "longer / shorter side"))
    values = {"mean level": means, "contrast": deviations, "longer / shorter side": shapes}
    for title, key, unit in kinds:
        rows = np.argsort(key, kind="stable")[:EXTREMES]
        names = ", ".join(f"{images[row][0].keys[images[row][1]]} ({values[unit][row]:.3g})" for row in rows)
        words = f"{title}, by {unit}: {names}"
        yield Picture(_strip(look, [images[row] for row in rows]), words, words, is_drawing=False)


def _duplicates(look: Look) -> Iterator[str | Picture]:
    train, leaks = look.dataset.train, look.dataset.leaks
    row = {key: at for at, key in enumerate(train.keys)}
    same = same_pixels(look)
    for keys in same[:MOST_PAIRS]:
        words = f"The same pixels in train: {' = '.join(keys)}"
        yield Picture(_strip(look, [(train, row[key]) for key in keys[:SAMPLES]]), words, words, is_drawing=False)
    if len(same) > MOST_PAIRS:
        yield f"And {len(same) - MOST_PAIRS} more pictures that stand in train several times."
    splits = {"train": train, "val": look.dataset.val}
    pairs = [("Look alike, train and val", "train", "val", pair) for pair in leaks.between("train", "val").pairs]
    pairs += [
        (f"Look alike in {alike.split}, but have different classes", alike.split, alike.split, pair)
        for alike in leaks.disagreeing if alike.split != "test" for pair in alike.pairs
    ]  # fmt: skip
    for title, first, second, (one, other) in pairs[:MOST_PAIRS]:
        words = f"{title}: {one} ~ {other}"
        both = [(splits[first], splits[first].keys.index(one)), (splits[second], splits[second].keys.index(other))]
        yield Picture(_strip(look, both), words, words, is_drawing=False)
    if len(pairs) > MOST_PAIRS:
        yield f"And {len(pairs) - MOST_PAIRS} more pairs that look alike."


def _chosen(proposal: Proposal) -> str:
    rows = [
        (choice.key, f"{as_toml(choice.value)}{' (asked)' if choice.is_question else ''}", choice.reason)
        for choice in proposal.choices
    ]
    return markdown_table(("key", "value", "reason"), rows)


def _strip(look: Look, images: Sequence[tuple[DecodedImages, int]]) -> bytes:
    """Images side by side as PNG, as the squares that the model will see; tiny ones are enlarged without smoothing."""
    squares = [_tile(split.rows([row]).pixels, look.data.image_size) for split, row in images]
    side = squares[0].width
    strip = Image.new("RGB", (len(squares) * (side + GAP) - GAP, side), "white")
    for at, square in enumerate(squares):
        strip.paste(square, (at * (side + GAP), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    return buffer.getvalue()


def _tile(pixels: NDArray[np.uint8], image_size: int) -> Image.Image:
    seen = resize_squares(pixels, image_size)[0]
    image = Image.fromarray(seen[0] if len(seen) == 1 else np.ascontiguousarray(seen.transpose(1, 2, 0))).convert("RGB")
    if image_size > MOST_TILE:
        return image.resize((MOST_TILE, MOST_TILE), Image.Resampling.BILINEAR)
    if image_size < LEAST_TILE:
        factor = -(-LEAST_TILE // image_size)
        return image.resize((factor * image_size,) * 2, Image.Resampling.NEAREST)
    return image
