"""What a verb says of its images before it begins: one line, and a warning of classes too small to score."""

import numpy as np
from numpy.typing import NDArray

from imgcls.data.sources.folder import ignored_in_words
from imgcls.data.splits import Dataset
from imgcls.statistics.intervals import accuracy_interval
from imgcls.text import counted

FEW_IMAGES = 10
"""A class with fewer images in val or test is warned of: the 95 % interval of its recall is half as wide as [0, 1]."""

MOST_NAMED = 5
"""Classes that the warning names."""

Counts = dict[str, NDArray[np.int64]]
"""Images of each class, int64 (K,), of each split that there is; with folds, train and val are one."""

IN_FOLDS = "train and val"
"""Name of the split that is in folds."""


def overview(dataset: Dataset, place: str, device: str, *, work: str = "") -> str:
    """An overview of the images in one line: classes, sizes and origins of the splits, what was ignored, the device.

    Args:
        dataset: the images. Of test, only what labels and hashes tell.
        place: their folder, or the name of their source.
        device: as the record has it.
        work: what is about to be done, such as `20 trials`.
    """
    counts = _counts(dataset)
    origins: dict[str, str] = {split: f" ({words})" for split, words in dataset.origins.items()}
    origins[IN_FOLDS] = f" in {counted(dataset.num_folds, 'fold')}"
    splits = [f"{num.sum():,} {split}{origins.get(split, '')}" for split, num in counts.items()]
    smallest = int(np.argmin(sum(counts.values())))
    parts = [
        f"{place}: {len(dataset.class_names)} classes",
        ", ".join(splits) + ("" if "test" in counts else ", no test"),
        f"smallest class {_of_class(dataset, counts, smallest)}",
    ]
    if dataset.ignored:
        num = sum(dataset.ignored.values())
        parts.append(f"ignored {num:,} file{'' if num == 1 else 's'}: {ignored_in_words(dataset.ignored)}")
    if dataset.num_skipped:
        parts.append(f"left out {dataset.num_skipped:,} unreadable")
    if num := dataset.num_several_frames:
        parts.append(f"{num:,} file{' has' if num == 1 else 's have'} several frames or pages: the first is used")
    return "; ".join([*parts, f"on {device}", *([work] if work else [])])


def too_few_to_score(dataset: Dataset) -> str:
    """The images overview's warning of classes with too few in val or test to be scored; "" where there are none."""
    counts = _counts(dataset)
    scored = np.stack([num for split, num in counts.items() if split != "train"])
    small = [row for row in np.argsort(scored.min(axis=0), kind="stable") if scored[:, row].min() < FEW_IMAGES]
    if not small:
        return ""
    named = "; ".join(_of_class(dataset, counts, row) for row in small[:MOST_NAMED])
    more = f"; and {len(small) - MOST_NAMED} more" if len(small) > MOST_NAMED else ""
    fewest = int(scored.min())
    width = 2 * accuracy_interval(0.5, fewest).half_width if fewest else 1.0
    return (
        f"classes with fewer than {FEW_IMAGES} images to score: {named}{more}. The 95% interval of a recall from "
        f"{fewest} image{'' if fewest == 1 else 's'} is up to {width:.2f} wide"
    )


def _counts(dataset: Dataset) -> Counts:
    num_classes = len(dataset.class_names)
    labels = {"train": dataset.train.labels, "val": dataset.val.labels}
    if dataset.num_folds:
        labels = {IN_FOLDS: dataset.val.labels}
    if dataset.test is not None:
        labels["test"] = dataset.test.hashes().labels
    return {split: np.bincount(of, minlength=num_classes) for split, of in labels.items()}


def _of_class(dataset: Dataset, counts: Counts, row: int) -> str:
    """Such as `hat (12 train, 3 val, 5 test)`."""
    return f"{dataset.class_names[row]} ({', '.join(f'{num[row]} {split}' for split, num in counts.items())})"
