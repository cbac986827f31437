"""Recorded looks at test splits: which images each opened, in the store and in a file of this project.

The file stays after `mlflow gc` has removed the run, so the look still counts. Looks recorded in other stores are not
known here.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from imgcls.data import cache_folder
from imgcls.data.copies import copies
from imgcls.data.image_set import HashedImages, Hashes
from imgcls.data.leaks import FORMAT
from imgcls.data.sketches import SKETCH_BYTES
from imgcls.errors import InputError
from imgcls.files import written_aside
from imgcls.project import MLRUNS
from imgcls.record import Artifact, Tag
from imgcls.run_record import RunRecord
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

ALIKE_SHARE = 0.5
"""Share of a test split: an earlier look counts if at least so many images look like images that it opened."""


@dataclass(frozen=True)
class Opening:
    """A recorded look at a test split: which images an evaluation opened.

    Attributes:
        run_id: of the evaluation, which may be gone.
        started: milliseconds since 1970.
        names: sixteen hex digits of each image's digest; None where unknown.
        sketches: uint8 (N, 272), of the images; N is 0 for a look that an earlier version recorded.
    """

    run_id: str
    started: int
    names: frozenset[str] | None
    sketches: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, SKETCH_BYTES), np.uint8))


@dataclass(frozen=True)
class LookCount:
    """The count of recorded looks at a test split, for a new one.

    Attributes:
        number: ordinal of this opening of the test split, from 1.
        num_alike: its images that are, or look like, images opened by earlier looks that are not counted.
    """

    number: int
    num_alike: int


def write_down(run: Run, tracker: Tracker, images: Hashes) -> LookCount:
    """Records a look before it is taken, with the test images that it will open, and counts the earlier ones.

    Earlier looks count that share an image with this one, or half of whose images look like theirs. Crashed looks
    count, and so do those of deleted runs and those whose images are not known. If two evaluations begin together, the
    one that was created first comes first.
    """
    names = sorted(set(names_of(images.digests)))
    run.log_text(Artifact.TEST_IMAGES, "".join(f"{name}\n" for name in names))
    write_sketches(run, Artifact.TEST_SKETCHES, images.sketches)
    path = _file(tracker, run.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, names=names, sketches=images.sketches, started=run.started)
    every = openings(tracker)
    return _count(every[: [opening.run_id for opening in every].index(run.run_id)], frozenset(names), images)


def _count(earlier: Sequence[Opening], own: frozenset[str], images: Hashes) -> LookCount:
    number, alike = 1, np.empty(0, np.int64)
    for opening in earlier:
        same = np.unique(copies(opening.sketches, images.sketches)[:, 1])
        is_half = len(same) >= ALIKE_SHARE * len(images.digests)
        if opening.names is None or is_half or not own.isdisjoint(opening.names):
            number += 1
        else:
            alike = np.union1d(alike, same)
    return LookCount(number, len(alike))


def num_opened_before(tracker: Tracker, *splits: HashedImages) -> int:
    """Recorded looks at these splits: the number of images that one opened as test images, or that look like one.

    Every trial of a sweep asks this again, so the answer is kept in the cache folder.
    """
    every = openings(tracker)
    if not every:
        return 0
    digests, sketches = (np.concatenate(of_splits) for of_splits in zip(*(s.hashes[:2] for s in splits), strict=True))
    opened = frozenset[str]().union(*(opening.names or () for opening in every))
    is_known = np.array([name in opened for name in names_of(digests)], bool)
    others = np.unique(np.concatenate([opening.sketches for opening in every]), axis=0)
    return int(is_known.sum()) + _num_alike(sketches[~is_known], others)


def _num_alike(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> int:
    """How many of ours look like one of theirs."""
    key = hashlib.sha256(f"{FORMAT} {len(ours)} ".encode() + ours.tobytes() + theirs.tobytes()).hexdigest()[:32]
    return int(cache_folder.remember(f"opened-{key}.txt", lambda: str(len(np.unique(copies(ours, theirs)[:, 0])))))


def openings(tracker: Tracker) -> list[Opening]:
    """Every recorded look, oldest first: those of the store and those of this project's files."""
    found = {
        record.run_id: _of_file(_file(tracker, record.run_id)) or _from_store(tracker, record)
        for record in tracker.find({Tag.KIND: "evaluation"}, with_deleted=True)
    }
    for path in sorted(_folder(tracker).glob("[!.]*.npz")):
        if path.stem not in found and (opening := _of_file(path)) is not None:
            found[path.stem] = opening
    return sorted(found.values(), key=lambda opening: (opening.started, opening.run_id))


def _from_store(tracker: Tracker, record: RunRecord) -> Opening:
    run_id, started = record.run_id, record.started
    try:
        names = frozenset(tracker.read_text(run_id, Artifact.TEST_IMAGES).split())
    except InputError:  # written by an earlier version, or its files are gone
        return Opening(run_id, started, None)
    return Opening(run_id, started, names, read_sketches(tracker, run_id, Artifact.TEST_SKETCHES))


def _of_file(path: Path) -> Opening | None:
    try:
        with np.load(path) as content:
            names = frozenset(str(name) for name in content["names"])
            return Opening(path.stem, int(content["started"]), names, content["sketches"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # what cannot be told apart counts
        return Opening(path.stem, 0, None)


def write_sketches(run: Run, artifact: str, sketches: NDArray[np.uint8]) -> None:
    """Writes sketches, uint8 (N, 272), as an artifact of a run."""
    content = io.BytesIO()
    np.save(content, sketches)
    run.log_bytes(artifact, content.getvalue())


def read_sketches(tracker: Tracker, run_id: str, artifact: str) -> NDArray[np.uint8]:
    """The sketches that a run has as an artifact, uint8 (N, 272); N is 0 where an earlier version wrote none."""
    try:
        with tracker.fetch(run_id, artifact) as path:
            return np.asarray(np.load(path), np.uint8)
    except (InputError, OSError, ValueError, EOFError):
        return np.empty((0, SKETCH_BYTES), np.uint8)


def _folder(tracker: Tracker) -> Path:
    return tracker.root / MLRUNS / ".looks"


def _file(tracker: Tracker, run_id: str) -> Path:
    return _folder(tracker) / f"{run_id}.npz"


def names_of(digests: NDArray[np.uint8]) -> list[str]:
    """The names under which recorded looks list images with these digests, uint8 (N, 32): 16 hex digits each."""
    return [row.tobytes().hex()[:16] for row in digests]
