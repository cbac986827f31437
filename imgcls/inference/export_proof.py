"""The proof of an exported file on the run's val: on the squares that Pillow makes, and on the whole images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from imgcls import terminal
from imgcls.data.decode_workers import in_threads
from imgcls.errors import DataError, InputError
from imgcls.inference.exported_model import ExportedModel
from imgcls.inference.graph import ImagesToProbs
from imgcls.inference.proof import BOUND, Agreement, ProofError, agreement, own_predictions
from imgcls.inference.run_model import RunModel, recorded_predictions
from imgcls.inference.val_images import ValImages, val_images
from imgcls.tracking.store import Tracker

BATCHES = (1, 3, 64)
"""Images that the graph is given at once: every batch is one of these, until the last."""

MOST_BYTES = 2**26
"""Bytes of whole images that are given to the graph at once, unless one image alone has more."""


@dataclass(frozen=True)
class Own:
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
    def of(cls, model: RunModel, tracker: Tracker) -> Own:
        """From the record and the source.

        Raises:
            InputError: the run left no predictions, or its val images are not at hand.
        """
        table = recorded_predictions(model.record, tracker)
        try:
            images = val_images(model.experiment.data, tracker.project, list(table["image"]), list(table["digest"]))
        except (DataError, InputError) as error:
            raise InputError(f"{error}. No file leaves the workbench that was not proved on the run's val") from error
        return cls(model, list(table["image"]), images, own_predictions(table, model.temperature))

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
    """

    squares: Agreement
    whole: Agreement
    shapes: Agreement
    rounding: float | None = None

    def to_plain(self) -> dict[str, float | int]:
        """As flat JSON: a number for each result."""
        plain: dict[str, float | int] = {"num_val": self.squares.num_images, "bound": BOUND}
        for name in ("squares", "whole", "shapes"):
            found: Agreement = getattr(self, name)
            plain |= {f"{name}_largest_difference": found.largest, f"{name}_other_class": found.num_other_class}
        if self.rounding is not None:
            plain["bfloat16_largest_difference"] = self.rounding
        return plain


def prove_export(file: ExportedModel, own: Own, graph: ImagesToProbs) -> ExportProof:
    """Proves an exported file on all of the run's val.

    Args:
        file: as whoever gets it loads it.
        own: the run's predictions.
        graph: the same in torch, for a run that was scored in bfloat16.

    Raises:
        ProofError: the file gives other predictions; it names the first image.
        DataError: val images that cannot be read any more.
    """
    squares, whole, rounding = Agreement(), Agreement(), _Rounding(own.model)
    with tqdm(
        total=len(own.names), desc="proving", unit=" images", file=terminal.stderr(), leave=False, disable=None
    ) as bar:
        for rows, images, made in _val(own):
            names, expected = own.names[rows.start : rows.stop], own.probs[rows.start : rows.stop]
            if own.is_rounded:
                expected = rounding.without(made, expected, graph)
            given = made.transpose(0, 2, 3, 1)
            squares += agreement(file.whole(given), expected, names, "the file, on Pillow's squares,")
            for at in _batches(images):
                batch = np.stack([images[row] for row in at])
                which = [names[row] for row in at]
                whole += agreement(file.whole(batch), expected[at], which, "the file, on whole images,")
            bar.update(len(rows))
    rounding.check()
    return ExportProof(squares, whole, _of_shapes(file, own), rounding.largest if own.is_rounded else None)


def _val(own: Own) -> Iterator[tuple[range, list[NDArray[np.uint8]], NDArray[np.uint8]]]:
    """Rows of val, their whole images uint8 (H, W, C), and their squares uint8 (B, C, S, S), decoded ahead."""

    def decode(rows: range) -> tuple[range, list[NDArray[np.uint8]], NDArray[np.uint8]]:
        images = [own.images.image(row) for row in rows]
        return rows, list(map(_pixels, images)), np.stack(list(map(own.model.preprocessing.square, images)))

    ends = [1, 4, *range(4 + BATCHES[-1], len(own.names), BATCHES[-1]), len(own.names)]
    ends = sorted({min(end, len(own.names)) for end in ends})
    yield from in_threads(decode, map(range, [0, *ends], ends))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _batches(images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
    """Rows of images of one size, that fit into the memory together."""
    by_shape = defaultdict(list)
    for row, image in enumerate(images):
        by_shape[image.shape].append(row)
    for rows in by_shape.values():
        most = max(1, MOST_BYTES // images[rows[0]].nbytes)
        yield from (rows[start : start + most] for start in range(0, len(rows), most))


def _of_shapes(file: ExportedModel, own: Own) -> Agreement:
    """Whole images of three shapes in batches of each size, whatever shapes val has, against their squares."""
    how, total = own.model.preprocessing, Agreement()
    side = how.image_size
    rows = [row % len(own.names) for row in range(max(BATCHES))]
    pictures = {row: own.images.image(row) for row in set(rows)}
    for width, height in ((side + 1, side + 1), (side // 2 + 1, side + 1), (side + 1, side // 2 + 1)):
        shaped = {row: picture.resize((width, height)) for row, picture in pictures.items()}
        for num in BATCHES:
            images = [shaped[row] for row in rows[:num]]
            same = len({image.mode for image in images}) == 1
            images = images if same else [image.convert("RGB") for image in images]
            squares = np.stack([how.square(image) for image in images])
            expected = file.whole(squares.transpose(0, 2, 3, 1))
            names = [f"{own.names[row]} at {width} x {height}" for row in rows[:num]]
            whole = file.whole(np.stack(list(map(_pixels, images))))
            total += agreement(whole, expected, names, "the file, on images of other shapes,")
    return total


class _Rounding:
    """How far bfloat16 moved the recorded predictions of a run, and whether that explains all of it."""

    def __init__(self, model: RunModel) -> None:
        self._model = model
        self.largest = 0.0
        self._explained = 0.0
        self._unexplained = 0.0

    def without(
        self, squares: NDArray[np.uint8], recorded: NDArray[np.float64], graph: ImagesToProbs
    ) -> NDArray[np.float64]:
        """What the weights give in float32 for squares uint8 (B, C, S, S): float64 (B, K)."""
        with torch.inference_mode():
            probs = graph(torch.from_numpy(squares).permute(0, 2, 3, 1)).numpy()
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
