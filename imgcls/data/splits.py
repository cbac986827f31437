"""train, val and test: given by the source or carved by content, fingerprinted, normalised from train alone."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgcls.config import AugmentConfig, DataConfig
from imgcls.data import cache
from imgcls.data.decode import resize_squares
from imgcls.data.held_out import HeldOut
from imgcls.data.labelled import LabelledImages, fingerprint
from imgcls.data.sources import ImageTable, Source, Split, open_source
from imgcls.errors import DataError, UnreadableImagesError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Everything a run needs of its images.

    Attributes:
        class_names: name of each label.
        train: at the decode size, which leaves room for crops.
        val: at the size that the model sees.
        test: sealed; None where the source has none and none is carved.
        mean: per channel, in [0, 1], measured on train.
        std: per channel, in [0, 1], measured on train.
        fingerprint: of train and val as split; test has its own.
        num_skipped: unreadable images left out.
    """

    class_names: tuple[str, ...]
    train: LabelledImages
    val: LabelledImages
    test: HeldOut | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_skipped: int

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.train.pixels.shape[1])


def load_dataset(config: DataConfig, augment: AugmentConfig, root: Path) -> Dataset:
    """Reads, splits and decodes.

    Args:
        config: the `[data]` table.
        augment: the `[augment]` table; its smallest crop decides the decode size.
        root: the project's root.

    Raises:
        DataError: whatever makes the images unusable; every offender is listed.
    """
    source = open_source(config, root)
    channels = source.channels if config.channels == "auto" else config.channels
    side = decode_side(config.image_size, augment, source.native_side)
    split = _given if source.everything is None else _carved
    train, val, test_table, skipped = split(source, config, side, channels)
    test = None
    if test_table is not None:
        test = HeldOut(
            test_table, source.class_names, decode_side=side, image_size=config.image_size, channels=channels,
            skip_unreadable=config.skip_unreadable,
        )  # fmt: skip
        skipped = _gather_unreadable(skipped, test)
    if skipped and not config.skip_unreadable:
        raise UnreadableImagesError(skipped)
    if skipped:
        log.warning("\n".join([f"left out {len(skipped)} unreadable images:", *skipped]))
    _every_class_in_train(train, source.class_names)
    mean, std = pixel_statistics(train.pixels)
    return Dataset(
        class_names=source.class_names,
        train=train,
        val=val.with_pixels(resize_squares(val.pixels, config.image_size)),
        test=test,
        mean=mean if config.mean == "auto" else _per_channel(config.mean, channels, "mean"),
        std=std if config.std == "auto" else _per_channel(config.std, channels, "std"),
        fingerprint=_fingerprint(source.class_names, train=train, val=val),
        num_skipped=len(skipped),
    )


def decode_side(image_size: int, augment: AugmentConfig, native_side: int | None) -> int:
    """Side at which images are kept: large enough that the smallest crop is not scaled up.

    The smallest crop covers a share `low` of the area, so its side is sqrt(low) of the image's. Sources whose
    images are small are not kept larger than they are, nor smaller than the model sees.
    """
    wanted = math.ceil(image_size / math.sqrt(augment.random_resized_crop[0]))
    return wanted if native_side is None else max(image_size, min(wanted, native_side))


def carve(digests: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, salt: str) -> NDArray[np.bool_]:
    """Chooses a stratified share of the images by their content alone.

    Images are ranked within their class by SHA-256(salt, digest) and the first ones are taken; the counts per class
    are the largest-remainder rounding of the class sizes, so their sum is round(fraction * N). Neither file names nor
    the order of the file system matter. Images with equal pixels stay together.

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
    for i in np.argsort(-(exact - quotas), kind="stable")[:missing]:
        quotas[i] += 1
    return {int(c): int(q) for c, q in zip(classes, quotas, strict=True)}


def pixel_statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in [0, 1] of uint8 (N, C, H, W).

    Counted by grey level in whole numbers, so the result depends neither on order nor on chunks.
    """
    levels = np.arange(256)
    means, stds = [], []
    for channel in range(pixels.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(pixels), 4096):
            counts += np.bincount(pixels[start : start + 4096, channel].ravel(), minlength=256)
        total = int(counts.sum())
        mean = int((counts * levels).sum()) / total
        variance = int((counts * levels**2).sum()) / total - mean**2
        means.append(mean / 255)
        # A channel without contrast cannot be scaled; 1 leaves it centred.
        stds.append(math.sqrt(variance) / 255 if variance > 1e-9 else 1.0)
    return tuple(means), tuple(stds)


Pieces = tuple[LabelledImages, LabelledImages, ImageTable | None, list[str]]
"""train, val, the test table, and `name: reason` of each unreadable image."""


def _carved(source: Source, config: DataConfig, side: int, channels: int) -> Pieces:
    """All three splits out of one table; pixels of test are dropped before anything else sees them."""
    table = source.everything
    assert table is not None

    def in_test(digests: NDArray[np.uint8], readable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        mask = np.zeros(len(table), bool)
        mask[readable] = carve(digests[readable], table.labels[readable], config.test_fraction, "test")
        return mask

    decoded = cache.decode(
        table,
        side,
        channels,
        keep=lambda digests, readable: readable & ~in_test(digests, readable),
        keep_name=f"all but test {config.test_fraction!r} of {hashlib.sha256(table.labels.tobytes()).hexdigest()}",
    )
    readable = np.ones(len(table), bool)
    readable[[row for row, _ in decoded.unreadable]] = False
    test = table.subset(np.flatnonzero(in_test(decoded.digests, readable))) if config.test_fraction else None
    train, val = _carve_val(decoded.labelled(table), config)
    return train, val, test, decoded.offenders(table)


def _given(source: Source, config: DataConfig, side: int, channels: int) -> Pieces:
    """The source's own splits; only a missing val is carved, and a missing test stays missing."""
    ready: dict[Split, LabelledImages] = {}
    unreadable: list[str] = []
    given: tuple[Split, ...] = ("train", "val")
    for split in given:
        if (table := source.given.get(split)) is not None:
            decoded = cache.decode(table, side, channels, title=f"decoding {split}")
            ready[split] = decoded.labelled(table)
            unreadable += decoded.offenders(table)
    if "val" in ready:
        train, val = ready["train"].in_content_order(), ready["val"].in_content_order()
    else:
        train, val = _carve_val(ready["train"], config)
    return train, val, source.given.get("test"), unreadable


def _carve_val(images: LabelledImages, config: DataConfig) -> tuple[LabelledImages, LabelledImages]:
    if not config.val_fraction:
        raise DataError("data.val_fraction = 0, but the source brings no val split and validation has to choose")
    in_val = carve(images.digests, images.labels, config.val_fraction, f"val {config.seed}")
    if not in_val.any():
        raise DataError(f"data.val_fraction = {config.val_fraction} of {len(images)} images leaves val empty; raise it")
    train, val = images.rows(np.flatnonzero(~in_val)), images.rows(np.flatnonzero(in_val))
    return train.in_content_order(), val.in_content_order()


def _gather_unreadable(unreadable: list[str], test: HeldOut) -> list[str]:
    try:
        test.hashes()
    except UnreadableImagesError as error:
        return unreadable + error.offenders
    return unreadable


def _every_class_in_train(train: LabelledImages, class_names: tuple[str, ...]) -> None:
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


def _fingerprint(class_names: tuple[str, ...], **splits: LabelledImages) -> str:
    return fingerprint(
        (split, class_names[label], digest)
        for split, images in splits.items()
        for label, digest in zip(images.labels, images.digests, strict=True)
    )
