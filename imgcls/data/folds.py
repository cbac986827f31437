"""Folds of train and val: every image is val in one of them, and images that belong together share one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from imgcls.data.copies import copies
from imgcls.data.groups import deal_groups, number_groups
from imgcls.data.image_set import HashedImages, SourceImages, Split, hash_of
from imgcls.data.image_warnings import log
from imgcls.data.sources.source import Source
from imgcls.errors import DataError

SHARE_TOLERANCE = 0.02
"""Largest difference of two folds' shares of the images that is as good as none; a larger one is warned of."""


def join_val(source: Source) -> Source:
    """Folds are dealt from train and val together: the source with its val, if it brings one, joined to its train."""
    if "val" not in source.given:
        return source
    train, val = source.given["train"], source.given["val"]

    def read(row: int) -> Image.Image:
        return train.read(row) if row < len(train) else val.read(row - len(train))

    joined = SourceImages(
        train.keys + val.keys, np.concatenate((train.labels, val.labels)), read, hash_of(train.stamp, val.stamp),
        train.origin, _joined_header(train, val), hash_of(train.earlier_stamp, val.earlier_stamp),
        lambda: train.is_outdated() or val.is_outdated(), groups=train.groups + val.groups,
    )  # fmt: skip
    given: dict[Split, SourceImages] = {"train": joined}
    if "test" in source.given:
        given["test"] = source.given["test"]
    return replace(source, given=given)


def _joined_header(train: SourceImages, val: SourceImages) -> Callable[[int], tuple[int, int]] | None:
    of_train, of_val = train.header, val.header
    if of_train is None or of_val is None:
        return None
    return lambda row: of_train(row) if row < len(train) else of_val(row - len(train))


def deal_folds(images: HashedImages, num_folds: int, seed: int, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Folds of a set of images, nearly stratified: images that belong together share a fold.

    Identical images, those of one group and those that look alike (`copies`) belong together. scikit-learn's
    StratifiedGroupKFold deals them in an order that the seed and their content fix, so neither the names of files nor
    their order matter.

    Args:
        images: N images of train and val, in content order.
        num_folds: at least 2.
        seed: `data.seed`.
        class_names: K names.

    Returns:
        int64 (N,): the fold of each image, from 1.

    Raises:
        DataError: a class whose images cannot be in every fold.
    """
    numbers = number_groups(images.digests, _names_of_what_belongs_together(images), f"folds {seed}")
    _refuse_small_classes(images, numbers, num_folds, class_names)
    folds = deal_groups(images.labels, numbers, num_folds) + 1
    _refuse_classes_of_one_fold(images.labels, folds, num_folds, class_names)
    _compare_shares(np.bincount(folds, minlength=num_folds + 1)[1:], num_folds)
    return folds


def by_fold(images: HashedImages, folds: NDArray[np.int64]) -> dict[str, HashedImages]:
    """The images of each of the folds int64 (N,), by names such as `fold 1`."""
    return {f"fold {number}": images.rows(np.flatnonzero(folds == number)) for number in np.unique(folds).tolist()}


def _names_of_what_belongs_together(images: HashedImages) -> list[str]:
    """The same name for images of one group and for those that look alike, and for what these bring together."""
    rows = np.arange(len(images))
    pairs = copies(images.sketches, images.sketches, (rows, rows))
    if images.groups:
        _, of_group = np.unique(np.asarray(images.groups), return_inverse=True)
        first = np.unique(of_group, return_index=True)[1]
        pairs = np.concatenate((pairs, np.stack((first[of_group], rows), axis=1)))
    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(images), len(images)))
    _, components = connected_components(edges, directed=False)
    return [str(component) for component in components.tolist()]


def _refuse_small_classes(
    images: HashedImages, numbers: NDArray[np.int64], num_folds: int, class_names: Sequence[str]
) -> None:
    """Every class has to be in every fold, so that each model learns it and each val has it."""
    nums = {label: len(set(numbers[images.labels == label].tolist())) for label in range(len(class_names))}
    label = min(nums, key=nums.__getitem__)
    if (num := nums[label]) >= num_folds:
        return
    num_images = int((images.labels == label).sum())
    together = "" if num == num_images else f", which stand for {num} because those that belong together share a fold"
    remedy = f"lower data.folds to {num}, or add images" if num > 1 else "add images, or set data.folds = 0"
    raise DataError(
        f"data.folds = {num_folds}: class {class_names[label]!r} has {num_images} images in train and val{together}, "
        f"and every fold needs one of each class; {remedy}"
    )


def _refuse_classes_of_one_fold(
    labels: NDArray[np.int64], folds: NDArray[np.int64], num_folds: int, class_names: Sequence[str]
) -> None:
    """Large groups of several classes can leave a model without a class, or a fold without an image."""
    for fold in range(1, num_folds + 1):
        if not (folds == fold).any():
            raise DataError(
                f"data.folds = {num_folds}: fold {fold} is left without an image, since groups are too few or too "
                "large; lower data.folds, or use smaller groups"
            )
        if lacking := sorted(set(labels.tolist()) - set(labels[folds != fold].tolist())):
            raise DataError(
                f"data.folds = {num_folds}: all images of {class_names[lacking[0]]!r} are in fold {fold}, since groups "
                "are too few or too large, so the model of that fold would not learn this class; lower data.folds, use "
                "smaller groups, or add images"
            )


def _compare_shares(sizes: NDArray[np.int64], num_folds: int) -> None:
    smallest, largest = sizes.min(), sizes.max()
    if largest - smallest > max(1, SHARE_TOLERANCE * sizes.sum()):
        log.warning(
            f"data.folds = {num_folds}: the folds have between {smallest} and {largest} images, because images that "
            "belong together are too many to come nearer"
        )
