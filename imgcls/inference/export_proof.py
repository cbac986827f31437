"""The proof of an exported file on the run's val: on the squares that Pillow makes, and on the whole images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from imgcls import terminal
from imgcls.data.decode_workers import in_threads
from imgcls.errors import DataError, InputError
from imgcls.inference.exported_graph import ImagesToProbs
from imgcls.inference.exported_model import ExportedModel
from imgcls.inference.proof import BOUND, Agreement, ProofError, agreement, recorded_probs
from imgcls.inference.run_model import RunModel
from imgcls.inference.val_images import ValImages, val_images
from imgcls.runs.val_predictions import recorded_predictions
from imgcls.tracking.store import Tracker

BATCHES = (1, 3, 64)
"""Numbers of squares that the graph is given at once: the first batch, the second, and all further ones."""

MOST_BYTES = 2**26
"""Bytes of whole images beyond which they are given to the graph; so many and one image are in memory."""


class _Decoded(NamedTuple):
    """A val image.

    Attributes:
        row: of the record's table.
        pixels: uint8 (H, W, C), of the whole image.
        square: uint8 (C, S, S).
    """

    row: int
    pixels: NDArray[np.uint8]
    square: NDArray[np.uint8]


@dataclass(frozen=True)
class ValReference:
    """What the proof of a file compares with: the run's own predictions of its val images.

    Attributes:
        model: of the run.
        names: of the N images, as recorded.
        images: the same.
        probs: float64 (N, K), calibrated, as recorded.
    """

    model: RunModel
    names: Sequence[str]
    images: ValImages
    probs: NDArray[np.float64]

    @classmethod
    def of(cls, model: RunModel, tracker: Tracker) -> ValReference:
        """From the record and the source.

        Raises:
            InputError: the run left no predictions, or its val images are not at hand.
        """
        table = recorded_predictions(model.record, tracker)
        try:
            images = val_images(model.experiment.data, tracker.project, list(table["image"]), list(table["digest"]))
        except (DataError, InputError) as error:
            raise InputError(f"{error}. No file leaves the workbench that was not proved on the run's val") from error
        return cls(model, list(table["image"]), images, recorded_probs(table, model.temperature))

    def decoded(self, row: int) -> _Decoded:
        """A val image, whole and as a square.

        Raises:
            DataError: it cannot be read any more, or has changed.
        """
        image = self.images.image(row)
        return _Decoded(row, _pixels(image), self.model.preprocessing.square(image))

    @property
    def is_rounded(self) -> bool:
        """Whether the run scored val in bfloat16, which no exported graph computes in."""
        return self.model.experiment.train.precision == "bfloat16"


@dataclass(frozen=True)
class ExportProof:
    """The proof of an exported file.

    Attributes:
        squares: agreement on the squares of val that Pillow makes.
        whole: agreement on the whole images of val.
        shapes: agreement of whole images, square, portrait and landscape, with their squares in the same file.
        rounding: of a run that was scored in bfloat16, the largest |difference| between its recorded predictions and
            those that its weights give in float32, with which the file is compared then; else None.
        expected: float64 (N, K), what the file was compared with on the N val images.
    """

    squares: Agreement
    whole: Agreement
    shapes: Agreement
    rounding: float | None
    expected: NDArray[np.float64] = field(repr=False, compare=False)

    def to_plain(self) -> dict[str, float | int]:
        """As flat JSON: a number for each result."""
        plain: dict[str, float | int] = {"num_val": self.squares.num_images, "bound": BOUND}
        for name in ("squares", "whole", "shapes"):
            found: Agreement = getattr(self, name)
            plain |= {f"{name}_largest_difference": found.largest, f"{name}_other_class": found.num_other_class}
        if self.rounding is not None:
            plain["bfloat16_largest_difference"] = self.rounding
        return plain


def prove_export(file: ExportedModel, reference: ValReference, graph: ImagesToProbs) -> ExportProof:
    """Proves an exported file on all of the run's val.

    Args:
        file: as whoever gets it loads it.
        reference: the run's predictions.
        graph: the same in torch, for a run that was scored in bfloat16.

    Raises:
        ProofError: the file gives other predictions; it names the first image.
        DataError: val images that cannot be read any more.
    """
    squares, whole, waiting = Agreement(), Agreement(), list[_Decoded]()
    rounding, expected = _Rounding(reference.model, graph), reference.probs.copy()
    decoded = iter(in_threads(reference.decoded, range(len(reference.names))))
    with tqdm(
        total=len(reference.names), desc="proving", unit=" images", file=terminal.stderr(), leave=False, disable=None
    ) as bar:
        for rows in _batches(len(reference.names)):
            made = []
            for row in rows:
                waiting.append(next(decoded))
                made.append(waiting[-1].square)
                if row + 1 == rows.stop or sum(one.pixels.nbytes for one in waiting) > MOST_BYTES:
                    at = [one.row for one in waiting]
                    if reference.is_rounded:
                        expected[at] = rounding.float32_probs(
                            np.stack([one.square for one in waiting]), reference.probs[at]
                        )
                    whole += _on_whole_images(file, waiting, expected, reference.names)
                    bar.update(len(waiting))
                    waiting.clear()
            given, here = np.stack(made).transpose(0, 2, 3, 1), slice(rows.start, rows.stop)
            squares += agreement(
                file.whole(given), expected[here], reference.names[here], "the file, on Pillow's squares,"
            )
    rounding.check()
    moved = rounding.largest if reference.is_rounded else None
    return ExportProof(squares, whole, _on_other_shapes(file, reference), moved, expected)


def _batches(num_images: int) -> Iterator[range]:
    """Rows in batches of each size, the largest again and again."""
    start, sizes = 0, iter(BATCHES)
    while start < num_images:
        stop = min(start + next(sizes, BATCHES[-1]), num_images)
        yield range(start, stop)
        start = stop


def _on_whole_images(
    file: ExportedModel, decoded: Sequence[_Decoded], expected: NDArray[np.float64], names: Sequence[str]
) -> Agreement:
    """Images of one size go through the graph together."""
    total, by_shape = Agreement(), defaultdict(list)
    for one in decoded:
        by_shape[one.pixels.shape].append(one)
    for alike in by_shape.values():
        at = [one.row for one in alike]
        probs = file.whole(np.stack([one.pixels for one in alike]))
        total += agreement(probs, expected[at], [names[row] for row in at], "the file, on whole images,")
    return total


def _on_other_shapes(file: ExportedModel, reference: ValReference) -> Agreement:
    """Square, portrait and landscape in batches of each size, whatever shapes val has, against their squares."""
    how, total = reference.model.preprocessing, Agreement()
    long, short = how.image_size + 1, how.image_size // 2 + 1
    pictures = [
        reference.images.image(row).resize((2 * long, 2 * long))
        for row in range(min(len(reference.names), BATCHES[-1]))
    ]
    if len({picture.mode for picture in pictures}) > 1:
        pictures = [picture.convert("RGB") for picture in pictures]
    for size in ((long, long), (short, long), (long, short)):
        shaped = [picture.resize(size) for picture in pictures]
        for num in BATCHES:
            rows = [row % len(shaped) for row in range(num)]
            expected = file.whole(np.stack([how.square(shaped[row]) for row in rows]).transpose(0, 2, 3, 1))
            probs = file.whole(np.stack([_pixels(shaped[row]) for row in rows]))
            names = [f"{reference.names[row]} at {size[0]} x {size[1]}" for row in rows]
            total += agreement(probs, expected, names, "the file, on images of other shapes,")
    return total


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


class _Rounding:
    """How far bfloat16 moved the recorded predictions of a run, and whether that explains all of it."""

    def __init__(self, model: RunModel, graph: ImagesToProbs) -> None:
        self._model, self._graph = model, graph
        self.largest = 0.0
        self._explained = 0.0
        self._unexplained = 0.0

    def float32_probs(self, squares: NDArray[np.uint8], recorded: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the weights give in float32 for squares uint8 (B, C, S, S): float64 (B, K)."""
        with torch.inference_mode():
            probs = self._graph(torch.from_numpy(squares).permute(0, 2, 3, 1)).numpy()
        exact: NDArray[np.float64] = probs.astype(np.float64)
        here = self._model.probs(squares)
        self.largest = max(self.largest, float(np.abs(exact - recorded).max()))
        self._explained = max(self._explained, float(np.abs(exact - here).max()))
        self._unexplained = max(self._unexplained, float(np.abs(here - recorded).max()))
        return exact

    def check(self) -> None:
        """Refuses predictions that bfloat16 made here differ from by more than bfloat16 itself makes out.

        Raises:
            ProofError: the record was made by something else than these weights in bfloat16.
        """
        if not self._unexplained <= max(BOUND, self._explained):
            raise ProofError(
                f"the run's recorded predictions differ by {self._unexplained:.2g} from those that its weights give "
                f"here in bfloat16, and bfloat16 itself makes out {self._explained:.2g}: the checkpoint or the images "
                "are not those of the record, so nothing leaves the workbench"
            )
