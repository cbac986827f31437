"""Which images are test images, identified by their content, and the look without which they are not predicted.

It knows those of the run's own test split, sealed or not, and those of all looks in the record's ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from imgcls.data.copies import copies
from imgcls.data.image_set import Hashes
from imgcls.data.sketches import SKETCH_BYTES, without_crops
from imgcls.errors import DataError, InputError, SealedImagesError
from imgcls.evaluation.judge import look_to_predict
from imgcls.record import Artifact
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import recorded_squares
from imgcls.runs.prepare import shared_dataset
from imgcls.runs.rebuild import recorded_experiment
from imgcls.text import counted
from imgcls.tracking.recorded_looks import names_of, openings, read_sketches
from imgcls.tracking.store import Tracker


def _cannot_look(_: Hashes) -> RunRecord:
    raise SealedImagesError(
        "these are test images, and the record that is at hand does not hold the run of this model, so no look can be "
        "written down below it; predict where its run is recorded"
    )


@dataclass(frozen=True, eq=False)
class SealedImages:
    """Test images that are not predicted without a look.

    Attributes:
        names: 16 hex digits of the digest of each.
        sketches: uint8 (N, 272), of those whose sketches are recorded; earlier versions recorded none of sealed ones.
        doubts: sentences on test images that cannot be recognised.
        look: writes down a look at images with these hashes, unless an earlier one suffices; gives the evaluation that
            holds it.
    """

    names: frozenset[str] = frozenset()
    sketches: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, SKETCH_BYTES), np.uint8))
    doubts: tuple[str, ...] = ()
    look: Callable[[Hashes], RunRecord] = _cannot_look

    def are_among(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which images with these digests, uint8 (N, 32), are test images: bool (N,)."""
        return np.array([name in self.names for name in names_of(digests)], bool)

    def alike(self, sketches: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Which images with these sketches, uint8 (N, 272), look like a test image: their rows, ascending.

        That is, like one that was saved again, resized, turned or made grey. Crops are not looked for: that would take
        longer than decoding the images.
        """
        return np.unique(copies(without_crops(self.sketches), without_crops(sketches))[:, 1])


UNKNOWN = SealedImages(
    doubts=("no record is at hand, so it is not known whether these images are of a test split",),
)
"""What a model that has left its project knows of test images."""


def sealed_images(record: RunRecord, tracker: Tracker) -> SealedImages:
    """The test images that a run may not predict without a look: its own, and those of every look in the ledger."""
    own = replace(_own(record, tracker), look=lambda images: look_to_predict(record, images, tracker))
    return _with_ledger(tracker, own)


def sealed_from_stranger(run_id: str, tracker: Tracker) -> SealedImages:
    """The test images that a model whose run is not in this record may not predict: those of the ledger."""
    doubt = f"run {run_id}, which trained this model, is not in {tracker.where()}: its own test images are not known"
    return _with_ledger(tracker, SealedImages(doubts=(doubt,)))


def _with_ledger(tracker: Tracker, own: SealedImages) -> SealedImages:
    looks = openings(tracker)
    doubts = list(own.doubts)
    if num := sum(opening.names is None for opening in looks):
        doubts.append(
            f"{counted(num, 'earlier look')} at test splits did not record which images they opened, so those images "
            "are not recognised"
        )
    names = own.names.union(*(opening.names or () for opening in looks))
    sketches = np.unique(np.concatenate([own.sketches, *(opening.sketches for opening in looks)]), axis=0)
    return SealedImages(names, sketches, tuple(doubts), own.look)


def _own(record: RunRecord, tracker: Tracker) -> SealedImages:
    """The test images of a run, and what is not known of them in words."""
    if not record.test_fingerprint:
        return SealedImages()
    if tracker.has_artifact(record.run_id, Artifact.SEALED_IMAGES):
        names = frozenset(tracker.read_text(record.run_id, Artifact.SEALED_IMAGES).split())
        return SealedImages(names, read_sketches(tracker, record.run_id, Artifact.SEALED_SKETCHES))
    try:
        hashes = _from_source(record, tracker)
        return SealedImages(frozenset(names_of(hashes.digests)), hashes.sketches)
    except InputError as error:
        doubt = (
            f"run {record.run_id} has no list of its test images, since an earlier version recorded it, and their "
            f"source does not give them ({error}): of its test images, only those are recognised that were opened"
        )
        return SealedImages(doubts=(doubt,))


def _from_source(record: RunRecord, tracker: Tracker) -> Hashes:
    """Hashes of the test images of a run that an earlier version recorded, computed now.

    Raises:
        InputError: they are not at hand, or no longer what they were.
    """
    experiment = recorded_experiment(record.run_id, tracker)
    squares = recorded_squares(record)
    augment = experiment.augment.of_stored_images()
    dataset, _ = shared_dataset(experiment.data, augment, tracker.project, squares)
    if dataset.test is None or dataset.test.fingerprint() != record.test_fingerprint:
        raise DataError("its images have changed")
    return dataset.test.hashes().hashes
