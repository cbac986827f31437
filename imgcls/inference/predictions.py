"""Predictions of a classifier as a table, a row an image; test images are predicted only after a look.

Images are decoded and predicted a few at a time, so that no number of them fills the memory with pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.data.image_set import Hashes
from imgcls.data.sources.folder import ignored_in_words
from imgcls.errors import DataError, InputError, NoReadableImageError, SealedImagesError
from imgcls.inference.inputs import NUM_SHOWN, Decoded, Inputs, decoded
from imgcls.inference.prediction_table import prediction_columns
from imgcls.progress import Progress
from imgcls.text import counted, listed

if TYPE_CHECKING:
    from imgcls.inference.classifier import Classifier

log = logging.getLogger(__name__)

BATCH = 64
"""Images that go through the network at a time."""

MOST_BYTES = 2**27
"""Bytes of squares that wait until it is known whether they look like test images."""

ALIKE_MEANS = (
    "sealed or opened, as copies do that were saved again, resized, turned or made grey; predicting them is not "
    "written down as a look"
)

UNREADABLE = "unreadable"
"""Key in the `attrs` of the table: `name: reason` of each image that has no row because it cannot be decoded."""

Batch = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Some images: their rows (B,), their squares (B, C, S, S)."""


def predict(
    classifier: Classifier, inputs: Inputs, *, raw: bool = False, top: int | None = None, test_look: bool = False
) -> pd.DataFrame:
    """Predictions of images, with the columns of a run's `predictions/val.csv` that need no label.

    Args:
        classifier: the model.
        inputs: N images.
        raw: probabilities as the network gives them; by default they are calibrated by the temperature.
        top: further columns `class_1`, `prob_1`, `class_2` ... name so many classes, the most probable first.
        test_look: predict test images too. That is a look at a test split, and is written down before it is taken.

    Returns:
        `image`, `prediction` and for each class `prob/CLASS`; a row for each image that can be decoded, in order.
        What cannot be decoded is listed in `attrs["unreadable"]`.

    Raises:
        InputError: `top` beyond the number of classes.
        SealedImagesError: test images among these, and no `test_look`.
        NoReadableImageError: none of the images can be decoded.
    """
    _check_top(top, classifier.class_names)
    prediction = _Prediction(classifier, inputs, raw=raw, may_look=test_look)
    prediction.predict_all_but_test_images()
    if prediction.test_rows:
        prediction.predict_test_images()
    prediction.tell()
    return prediction.table(top)


def _check_top(top: int | None, class_names: Sequence[str]) -> None:
    is_number = isinstance(top, (int, np.integer)) and not isinstance(top, bool)
    if top is not None and not (is_number and 1 <= top <= len(class_names)):
        raise InputError(f"top = {top!r}: give 1 to {len(class_names)}, since there are {len(class_names)} classes")


class _Prediction:
    """A prediction under way: what is known of each image so far, by its row."""

    def __init__(self, classifier: Classifier, inputs: Inputs, *, raw: bool, may_look: bool) -> None:
        self._classifier, self._inputs, self._raw, self._may_look = classifier, inputs, raw, may_look
        self._sealed = classifier.sealed_images()
        self._probs = np.full((len(inputs), len(classifier.class_names)), np.nan)
        self._unreadable: dict[int, str] = {}
        self._test_hashes: list[Hashes] = []
        self.test_rows: list[int] = []

    def predict_all_but_test_images(self) -> None:
        """Decodes every image, and predicts those that are not test images."""
        for doubt in self._sealed.doubts:
            log.warning("%s", doubt)
        self._predict(self._not_test_images())
        if len(self._unreadable) == len(self._inputs):
            raise NoReadableImageError("\n".join(["none of the images can be read:", *listed(self._reasons())]))

    def predict_test_images(self) -> None:
        """Decodes the test images again and predicts them, once the look is written down."""
        if not self._may_look:
            raise _refusal([self._inputs.names[row] for row in self.test_rows])
        hashes = Hashes._make(np.concatenate(columns) for columns in zip(*self._test_hashes, strict=True))
        self._sealed.look(hashes)
        self._predict(self._test_images(hashes.digests))

    def _not_test_images(self) -> Iterator[Batch]:
        for piece in self._warned_of(self._decoded(self._inputs, "predicting")):
            self._unreadable |= piece.unreadable
            is_test = self._sealed.are_among(piece.hashes.digests)
            self.test_rows += piece.rows[is_test].tolist()
            if is_test.any():
                self._test_hashes.append(piece.hashes.rows(np.flatnonzero(is_test)))
            if not self.test_rows or self._may_look:
                yield piece.rows[~is_test], piece.squares[~is_test]

    def _warned_of(self, pieces: Iterable[Decoded]) -> Iterator[Decoded]:
        """The same pieces, each once the user was told which of its images only look like test images."""
        if not len(self._sealed.sketches):
            yield from pieces
            return
        waiting: list[Decoded] = []
        for piece in pieces:
            waiting.append(piece)
            if sum(one.squares.nbytes for one in waiting) >= MOST_BYTES:
                self._warn_of_alike(waiting)
                yield from waiting
                waiting = []
        self._warn_of_alike(waiting)
        yield from waiting

    def _warn_of_alike(self, pieces: Sequence[Decoded]) -> None:
        if not pieces:
            return
        rows = np.concatenate([piece.rows for piece in pieces])
        hashes = Hashes._make(map(np.concatenate, zip(*(piece.hashes for piece in pieces), strict=True)))
        others = np.flatnonzero(~self._sealed.are_among(hashes.digests))
        alike = rows[others[self._sealed.alike(hashes.sketches[others])]]
        if not len(alike):
            return
        look = "1 image looks" if len(alike) == 1 else f"{len(alike)} images look"
        names = listed([self._inputs.names[row] for row in alike], most=NUM_SHOWN)
        log.warning("%s", "\n".join([f"{look} like test images, {ALIKE_MEANS}:", *names]))

    def _test_images(self, digests: NDArray[np.uint8]) -> Iterator[Batch]:
        """The test images that were found, which must still be those of the look."""
        rows, done = np.array(self.test_rows, np.int64), 0
        for piece in self._decoded(self._inputs.rows(self.test_rows), "predicting test images"):
            end = done + len(piece.rows)
            if piece.unreadable or not np.array_equal(piece.hashes.digests, digests[done:end]):
                raise DataError("test images changed while the program ran; start it again")
            yield rows[piece.rows], piece.squares
            done = end

    def _decoded(self, inputs: Inputs, title: str) -> Iterator[Decoded]:
        preprocessing = self._classifier.preprocessing
        shape = preprocessing.channels, preprocessing.image_size, preprocessing.image_size
        with Progress(len(inputs), title) as bar:
            for piece in decoded(inputs, preprocessing.square, shape):
                yield piece
                bar.update(len(piece.rows) + len(piece.unreadable))

    def _predict(self, images: Iterable[Batch]) -> None:
        for rows, squares in _batches(images):
            self._probs[rows] = self._classifier.probs(squares, raw=self._raw)

    def tell(self) -> None:
        """Logs what the table does not show."""
        if ignored := ignored_in_words(self._inputs.ignored):
            log.info("left out, since they are not images: %s", ignored)
        if reasons := self._reasons():
            log.warning("%s", "\n".join([f"{counted(len(reasons), 'input')} could not be read:", *listed(reasons)]))

    def _reasons(self) -> list[str]:
        of_images = [f"{self._inputs.names[row]}: {reason}" for row, reason in sorted(self._unreadable.items())]
        return [*self._inputs.problems, *of_images]

    def table(self, top: int | None) -> pd.DataFrame:
        """A row for each image that could be decoded; see `predict`."""
        readable = [row for row in range(len(self._inputs)) if row not in self._unreadable]
        columns = prediction_columns(self._probs[readable], self._classifier.class_names, top or 0)
        table = pd.DataFrame({"image": [self._inputs.names[row] for row in readable], **columns})
        table.attrs[UNREADABLE] = self._reasons()
        return table


def _batches(images: Iterable[Batch]) -> Iterator[Batch]:
    """The same images, `BATCH` at a time; the last ones may be fewer."""
    waiting: list[Batch] = []
    for some in images:
        waiting.append(some)
        if sum(len(rows) for rows, _ in waiting) >= BATCH:
            rows, squares = _joined(waiting)
            whole = len(rows) - len(rows) % BATCH
            for start in range(0, whole, BATCH):
                yield rows[start : start + BATCH], squares[start : start + BATCH]
            waiting = [(rows[whole:], squares[whole:])]
    if any(len(rows) for rows, _ in waiting):
        yield _joined(waiting)


def _joined(several: list[Batch]) -> Batch:
    rows, squares = zip(*several, strict=True)
    return np.concatenate(rows), np.concatenate(squares)


def _refusal(names: Sequence[str]) -> SealedImagesError:
    are = "1 image is a test image" if len(names) == 1 else f"{len(names)} images are test images"
    return SealedImagesError(
        "\n".join([
            f"{are}, of this run or of an earlier look, so nothing is predicted:",
            *listed(names, most=NUM_SHOWN),
            "leave them out, or give --test-look (test_look=True), which is written down as a look at the test split",
        ])
    )  # fmt: skip
