"""The cache of features: what a frozen network gives for images is computed once, and mapped from disk afterwards.

An entry is a folder beside those of decoded images, under the same budget. It is written aside and renamed, so that a
reader sees a whole one or none. Of several processes that want the same features, one computes them and the others
wait.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from imgcls.data.block_checksums import block_checksums, matches
from imgcls.data.cache_folder import (
    ASIDE,
    budget,
    cache_folder,
    only_one,
    prune,
    remove_abandoned,
    remove_entry,
    size_in_words,
    writing,
)
from imgcls.errors import DataError

log = logging.getLogger(__name__)

FEATURES = "features.npy"
"""File of an entry."""

_without_entry: dict[str, NDArray[np.float32]] = {}
"""The newest features of this process that have no entry, by its name."""

Make = Callable[[], Iterator[NDArray[np.float32]]]
"""Computes features a few images at a time: float32 (B, V, F) each, all images in order."""


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of labelled images, one image a row, for a `Loader`.

    Attributes:
        stored: float32 (M, V, F), the features of V views of each image, or (M, F), those of one view.
        at: int64 (N,), index into `stored` for each image.
        labels: int64 (N,).
    """

    stored: NDArray[np.float32]
    at: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)


def kept_features(name: str, about: str, shape: tuple[int, int, int], make: Make) -> NDArray[np.float32]:
    """The features of an entry, mapped from disk; computed first where there are none, or none that are whole.

    Features that are larger than the cache may be lie in a file without a name, which ends with this process.

    Args:
        name: of the entry; it tells all that the features depend on.
        about: what they are, in words, for lists of the cache.
        shape: (M, V, F).
        make: computes them.

    Raises:
        DataError: where the cache folder cannot be written.
        Interrupted: a stop was requested while another process computed them.
    """
    entry = cache_folder() / name
    if (found := _found(entry, shape)) is not None:
        return found
    with writing(), only_one(name, "computes these features"):
        if (found := _found(entry, shape)) is not None:  # another was faster
            return found
        num_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        if num_bytes > (most := budget()):
            log.info(
                "%s need %s, more than the %s that the cache may take (IMGCLS_CACHE_BYTES): they are computed again by "
                "each process", about, size_in_words(num_bytes), size_in_words(most),
            )  # fmt: skip
            _without_entry.clear()
            with tempfile.TemporaryFile(dir=cache_folder()) as file:
                _without_entry[name] = _written(file, shape, make)
            return _without_entry[name]
        for removed in prune(most - num_bytes):
            log.info("removed %s from the cache (%s)", removed.about, size_in_words(removed.num_bytes))
        _build(entry, about, shape, make)
    if (found := _open(entry, shape)) is None:
        raise DataError(f"what was just written to {entry} cannot be read back; check the disk, or set IMGCLS_CACHE")
    return found


def _found(entry: Path, shape: tuple[int, int, int]) -> NDArray[np.float32] | None:
    return _without_entry.get(entry.name, _open(entry, shape))


def _open(entry: Path, shape: tuple[int, int, int]) -> NDArray[np.float32] | None:
    """The features of an entry; None where there is none, or none that is whole."""
    if not entry.is_dir():
        return None
    try:
        checksums = json.loads((entry / "meta.json").read_text(encoding="utf-8"))["checksums"]
        if not matches(entry / FEATURES, checksums):
            raise ValueError("not what was written")
        features: NDArray[np.float32] = np.load(entry / FEATURES, mmap_mode="r")
        if features.shape != shape or features.dtype != np.float32:
            raise ValueError(f"{features.dtype} {features.shape}, not float32 {shape}")
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
        log.warning("the features in %s are damaged (%s), and are computed again", entry, error)
        with writing():
            remove_entry(entry)
        return None
    except OSError as error:
        raise DataError(
            f"the features in {entry} cannot be read: {error.strerror or error}; mend its permissions, or name another "
            "folder in IMGCLS_CACHE"
        ) from error
    with suppress(OSError):  # a folder that cannot be written is as good to read
        os.utime(entry, ns=(time.time_ns(),) * 2)
    return features


def _build(entry: Path, about: str, shape: tuple[int, int, int], make: Make) -> None:
    remove_abandoned()
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=entry.parent))
    try:
        with (aside / FEATURES).open("w+b") as file:
            _written(file, shape, make)
        meta = {"about": about, "checksums": block_checksums(aside / FEATURES)}
        (aside / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            aside.rename(entry)
        except OSError:
            if not entry.is_dir():  # where there are no locks, another process may have been faster
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _written(file: IO[bytes], shape: tuple[int, int, int], make: Make) -> NDArray[np.float32]:
    """Writes features to an open file, a .npy, and maps it. A full disk is an error to a write, but kills a map."""
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    for block in make():
        file.write(np.ascontiguousarray(block, np.float32).tobytes())
    file.flush()
    return np.memmap(file, np.float32, "r", start, shape)
