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

from imgcls.data.decode_workers import in_threads
from imgcls.errors import DataError, InputError
from imgcls.inference.exported_graph import ImagesToProbs
from imgcls.inference.exported_model import ExportedModel
from imgcls.inference.proof import BOUND, Agreement, ProofError, agreement, recorded_probs
from imgcls.inference.resize import GAP
from imgcls.inference.run_model import RunModel
from imgcls.inference.val_images import ValImages, val_images
from imgcls.models.ensemble import Ensemble
from imgcls.progress import Progress
from imgcls.runs.val_predictions import recorded_predictions
from imgcls.tracking.store import Tracker

BATCHES = (1, 3, 64)
"""Numbers of images that the graph is given at once, where any number has to do."""

MOST_IMAGES, MOST_BYTES = 64, 2**26
"""Most val images, and most bytes of whole images, that are in memory at once; one image more may be."""

ROUNDING_MARGIN = 3.0
"""How many times as far bfloat16 may have moved the recorded predictions as it moves those that are made here.

Both are the largest of many roundings of the same size, taken in another order on another device.
"""


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
    """The reference of a proof: the run's recorded predictions of its val images.

    Attributes:
        model: of the run.
        names: of the N images, as recorded.
        images: the same.
        probs: float64 (N, K), calibrated, as recorded. Of a run in folds, each row is of the model of the image's fold.
        folds: int64 (N,), of a run in folds the fold of each image, from 1; else None.
    """

    model: RunModel
    names: Sequence[str]
    images: ValImages
    probs: NDArray[np.float64]
    folds: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, model: RunModel, tracker: Tracker) -> ValReference:
        """The reference of a run, from its record and its source.

        Raises:
            InputError: the run left no predictions, or its val images are not at hand.
        """
        table = recorded_predictions(model.record, tracker)
        try:
            images = val_images(model.experiment.data, tracker.project, list(table["image"]), list(table["digest"]))
        except (DataError, InputError) as error:
            raise InputError(f"{error}. No file leaves the workbench that was not proved on the run's val") from error
        folds = table["fold"].to_numpy(np.int64) if model.record.num_folds else None
        return cls(model, list(table["image"]), images, recorded_probs(table, model.temperature), folds)

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
        shapes: agreement of square, portrait, landscape and large images with their squares in the same file.
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
        file: loaded as its user will load it.
        reference: the run's predictions. Those of a run in folds are of its single models: each of them has to give its
            own, and the file has to give what these models give together.
        graph: the same in torch, for a run that was scored in bfloat16.

    Raises:
        ProofError: the file gives other predictions; it names the first image.
        DataError: val images that cannot be read any more.
    """
    squares, whole = Agreement(), Agreement()
    rounding, expected = _Rounding(reference.model, graph), reference.probs.copy()
    of_folds = [_OfFold(reference, number, graph) for number, _ in enumerate(reference.model.members(), 1)]
    for images in _pieces(reference):
        rows, of_pillow = [image.row for image in images], np.stack([image.square for image in images])
        for of_fold in of_folds:
            of_fold.compare(np.array(rows), of_pillow)
        if of_folds:
            expected[rows] = reference.model.probs(of_pillow)
        if reference.is_rounded:
            expected[rows] = rounding.float32_probs(of_pillow, expected[rows])
        squares += _on_squares(file, images, expected, reference.names)
        whole += _on_whole_images(file, images, expected, reference.names)
    for one in (rounding, *(of_fold.rounding for of_fold in of_folds)):
        one.check()
    _in_each_batch_size(file, reference, expected)
    moved = rounding.of_record if reference.is_rounded else None
    return ExportProof(squares, whole, _on_other_shapes(file, reference), moved, expected)


def _pieces(reference: ValReference) -> Iterator[list[_Decoded]]:
    """All val images in order, as many at once as memory allows."""
    num = len(reference.names)
    piece: list[_Decoded] = []
    with Progress(num, "proving") as bar:
        for image in in_threads(reference.decoded, range(num)):
            piece.append(image)
            num_bytes = sum(one.pixels.nbytes for one in piece)
            if image.row + 1 == num or len(piece) == MOST_IMAGES or num_bytes > MOST_BYTES:
                yield piece
                bar.update(len(piece))
                piece = []


def _on_squares(
    file: ExportedModel, images: Sequence[_Decoded], expected: NDArray[np.float64], names: Sequence[str]
) -> Agreement:
    """The squares that Pillow makes."""
    rows = [image.row for image in images]
    probs = file.whole(np.stack([image.square for image in images]).transpose(0, 2, 3, 1))
    return agreement(probs, expected[rows], [names[row] for row in rows], "the file, on Pillow's squares,")


def _on_whole_images(
    file: ExportedModel, images: Sequence[_Decoded], expected: NDArray[np.float64], names: Sequence[str]
) -> Agreement:
    """Whole images; those of one size go through the graph together."""
    total, by_shape = Agreement(), defaultdict(list)
    for image in images:
        by_shape[image.pixels.shape].append(image)
    for alike in by_shape.values():
        rows = [image.row for image in alike]
        probs = file.whole(np.stack([image.pixels for image in alike]))
        total += agreement(probs, expected[rows], [names[row] for row in rows], "the file, on whole images,")
    return total


def _in_each_batch_size(file: ExportedModel, reference: ValReference, expected: NDArray[np.float64]) -> None:
    """The squares of the first val images in batches of each size; fewer images are repeated."""
    squares = [reference.decoded(row).square for row in range(min(len(reference.names), BATCHES[-1]))]
    for num in BATCHES:
        rows = [row % len(squares) for row in range(num)]
        probs = file.whole(np.stack([squares[row] for row in rows]).transpose(0, 2, 3, 1))
        names = [reference.names[row] for row in rows]
        agreement(probs, expected[rows], names, f"the file, on a batch of {num},")


def _on_other_shapes(file: ExportedModel, reference: ValReference) -> Agreement:
    """Square, portrait, landscape and large images, whatever shapes val has, against their squares in the same file."""
    how, total = reference.model.preprocessing, Agreement()
    pictures = _pictures(reference)
    for size, batches in _other_shapes(how.image_size):
        shaped = [picture.resize(size) for picture in pictures[: batches[-1]]]
        squares = [how.square(picture) for picture in shaped]
        for num in batches:
            rows = [row % len(shaped) for row in range(num)]
            expected = file.whole(np.stack([squares[row] for row in rows]).transpose(0, 2, 3, 1))
            probs = file.whole(np.stack([_pixels(shaped[row]) for row in rows]))
            names = [f"{reference.names[row]} at {size[0]} x {size[1]}" for row in rows]
            total += agreement(
                probs, expected, names, "the file, on images of other shapes,", of="its predictions of their squares"
            )
    return total


def _other_shapes(side: int) -> list[tuple[tuple[int, int], tuple[int, ...]]]:
    """Sizes of images and of their batches, for squares of a side. The last is so large that blocks are averaged."""
    long, short, large = side + 1, side // 2 + 1, 2 * GAP * side + 1
    return [((long, long), BATCHES), ((short, long), BATCHES), ((long, short), BATCHES), ((large, large), (1,))]


def _pictures(reference: ValReference) -> list[Image.Image]:
    """The first val images, of one mode and one size."""
    side = 2 * (reference.model.preprocessing.image_size + 1)
    images = [reference.images.image(row) for row in range(min(len(reference.names), BATCHES[-1]))]
    mode = images[0].mode if len({image.mode for image in images}) == 1 else "RGB"
    return [image.resize((side, side)).convert(mode) for image in images]


# --- the file that gets the name ----------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a file gave for some images.

    Attributes:
        images: uint8 (B, H, W, C).
        probs: float64 (B, K).
    """

    images: NDArray[np.uint8]
    probs: NDArray[np.float64]


def some_answers(file: ExportedModel, reference: ValReference) -> list[Answer]:
    """Answers to a batch of each proof: squares, a whole image, and an image of another shape."""
    first = [reference.decoded(row) for row in range(min(len(reference.names), BATCHES[1]))]
    size, _ = _other_shapes(reference.model.preprocessing.image_size)[1]
    other = _pixels(reference.images.image(0).resize(size))
    given = np.stack([image.square for image in first]).transpose(0, 2, 3, 1), first[0].pixels[None], other[None]
    return [Answer(images, file.whole(images)) for images in given]


def check_named_file(file: ExportedModel, answers: Sequence[Answer]) -> None:
    """Runs the file as it will be named, with its proof inside.

    Args:
        file: loaded as its user will load it.
        answers: of the file that was proved.

    Raises:
        ProofError: it gives others.
    """
    for images, expected in answers:
        names = [f"image {row} of {images.shape[1]} x {images.shape[2]} pixels" for row in range(len(images))]
        agreement(file.whole(images), expected, names, "the file with its proof", of="what the proved file gave")


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


class _Rounding:
    """How far bfloat16 moved the recorded predictions of a run, and whether that is as far as bfloat16 moves them here.

    Both are measured from what the same weights give in float32. The device of the run rounded in another order than
    this one, so the two bfloat16 predictions are not compared with each other: they may lie on opposite sides.

    Attributes:
        of_record: largest |difference| of the recorded predictions from float32.
        here: the same of predictions made on this machine in bfloat16.
    """

    def __init__(self, model: RunModel, graph: ImagesToProbs) -> None:
        self._model, self._graph = model, graph
        self.of_record = self.here = 0.0

    def float32_probs(self, squares: NDArray[np.uint8], recorded: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the weights give in float32 for squares uint8 (B, C, S, S): float64 (B, K)."""
        with torch.inference_mode():
            probs = self._graph(torch.from_numpy(squares).permute(0, 2, 3, 1)).numpy()
        exact: NDArray[np.float64] = probs.astype(np.float64)
        self.of_record = max(self.of_record, float(np.abs(exact - recorded).max()))
        self.here = max(self.here, float(np.abs(exact - self._model.probs(squares)).max()))
        return exact

    def check(self) -> None:
        """Refuses recorded predictions that lie further from float32 than bfloat16 explains.

        Raises:
            ProofError: the checkpoint or the images have changed since the run.
        """
        allowed = max(BOUND, ROUNDING_MARGIN * self.here)
        if not self.of_record <= allowed:
            raise ProofError(
                f"the run's recorded predictions differ by {self.of_record:.2g} from those that its weights give in "
                f"float32. bfloat16 changes predictions by {self.here:.2g} here, which explains at most {allowed:.2g}: "
                "the checkpoint or the images have changed since the run, so nothing is exported"
            )


class _OfFold:
    """The model of one fold, which has to give the recorded predictions of the images of that fold.

    Attributes:
        rounding: of a run that was scored in bfloat16.
    """

    def __init__(self, reference: ValReference, number: int, graph: ImagesToProbs) -> None:
        self._reference, self._number, self._model = reference, number, reference.model.members()[number - 1]
        assert isinstance(graph.network, Ensemble)
        of_fold = ImagesToProbs(graph.network.members[number - 1], self._model.preprocessing, graph.temperature)
        self.rounding = _Rounding(self._model, of_fold.eval())

    def compare(self, rows: NDArray[np.int64], squares: NDArray[np.uint8]) -> None:
        """Compares the predictions of those rows that are in the fold; squares are uint8 (B, C, S, S).

        Raises:
            ProofError: they are others; of a run in bfloat16 `rounding` says so.
        """
        reference = self._reference
        assert reference.folds is not None
        own = np.flatnonzero(reference.folds[rows] == self._number)
        recorded = reference.probs[rows[own]]
        if reference.is_rounded and len(own):
            self.rounding.float32_probs(squares[own], recorded)
        elif len(own):
            names = [reference.names[row] for row in rows[own]]
            agreement(self._model.probs(squares[own]), recorded, names, f"the model of fold {self._number}")
