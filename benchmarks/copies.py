"""Which copies of an image are found, and how many other images are taken for copies.

    python -m benchmarks.copies [--photographs FOLDER] [--images 150]

Solar cells (ELPV), Fashion-MNIST and scikit-learn's digits, and a folder of photographs where one is named. Of each, so
many images are changed in one way and searched for among all; and a fifth of the images is searched for in the others.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from imgcls.config.keys import DataConfig
from imgcls.data.copies import copies
from imgcls.data.decode import read_image, shrunk
from imgcls.data.sketches import sketches, thumbnail
from imgcls.data.sources import open_source

Change = Callable[[Image.Image], Image.Image]


def saved_again(quality: int) -> Change:
    """JPEG of a quality."""

    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(io.BytesIO(file.getvalue()))

    return change


def cropped(left: float, upper: float, right: float, lower: float) -> Change:
    """Without these shares of the sides."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop(
            (round(left * width), round(upper * height), width - round(right * width), height - round(lower * height))
        )

    return change


CHANGES: dict[str, Change] = {
    "JPEG, quality 90": saved_again(90),
    "JPEG, quality 75": saved_again(75),
    "JPEG, quality 50": saved_again(50),
    "half the size": lambda image: image.resize((max(1, image.width // 2), max(1, image.height // 2))),
    "brightness 0.8": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "brightness 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast 0.7": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "contrast 1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "a quarter turn": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "one column less": lambda image: image.crop((1, 0, *image.size)),
    "cropped 1 % at each edge": cropped(0.01, 0.01, 0.01, 0.01),
    "cropped 2 % at each edge": cropped(0.02, 0.02, 0.02, 0.02),
    "cropped 5 % at each edge": cropped(0.05, 0.05, 0.05, 0.05),
    "cropped 5 % at one edge": cropped(0.05, 0, 0, 0),
    "cropped 5 % in a corner": cropped(0.05, 0.05, 0, 0),
    "mirrored, cropped 3 %, half the size, JPEG 75": lambda image: saved_again(75)(
        ImageOps.mirror(cropped(0.03, 0, 0, 0.02)(image)).resize((max(1, image.width // 2), max(1, image.height // 2)))
    ),
    "a white border of 3 %": lambda image: ImageOps.expand(
        image.convert("RGB"), (round(image.width * 0.03), round(image.height * 0.03)), "white"
    ),
}


def sketches_of(images: Iterator[Image.Image]) -> np.ndarray:
    """uint8 (N, 272)."""
    pairs = [(thumbnail(shrunk(image)), min(image.size)) for image in images]
    return sketches(np.stack([small for small, _ in pairs]), np.array([side for _, side in pairs]))


def tables(photographs: Path | None) -> Iterator[tuple[str, list[Callable[[], Image.Image]]]]:
    """Name -> how to read each image."""
    names = {"ELPV": "elpv", "Fashion-MNIST": "fashion-mnist", "digits": "digits"}
    for name, of_config in names.items():
        source = open_source(DataConfig(source=of_config), Path())
        of_source = [source.everything] if source.everything is not None else list(source.given.values())
        yield name, [lambda t=table, i=row: t.read(i) for table in of_source for row in range(len(table))]
    if photographs is not None:
        paths = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        yield "photographs", [lambda p=path: read_image(p) for path in paths]


BOTH_WAYS = ("cropped 2 % at each edge", "cropped 5 % at each edge")
"""Changes of which the original is also searched for among the changed images."""


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--images", type=int, default=150)
    arguments = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    for name, readers in tables(arguments.photographs):
        known = sketches_of(read() for read in readers)
        chosen = np.linspace(0, len(readers) - 1, arguments.images).astype(int).tolist()
        column = {}
        others = np.setdiff1d(np.arange(len(known)), chosen)
        for words, change in CHANGES.items():
            changed = sketches_of(change(readers[row]()) for row in chosen)
            found = {int(theirs) for ours, theirs in copies(known, changed) if chosen[theirs] == ours}
            column[words] = f"{len(found) / len(chosen):.0%}"
            if words in BOTH_WAYS:
                pairs = copies(np.concatenate([changed, known[others]]), known[chosen])
                column[f"{words}, the original searched for"] = f"{sum(pairs[:, 0] == pairs[:, 1]) / len(chosen):.0%}"
        order = np.random.default_rng(0).permutation(len(readers))
        fifth, rest = order[: len(order) // 5], order[len(order) // 5 :]
        started = time.process_time()
        alike = np.unique(copies(known[rest], known[fifth])[:, 1])
        seconds = time.process_time() - started
        column["**other images taken for copies**"] = f"{len(alike) / len(fifth):.2%} of {len(fifth)}"
        column["CPU seconds of that search"] = f"{seconds:.1f}"
        columns[name] = column
        sys.stderr.write(f"{name}: {len(readers)} images\n")
    rows = [f"| copy | {' | '.join(columns)} |", f"|{' --- |' * (len(columns) + 1)}"]
    rows += [
        f"| {words} | {' | '.join(c[words] for c in columns.values())} |" for words in next(iter(columns.values()))
    ]
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
