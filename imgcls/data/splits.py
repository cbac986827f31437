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
from imgcls.data.sources import ImageTable, Source, open_source
from imgcls.errors import DataError

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
    pieces = _carve_all(source, config, side, channels) if source.everything else _given(source, config, side, channels)
    train, val, test, num_skipped = pieces
    _every_class_in_train(train, source.class_names)
    held_out = None
    if test is not None and len(test):
        held_out = HeldOut(
            test, source.class_names, decode_side=side, image_size=config.image_size, channels=channels
        )
    mean, std = pixel_statistics(train.pixels)
    return Dataset(
        class_names=source.class_names,
        train=train,
        val=val.with_pixels(resize_squares(val.pixels, config.image_size)),
        test=held_out,
        mean=mean if config.mean == "auto" else _per_channel(config.mean, channels, "mean"),
        std=std if config.std == "auto" else _per_channel(config.std, channels, "std"),
        fingerprint=_fingerprint(source.class_names, train=train, val=val),
        num_skipped=num_skipped,
    )


def decode_side(image_size: int, augment: AugmentConfig, native_side: int | None) -> int:
    """Side at which images are kept: large enough that the smallest crop is not scaled up.

    The smallest crop covers a share `low` of the area, so its side is sqrt(low) of the image's. Sources whose
    images are small are not kept larger than they are, nor smaller than the model sees.
    """
    wanted = math.ceil(image_size / math.sqrt(augment.random_resized_crop[0]))
    return wanted if native_side is None else max(image_size, min(wanted, native_side))


def carve(
    digests: NDArray[np.uint8], labels: NDArray[np.int64], fraction: float, salt: str
) -> NDArray[np.bool_]:
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
    missing = int(math.floor(fraction * len(labels) + 0.5)) - int(quotas.sum())
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


def _carve_all(
    source: Source, config: DataConfig, side: int, channels: int
) -> tuple[LabelledImages, LabelledImages, ImageTable | None, int]:
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
        keep_name=f"all but test {config.test_fraction!r} of {_labels_hash(table)}",
    )
    readable = np.ones(len(table), bool)
    readable[[row for row, _ in decoded.unreadable]] = False
    _refuse_unreadable(table, decoded.unreadable, config)
    rest = LabelledImages(
        decoded.images, table.labels[decoded.kept], tuple(table.keys[i] for i in decoded.kept),
        decoded.digests[decoded.kept],
    )  # fmt: skip
    train, val = _carve_val(rest, config)
    test = table.subset(np.flatnonzero(in_test(decoded.digests, readable))) if config.test_fraction else None
    return train, val, test, len(decoded.unreadable)


def _given(
    source: Source, config: DataConfig, side: int, channels: int
) -> tuple[LabelledImages, LabelledImages, ImageTable | None, int]:
    """The source's own splits; only a missing val is carved, and a missing test stays missing."""
    ready: dict[str, LabelledImages] = {}
    num_skipped = 0
    for split in ("train", "val"):
        table = source.given.get(split)
        if table is None:
            continue
        decoded = cache.decode(table, side, channels, title=f"decoding {split}")
        _refuse_unreadable(table, decoded.unreadable, config)
        num_skipped += len(decoded.unreadable)
        ready[split] = LabelledImages(
            decoded.images[: len(decoded.kept)], table.labels[decoded.kept],
            tuple(table.keys[i] for i in decoded.kept), decoded.digests[decoded.kept],
        )  # fmt: skip
    if "val" in ready:
        train, val = _ordered(ready["train"]), _ordered(ready["val"])
    else:
        train, val = _carve_val(ready["train"], config)
    return train, val, source.given.get("test"), num_skipped


def _carve_val(images: LabelledImages, config: DataConfig) -> tuple[LabelledImages, LabelledImages]:
    if not config.val_fraction:
        raise DataError("data.val_fraction = 0, but the source brings no val split and validation has to choose")
    in_val = carve(images.digests, images.labels, config.val_fraction, f"val {config.seed}")
    if not in_val.any():
        raise DataError(
            f"data.val_fraction = {config.val_fraction} of {len(images)} images leaves val empty; raise it"
        )
    return _rows(images, ~in_val), _rows(images, in_val)


def _rows(images: LabelledImages, mask: NDArray[np.bool_]) -> LabelledImages:
    rows = np.flatnonzero(mask)
    return LabelledImages.in_content_order(
        images.pixels[rows], images.labels[rows], [images.keys[i] for i in rows], images.digests[rows]
    )


def _ordered(images: LabelledImages) -> LabelledImages:
    return LabelledImages.in_content_order(images.pixels, images.labels, images.keys, images.digests)


def _refuse_unreadable(table: ImageTable, unreadable: tuple[tuple[int, str], ...], config: DataConfig) -> None:
    if not unreadable:
        return
    offenders = [f"  {table.keys[row]}: {reason}" for row, reason in unreadable]
    if config.skip_unreadable:
        log.warning("\n".join([f"left out {len(unreadable)} unreadable images:", *offenders]))
        return
    raise DataError(
        "\n".join([f"{len(unreadable)} unreadable images:", *offenders,
                   "repair or remove them, or leave them out with data.skip_unreadable = true"])  # fmt: skip
    )


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


def _labels_hash(table: ImageTable) -> str:
    return hashlib.sha256(table.labels.tobytes()).hexdigest()[:16]


def _fingerprint(class_names: tuple[str, ...], **splits: LabelledImages) -> str:
    return fingerprint(
        (split, class_names[label], digest)
        for split, images in splits.items()
        for label, digest in zip(images.labels, images.digests, strict=True)
    )
