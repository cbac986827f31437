"""train, val and test: given by the source or carved by content, searched for leaks, fingerprinted, normalised."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import decode_cache
from imgcls.data.augment import refuse_colours_of_grey
from imgcls.data.folds import by_fold, deal_folds, join_val
from imgcls.data.groups import SHARE_TOLERANCE, carve_groups, with_groups
from imgcls.data.held_out import HeldOut
from imgcls.data.image_set import DecodedImages, HashedImages, SourceImages, Split, fingerprint
from imgcls.data.image_warnings import log
from imgcls.data.leaks import Leaks, find_leaks, heed
from imgcls.data.sources import open_source
from imgcls.data.sources.source import Source
from imgcls.data.train_side import train_side
from imgcls.errors import DataError, UnreadableImagesError, unreadable_in_words
from imgcls.project import Project

SQUARES_FORMAT = 3
"""Newest format in which images become squares. A run has the lowest format that gives its squares:

1. Val and test are resized once more from squares of train's size. So did runs without a tag `imgcls.squares`.
2. Val and test come straight from the source to `data.image_size`, as `data.fit` says.
3. Train's squares are no larger than the images of the folder are themselves (`own_side`), and in format 2 they were.
"""

MUCH_CUT = 0.05
"""Share of an image's area beyond which a centre crop cuts off much. It is reported if more than this share of the
images lose so much."""


@dataclass(frozen=True)
class Dataset:
    """A data set as its splits: everything a run needs of its images.

    Attributes:
        class_names: name of each label.
        train: at the decode size, which leaves room for crops.
        val: at the size that the model sees, straight from the source. With folds, the same images as train.
        test: sealed; None if the source has no test split and none is carved.
        mean: per channel, in [0, 1], measured on train's images at the size that the model sees.
        std: per channel, in [0, 1], measured like `mean`.
        fingerprint: of train and val as split; test has its own.
        num_skipped: unreadable images left out, of all splits.
        leaks: what the splits share.
        origins: where each split came from, in words; splits that a package or torchvision brings are left out.
        ignored: kind of files that are not images of a class -> how many there are.
        num_several_frames: images that are the first frame or page of several, of all splits.
        folds: int64 (N,), of a data set in folds the fold of each image of train, and of val, from 1; else None.
        squares: format in which images became squares, recorded as `imgcls.squares`; see `SQUARES_FORMAT`.
        cut: what the centre crop takes away from the images, in words; "" where it is next to nothing.
    """

    class_names: tuple[str, ...]
    train: DecodedImages
    val: DecodedImages
    test: HeldOut | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_skipped: int
    leaks: Leaks
    squares: int
    cut: str = ""
    origins: Mapping[Split, str] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    num_several_frames: int = 0
    folds: NDArray[np.int64] | None = None

    def of_fold(self, number: int) -> Dataset:
        """The data set of the model of one fold, from 1: that fold is its val, and the others are its train."""
        assert self.folds is not None
        train, val = self.train.rows(np.flatnonzero(self.folds != number)), self.val.rows(self.rows_of_fold(number))
        return replace(
            self, train=train, val=val, folds=None,
            fingerprint=fingerprint({"train": train, "val": val}, self.class_names),
            origins={**self.origins, "val": f"fold {number} of {self.num_folds} of train and val"},
        )  # fmt: skip

    def of_first_folds(self, num_folds: int) -> Dataset:
        """The images of the first folds, which are val of the models of a run that ended after them."""
        assert self.folds is not None
        rows = np.flatnonzero(self.folds <= num_folds)
        return replace(self, train=self.train.rows(rows), val=self.val.rows(rows), folds=self.folds[rows])

    @property
    def of_train_and_val(self) -> tuple[DecodedImages, ...]:
        """Train and val; with folds, where they are the same images, one of them."""
        return (self.train, self.val) if self.folds is None else (self.val,)

    def rows_of_fold(self, number: int) -> NDArray[np.int64]:
        """Rows of val that are in a fold, ascending."""
        return np.flatnonzero(self.folds == number)

    @property
    def num_folds(self) -> int:
        """0 of a data set that is not in folds."""
        return 0 if self.folds is None else int(self.folds.max())

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.train.stored.shape[1])


def load_dataset(
    config: DataConfig, augment: AugmentConfig, project: Project, squares: int = SQUARES_FORMAT
) -> Dataset:
    """Loads a data set as its splits: reads, splits and decodes it.

    What val and test look like, and the mean and deviation, depend on `config` alone.

    Args:
        config: the `[data]` table.
        augment: the `[augment]` table; its smallest crop decides at which size train is kept.
        project: where the paths of `config` start.
        squares: newest format in which images may become squares; an earlier one only to repeat a run that has it.

    Raises:
        DataError: whatever makes the images unusable, leaks between splits included; every offender is listed.
        ConfigError: colours are to be changed in grey images.
    """
    source = with_groups(open_source(config, project.images(config)), project.groups(config))
    return dataset_of(source, config, augment, squares)


def dataset_of(source: Source, config: DataConfig, augment: AugmentConfig, squares: int = SQUARES_FORMAT) -> Dataset:
    """The splits of a source that is open already; see `load_dataset`."""
    source = join_val(source) if config.folds else source
    channels = source.channels if config.channels == "auto" else config.channels
    refuse_colours_of_grey(augment, channels)
    side_of_train, squares = train_side(source, config, augment, squares)
    # Format 1 made val and test from squares of train's size, so that they depended on train's crops.
    sides = side_of_train, config.image_size if squares >= 2 else side_of_train
    if source.everything is None:
        pieces = _given(source.given, config, sides, channels)
    else:
        pieces = _carved(source.everything, config, sides, channels)
    train, seen, val, test, unreadable = pieces.train, pieces.seen, pieces.val, None, pieces.unreadable
    if pieces.test is not None:
        test = HeldOut(
            pieces.test, source.class_names, decode_side=sides[1], image_size=config.image_size, channels=channels,
            fit=config.fit, skip_unreadable=config.skip_unreadable,
        )  # fmt: skip
        unreadable = unreadable + test.unreadable()
    if unreadable and not config.skip_unreadable:
        raise UnreadableImagesError(unreadable)
    if unreadable:
        log.warning("\n".join([f"left out {unreadable_in_words(unreadable)}", *unreadable]))
    for split, images in (("train", train), ("val", val), ("test", test)):
        if images is not None and not len(images):
            carved = split == "test" and source.everything is not None
            remedy = f"; raise data.test_fraction = {config.test_fraction}, or let 0 mean no test" if carved else ""
            raise DataError(f"{split} is left without a readable image{remedy}")
    if test is not None and source.everything is not None:
        _compare_share("test", len(test), train, config.test_fraction)
    if config.folds:
        val = seen
    elif val is None:
        rest, chosen = _carve_val(train, config)
        train, seen, val = train.rows(rest), seen.rows(rest), seen.rows(chosen)
        _compare_share("val", len(val), train, config.val_fraction)
    _every_class_in_train(train, source.class_names)
    train, val = train.in_content_order(), val.in_content_order()
    folds = deal_folds(train, config.folds, config.seed, source.class_names) if config.folds else None
    compared: dict[Split, HashedImages] = {"train": train} if config.folds else {"train": train, "val": val}
    of_train_and_val = fingerprint(
        {"train": train, "val": val} if folds is None else by_fold(train, folds), source.class_names
    )
    if test is not None:
        compared["test"] = test.hashes()
    leaks = find_leaks(compared, source.class_names)
    heed(leaks, allowed=config.allow_leaks, origin=(source.everything or source.given["train"]).origin)
    mean, std = pixel_statistics(seen)
    return Dataset(
        class_names=source.class_names,
        train=train,
        val=decode_cache.resized(val, config.image_size),
        test=test,
        mean=mean if config.mean == "auto" else _per_channel(config.mean, channels, "mean"),
        std=std if config.std == "auto" else _per_channel(config.std, channels, "std"),
        fingerprint=of_train_and_val,
        num_skipped=len(unreadable),
        leaks=leaks,
        squares=squares,
        cut=what_is_cut(pieces.train.hashes.sizes) if config.fit == "crop" else "",
        origins=_origins(source, config),
        ignored=source.ignored,
        num_several_frames=sum(images.num_several_frames for images in compared.values()),
        folds=folds,
    )


def _origins(source: Source, config: DataConfig) -> dict[Split, str]:
    """Where each split came from: a folder, or carved by content."""
    groups = ", whole groups" if config.groups else ""
    carved: dict[Split, str] = {}
    if source.everything is not None and config.test_fraction:
        carved["test"] = f"carved by content, {100 * config.test_fraction:.4g}%{groups}"
    if "val" not in source.given:
        carved["val"] = f"carved from train by content, {100 * config.val_fraction:.4g}%{groups}"
    in_folds: dict[Split, str] = {"val": f"{config.folds} folds of train and val"} if config.folds else {}
    return {**carved, **source.folders, **in_folds}


def what_is_cut(sizes: NDArray[np.int32]) -> str:
    """A split's images as the centre crop cuts them: what is lost, by sizes (N, 2), in words; "" for almost none."""
    cut = 1 - sizes.min(axis=1) / sizes.max(axis=1)
    much = cut[cut > MUCH_CUT]
    if len(much) <= MUCH_CUT * len(cut):
        return ""
    return (
        f'{len(much):,} of {len(cut):,} images are far from square, and data.fit = "crop" cuts {np.median(much):.0%} '
        'off the typical one of them; data.fit = "pad" or "squash" keeps all of it'
    )


def carve(digests: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, salt: str) -> NDArray[np.bool_]:
    """Carves a split: chooses a stratified share of the images by their content alone.

    Images are ranked within their class by SHA-256(salt, digest) and the first ones are taken; the counts per class
    are the largest-remainder rounding of the class sizes, so their sum is round(fraction * N), but that no class is
    asked for its last image. Neither file names nor the order of the file system matter. Images with equal pixels
    stay together, even where that takes a class beyond its count.

    Args:
        digests: uint8 (N, 32).
        labels: int64 (N,).
        fraction: in [0, 1).
        salt: another salt, another choice.

    Returns:
        bool (N,): chosen or not.
    """
    chosen = np.zeros(len(labels), bool)
    units: dict[bytes, list[int]] = defaultdict(list)
    for row, content in enumerate(digests):
        units[content.tobytes()].append(row)
    by_class: dict[int, list[bytes]] = defaultdict(list)
    for content, rows in units.items():
        by_class[int(labels[rows].min())].append(content)
    for label, quota in _quotas(labels, fraction).items():
        taken = 0
        for content in sorted(by_class[label], key=lambda c: hashlib.sha256(salt.encode() + b"|" + c).digest()):
            if taken >= quota:
                break
            chosen[units[content]] = True
            taken += len(units[content])
    return chosen


def _quotas(labels: NDArray[np.int64], fraction: float) -> dict[int, int]:
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * fraction
    quotas = np.floor(exact).astype(int)
    missing = math.floor(fraction * len(labels) + 0.5) - int(quotas.sum())
    roomy = [i for i in np.argsort(-(exact - quotas), kind="stable") if quotas[i] + 1 < counts[i]]
    quotas[roomy[:missing]] += 1
    return {int(c): int(q) for c, q in zip(classes, quotas, strict=True)}


def pixel_statistics(images: DecodedImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A split's mean and standard deviation of pixels, for each channel in [0, 1].

    From the moments that decoding counted in whole numbers, so the result depends on no order, and costs no pass over
    the pixels.
    """
    total = len(images) * math.prod(images.stored.shape[2:])
    means, stds = [], []
    for of_levels, of_squares in images.moments.sum(axis=0).tolist():
        mean = of_levels / total
        variance = of_squares / total - mean**2
        means.append(mean / 255)
        # A channel without contrast cannot be scaled; 1 leaves it centred.
        stds.append(math.sqrt(variance) / 255 if variance > 1e-9 else 1.0)
    return tuple(means), tuple(stds)


@dataclass(frozen=True)
class _Pieces:
    """A source cut up.

    Attributes:
        train: at the size that leaves room for crops.
        seen: the same images at the size of val and test.
        unreadable: `path: reason` of each unreadable image of train and val.
        val: at that size too; where it is None, it is in train.
        test: not decoded; its unreadable images are yet to be found.
    """

    train: DecodedImages
    seen: DecodedImages
    unreadable: list[str]
    val: DecodedImages | None = None
    test: SourceImages | None = None


def _carved(table: SourceImages, config: DataConfig, sides: tuple[int, int], channels: int) -> _Pieces:
    """One table with test taken out; its pixels are dropped before anything else sees them."""

    def not_in_test(digests: NDArray[np.uint8], readable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows = np.flatnonzero(readable)
        groups = [table.groups[row] for row in rows] if table.groups else ()
        mask = np.ones(len(table), bool)
        mask[rows] = ~_chosen(digests[rows], table.labels[rows], groups, config.test_fraction, "test")
        return mask

    large, small = decode_cache.decode_sides(
        table, sides, channels, fit=config.fit, keep=not_in_test, keep_name=_name_of_test(table, config)
    )
    pieces = _Pieces(large.images, small.images, list(large.unreadable.values()))
    if not config.test_fraction:
        return pieces
    # What was not kept, instead of carving again: no other version of a library can put an image on both sides.
    in_test = np.setdiff1d(np.arange(len(table)), [*large.kept, *large.unreadable])
    return replace(pieces, test=table.rows(in_test))


def _name_of_test(table: SourceImages, config: DataConfig) -> str:
    """Of what the carved test split depends on beside the images themselves."""
    name = f"all but test {config.test_fraction!r} of {hashlib.sha256(table.labels.tobytes()).hexdigest()}"
    if not table.groups:
        return name
    groups = hashlib.sha256(repr(table.groups).encode()).hexdigest()
    return f"{name} in groups {groups} by scikit-learn {version('scikit-learn')}"


def _chosen(
    digests: NDArray[np.uint8], labels: NDArray[np.int64], groups: Sequence[str], fraction: float, salt: str
) -> NDArray[np.bool_]:
    if groups and fraction:
        return carve_groups(digests, labels, groups, fraction, salt)
    return carve(digests, labels, fraction, salt)


def _given(given: Mapping[Split, SourceImages], config: DataConfig, sides: tuple[int, int], channels: int) -> _Pieces:
    """The source's own splits; only a missing val is carved, and a missing test stays missing."""
    large, small = decode_cache.decode_sides(given["train"], sides, channels, fit=config.fit, title="decoding train")
    unreadable, val = list(large.unreadable.values()), None
    if "val" in given:
        decoded = decode_cache.decode(given["val"], sides[1], channels, fit=config.fit, title="decoding val")
        unreadable, val = unreadable + list(decoded.unreadable.values()), decoded.images
    return _Pieces(large.images, small.images, unreadable, val, given.get("test"))


def _carve_val(images: DecodedImages, config: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the images that stay in train, and of those that become val."""
    if not config.val_fraction:
        raise DataError(
            "data.val_fraction = 0, but the source brings no val split and validation has to choose; give a "
            "share of train: --set data.val_fraction=0.15"
        )
    in_val = _chosen(images.digests, images.labels, images.groups, config.val_fraction, f"val {config.seed}")
    if not in_val.any():
        raise DataError(f"data.val_fraction = {config.val_fraction} of {len(images)} images leaves val empty; raise it")
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def _compare_share(split: Split, num_images: int, others: DecodedImages, fraction: float) -> None:
    """Whole groups can make a split smaller or larger than was asked for."""
    share = num_images / (num_images + len(others))
    if others.groups and abs(share - fraction) > SHARE_TOLERANCE:
        log.warning(
            f"{split} has {share:.1%} of the images where data.{split}_fraction = {fraction} was asked for: "
            "groups are too few or too large to come nearer"
        )


def _every_class_in_train(train: DecodedImages, class_names: tuple[str, ...]) -> None:
    lacking = sorted(set(range(len(class_names))) - set(train.labels.tolist()))
    if lacking:
        raise DataError(
            "train has no image of: " + ", ".join(class_names[i] for i in lacking)
            + "; add images, or lower data.val_fraction and data.test_fraction"
        )  # fmt: skip
    if len(class_names) < 2:
        raise DataError(f"there is only one class ({class_names[0]}); a classifier needs two")


def _per_channel(values: tuple[float, ...], channels: int, key: str) -> tuple[float, ...]:
    if len(values) != channels:
        raise DataError(f"data.{key} has {len(values)} values for {channels} channels")
    return values
