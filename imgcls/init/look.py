"""Looks through a folder of images as a sweep will: the same layout, the same splits, the same refusals."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data.decode import resize_squares
from imgcls.data.decode_workers import SECONDS_PER_IMAGE, SECONDS_PER_PIXEL, cores
from imgcls.data.image_set import DecodedImages, SourceImages
from imgcls.data.image_warnings import held_warnings
from imgcls.data.sources import open_source
from imgcls.data.sources.folder_layout import NoClassesError
from imgcls.data.sources.source import Source
from imgcls.data.splits import Dataset, dataset_of
from imgcls.errors import DataError, UnreadableImageError, UnreadableImagesError
from imgcls.init.group_names import SuggestedGroups, suggested_groups
from imgcls.init.headers import Headers, read_headers
from imgcls.init.label_table import other_labels
from imgcls.init.one_class import no_classes, one_class_only
from imgcls.init.symmetry import Symmetry, symmetry_of
from imgcls.project import Project
from imgcls.text import listed

LOOK_SECONDS = 10.0
"""Seconds that decoding may take on a quiet machine, roughly; of a larger folder, a sample of its images is decoded."""

LEAST_OF_A_CLASS = 10
"""Images of each class that a sample keeps at least, where the class has them."""

FRACTIONS = ((0.15, 0.25), (0.25, 0.25), (0.5, 0.0))
"""Shares of val and test that are tried in this order; the first is the default. Few images allow the last alone."""

SYMMETRY_SIDE, SYMMETRY_IMAGES = 16, 4000
"""Pixels along the sides of the images whose symmetry is looked at, and the most images of which it is."""

MOST_NAMED = 10
"""Number of unreadable files that an error names."""


@dataclass(frozen=True)
class Found:
    """A folder of images that was listed, before any pixel was decoded.

    Attributes:
        source: what the folder brings.
        headers: of train and val files, or of all files where the splits are carved.
        other_labels: what to know of a table that may hold other labels than the folders; "" without one.
    """

    source: Source
    headers: Headers
    other_labels: str = ""

    @property
    def tables(self) -> tuple[SourceImages, ...]:
        """The images of each split, or those of the whole folder."""
        return tuple(self.source.given.values()) if self.source.everything is None else (self.source.everything,)

    @property
    def num_all(self) -> int:
        """Images of the folder."""
        return sum(map(len, self.tables))

    @property
    def num_train(self) -> int:
        """About how many images train will have."""
        if self.source.everything is not None:
            return round(len(self.source.everything) * (1 - FRACTIONS[0][0]) * (1 - FRACTIONS[0][1]))
        num = len(self.source.given["train"])
        return num if "val" in self.source.given else round(num * (1 - FRACTIONS[0][0]))

    @property
    def num_val(self) -> int:
        """About how many images val will have."""
        if "val" in self.source.given:
            return len(self.source.given["val"])
        return max(1, round(self.num_train * FRACTIONS[0][0] / (1 - FRACTIONS[0][0])))

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 (K,): images of each class, test included, readable or not."""
        labels = np.concatenate([table.labels for table in self.tables])
        return np.bincount(labels, minlength=len(self.source.class_names))

    def train_counts(self, num_train: int) -> NDArray[np.int64]:
        """int64 (K,): about how many of `num_train` train images each class has, at least 1; splits are stratified."""
        table = self.source.given["train"] if self.source.everything is None else self.source.everything
        counts = np.bincount(table.labels, minlength=len(self.source.class_names))
        return np.maximum(1, np.rint(counts * num_train / len(table))).astype(np.int64)

    @property
    def decode_seconds(self) -> float:
        """Seconds that decoding all images takes on a quiet machine, roughly."""
        num_pixels = float(np.median(self.headers.sizes.prod(axis=1))) if len(self.headers.sizes) else 0.0
        return self.num_all * (SECONDS_PER_IMAGE + SECONDS_PER_PIXEL * num_pixels) / cores()

    @cached_property
    def groups(self) -> SuggestedGroups | None:
        """Groups that the names of all images suggest."""
        keys = [key for table in self.tables for key in table.keys]
        labels = [int(label) for table in self.tables for label in table.labels]
        return suggested_groups(keys, labels, num_folders=1 if self.source.everything is not None else 2)


@dataclass(frozen=True)
class Look:
    """A folder of images that was looked through.

    Attributes:
        found: what its listing and its headers told.
        dataset: the images as a sweep will have them, or a sample of them.
        data: the keys of [data] with which they were read.
        unreadable: `path: reason` of each image that cannot be read.
        num_decoded: images that were decoded; fewer than the folder has where it is a sample.
        seconds: that decoding and splitting them took.
    """

    found: Found
    dataset: Dataset
    data: DataConfig
    unreadable: tuple[str, ...]
    num_decoded: int
    seconds: float

    @property
    def is_sample(self) -> bool:
        """Whether only a sample of the images was decoded."""
        return self.num_decoded < self.found.num_all

    @property
    def num_train(self) -> int:
        """Images of train; about, where a sample was decoded."""
        return self.found.num_train if self.is_sample else len(self.dataset.train)

    @property
    def num_val(self) -> int:
        """Images of val; about, where a sample was decoded."""
        return self.found.num_val if self.is_sample else len(self.dataset.val)

    @cached_property
    def train_counts(self) -> NDArray[np.int64]:
        """int64 (K,): train images of each class; about, where a sample was decoded."""
        if self.is_sample:
            return self.found.train_counts(self.num_train)
        return np.bincount(self.dataset.train.labels, minlength=len(self.dataset.class_names))

    @property
    def may_leak_unseen(self) -> bool:
        """Whether images of two folders of splits may be the same without the look having seen it."""
        return self.is_sample and len(self.found.source.given) > 1

    @property
    def decode_seconds(self) -> float:
        """Seconds that a sweep needs to decode the images; 0 where the look left all of them in the cache.

        Not less than decoding takes on a quiet machine: a second look finds its sample in the cache.
        """
        if not self.is_sample:
            return 0.0
        return max(self.found.decode_seconds, self.seconds * self.found.num_all / self.num_decoded)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """int32 (N, 2): width and height in pixels of the train and val images that were decoded."""
        return np.concatenate([images.hashes.sizes for images in self.shown])

    @property
    def shown(self) -> tuple[DecodedImages, DecodedImages]:
        """Train and val, whose pictures may be shown; those of test never are."""
        return self.dataset.train, self.dataset.val

    @cached_property
    def are_grey(self) -> bool:
        """Whether no train image has a colour, whatever mode its file has."""
        moments = self.dataset.train.moments
        return bool((moments == moments[:, :1]).all())

    @cached_property
    def symmetry(self) -> Symmetry:
        """Which flips and turns leave the classes of train as they are."""
        train = self.dataset.train
        rows = np.unique(np.linspace(0, len(train) - 1, min(SYMMETRY_IMAGES, len(train))).astype(np.int64))
        chosen = train.rows(rows)
        small = [resize_squares(chunk, SYMMETRY_SIDE).mean(axis=1, dtype=np.float32) for chunk in chosen.chunks()]
        return symmetry_of(np.concatenate(small), chosen.labels)


def list_folder(data: DataConfig, project: Project) -> Found:
    """Looks at the names of the files in a folder, and at the headers of some; no pixel is decoded.

    Raises:
        DataError: the folder cannot be used as it is; every offender is listed.
    """
    try:
        source = open_source(data, project.images(data))
    except NoClassesError as error:
        raise no_classes(error, project.images(data)) from error
    if len(source.class_names) < 2:
        raise one_class_only(source, project.images(data))
    shown = [source.everything] if source.everything is not None else [
        table for split, table in source.given.items() if split != "test"
    ]  # fmt: skip
    headers = read_headers(shown)
    if not len(headers.sizes):
        raise _nothing_readable(data, headers.num_files, list(_reasons(shown[0])))
    keys = [key for table in shown for key in table.keys]
    return Found(source, headers, other_labels(project.images(data), keys, source.class_names))


def _reasons(table: SourceImages) -> Iterator[str]:
    for row in range(min(MOST_NAMED, len(table))):
        try:
            table.read(row)
        except UnreadableImageError as error:
            yield f"{table.path(row)}: {error}"


def look_through(found: Found, data: DataConfig, augment: AugmentConfig) -> Look:
    """Decodes the images of a folder, or a sample of them, and splits them as a sweep will.

    Args:
        found: the listing.
        data: keys of [data]; shares of splits, leaks and unreadable files are chosen here.
        augment: the smallest crop decides at which size images are kept.

    Raises:
        DataError: no image can be read, or too few for a split.
    """
    source = _sampled(found)
    num_decoded = len(source.everything) if source.everything is not None else sum(map(len, source.given.values()))
    unreadable: tuple[str, ...] = ()
    problem: DataError | None = None
    begun = time.perf_counter()
    for val_fraction, test_fraction in FRACTIONS:
        fitting = data.model_copy(
            update={"val_fraction": val_fraction, "test_fraction": test_fraction, "allow_leaks": True}
        )
        try:
            try:
                dataset = _dataset(source, fitting, augment)
            except UnreadableImagesError as error:
                unreadable = tuple(error.offenders)
                if len(unreadable) == num_decoded:
                    raise _nothing_readable(data, num_decoded, unreadable) from error
                fitting = fitting.model_copy(update={"skip_unreadable": True})
                dataset = _dataset(source, fitting, augment)
        except UnreadableFolderError:
            raise
        except DataError as error:
            problem = problem or error
            continue
        return Look(found, dataset, fitting, unreadable, num_decoded, time.perf_counter() - begun)
    assert problem is not None
    raise problem


class UnreadableFolderError(DataError):
    """Error of a folder no image of which can be read."""


def _nothing_readable(data: DataConfig, num: int, reasons: Sequence[str]) -> UnreadableFolderError:
    return UnreadableFolderError(
        "\n".join([
            f"{data.path}: none of its {num:,} images can be read:",
            *listed(reasons[:MOST_NAMED], num),
            "convert or replace them; docs/images.md lists the formats that are read",
        ])
    )  # fmt: skip


def _dataset(source: Source, data: DataConfig, augment: AugmentConfig) -> Dataset:
    with held_warnings():  # what they say is among the findings, and the sweep warns again
        return dataset_of(source, data, augment)


def _sampled(found: Found) -> Source:
    """The source, or as much of it as is decoded in `LOOK_SECONDS`: rows at even distances, and some of each class."""
    share = LOOK_SECONDS / found.decode_seconds
    if share >= 1:
        return found.source
    source = found.source
    if source.everything is not None:
        return replace(source, everything=_some(source.everything, share))
    return replace(source, given={split: _some(table, share) for split, table in source.given.items()})


def _some(table: SourceImages, share: float) -> SourceImages:
    rows: list[int] = []
    for label in np.unique(table.labels):
        of_class = np.flatnonzero(table.labels == label)
        num = min(len(of_class), max(LEAST_OF_A_CLASS, math.ceil(share * len(of_class))))
        rows += of_class[np.linspace(0, len(of_class) - 1, num).astype(int)].tolist()
    return table.rows(sorted(rows))


def path_as_written(folder: Path, root: Path) -> str:
    """`data.path` of a folder that is looked through: relative to the project where it lies in it, else absolute."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100  (links stay as the user named them)
    written = whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)
    return f"./{written}" if written.startswith("~") else written
