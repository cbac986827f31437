"""Every opening of a test split: which images it opened, recorded in the store and in a file of this project.

The file stays after `mlflow gc` has removed the run, so the look still counts. Looks recorded in other stores are not
known here.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from imgcls.data import cache_folder
from imgcls.data.copies import copies
from imgcls.data.leaks import FORMAT
from imgcls.data.sketches import SKETCH_BYTES
from imgcls.errors import InputError
from imgcls.files import written_aside
from imgcls.record import Artifact, RunRecord, Tag
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

ALIKE_SHARE = 0.5
"""Share of a test split: an earlier look counts if at least so many images look like images that it opened."""


@dataclass(frozen=True)
class Opening:
    """An opening of a test split.

    Attributes:
        run_id: of the evaluation, which may be gone.
        started: milliseconds since 1970.
        names: sixteen hex digits of each image's digest; None where unknown.
        sketches: uint8 (N, 272), of the images; N is 0 for a look that an earlier version recorded.
    """

    run_id: str
    started: int
    names: frozenset[str] | None
    sketches: NDArray[np.uint8]


@dataclass(frozen=True)
class LookCount:
    """What earlier looks mean for a new one.

    Attributes:
        number: ordinal of this opening of the test split, from 1.
        num_alike: images of it that are, or look like, images opened by earlier looks which are not counted.
    """

    number: int
    num_alike: int


def write_down(run: Run, tracker: Tracker, digests: NDArray[np.uint8], sketches: NDArray[np.uint8]) -> None:
    """Records which images are about to be opened, so that later looks at any of them know.

    Args:
        run: the evaluation.
        tracker: where it is.
        digests: uint8 (N, 32), of the source pixels.
        sketches: uint8 (N, 272), of the same images.
    """
    names = sorted(set(_names(digests)))
    run.log_text(Artifact.TEST_IMAGES, "".join(f"{name}\n" for name in names))
    content = io.BytesIO()
    np.save(content, sketches)
    run.log_bytes(Artifact.TEST_SKETCHES, content.getvalue())
    path = _file(tracker, run.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, names=names, sketches=sketches, started=run.started)


def count_looks(
    tracker: Tracker, evaluation_id: str, digests: NDArray[np.uint8], sketches: NDArray[np.uint8]
) -> LookCount:
    """Counts the earlier openings that share an image with this one, or half of whose images look like theirs.

    Crashed looks count, and so do those of deleted runs and those whose images are not known. If two evaluations begin
    together, the one that was created first comes first.

    Args:
        tracker: where all looks are.
        evaluation_id: of this look, which `write_down` has recorded.
        digests: uint8 (N, 32), of the source pixels.
        sketches: uint8 (N, 272), of the same images.
    """
    every = openings(tracker)
    earlier = every[: [opening.run_id for opening in every].index(evaluation_id)]
    own, number = frozenset(_names(digests)), 1
    alike: NDArray[np.int64] = np.empty(0, np.int64)
    for opening in earlier:
        same = np.unique(copies(opening.sketches, sketches)[:, 1])
        if opening.names is None or not own.isdisjoint(opening.names) or len(same) >= ALIKE_SHARE * len(digests):
            number += 1
        else:
            alike = np.union1d(alike, same)
    return LookCount(number, len(alike))


def num_opened_before(tracker: Tracker, digests: NDArray[np.uint8], sketches: NDArray[np.uint8]) -> int:
    """How many images were opened as test images by an evaluation in this store, or look like one that was.

    Every trial of a sweep asks this again, so the answer is kept in the cache folder.

    Args:
        tracker: where all looks are.
        digests: uint8 (N, 32), of the source pixels.
        sketches: uint8 (N, 272), of the same images.
    """
    every = openings(tracker)
    if not every:
        return 0
    opened = frozenset[str]().union(*(opening.names or () for opening in every))
    is_known = np.array([name in opened for name in _names(digests)], bool)
    others = np.unique(np.concatenate([opening.sketches for opening in every]), axis=0)
    return int(is_known.sum()) + _num_alike(sketches[~is_known], others)


def _num_alike(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> int:
    """How many of ours look like one of theirs."""
    key = hashlib.sha256(f"{FORMAT} {len(ours)} ".encode() + ours.tobytes() + theirs.tobytes()).hexdigest()[:32]
    return int(cache_folder.remember(f"opened-{key}.txt", lambda: str(len(np.unique(copies(ours, theirs)[:, 0])))))


def openings(tracker: Tracker) -> list[Opening]:
    """Every look that the store or a file of this project holds, oldest first."""
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
        return Opening(run_id, started, None, _no_sketches())
    try:
        with tracker.fetch(run_id, Artifact.TEST_SKETCHES) as path:
            return Opening(run_id, started, names, np.load(path))
    except (InputError, OSError, ValueError, EOFError):
        return Opening(run_id, started, names, _no_sketches())


def _of_file(path: Path) -> Opening | None:
    try:
        with np.load(path) as content:
            names = frozenset(str(name) for name in content["names"])
            return Opening(path.stem, int(content["started"]), names, content["sketches"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # what cannot be told apart counts
        return Opening(path.stem, 0, None, _no_sketches())


def _no_sketches() -> NDArray[np.uint8]:
    return np.empty((0, SKETCH_BYTES), np.uint8)


def _folder(tracker: Tracker) -> Path:
    return tracker.root / "mlruns" / ".looks"


def _file(tracker: Tracker, run_id: str) -> Path:
    return _folder(tracker) / f"{run_id}.npz"


def _names(digests: NDArray[np.uint8]) -> list[str]:
    return [row.tobytes().hex()[:16] for row in digests]
