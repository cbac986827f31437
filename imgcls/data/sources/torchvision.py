"""Any classification data set of torchvision."""

import hashlib
import inspect
import operator
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.config.keys import DataConfig
from imgcls.data.decode import canonical, refusing
from imgcls.data.image_set import SourceImages, Split, hash_of
from imgcls.data.image_warnings import log
from imgcls.data.sources.source import ImageSource, Source
from imgcls.data.sources.stamps import stamp_of
from imgcls.errors import DataError

SPLIT_VALUES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
"""What torchvision's data sets call their splits; the first that a data set knows is taken."""


class Torchvision(ImageSource):
    """Any classification data set of torchvision, as `torchvision:NAME`."""

    name = "torchvision:"

    def open(self, config: DataConfig, path: Path) -> Source:
        """Lists the data set's images; its own test split is test, whatever it is called there.

        Its files lie in the folder `path`, or are downloaded to it.
        """
        from torchvision import datasets

        name = config.source.removeprefix(self.name)
        builder = getattr(datasets, name, None)
        if builder is None or not inspect.isclass(builder) or name in ("ImageFolder", "DatasetFolder", "VisionDataset"):
            raise DataError(f"data.source: torchvision.datasets has no data set {name!r}")
        try:
            return _build(name, builder, path, like_mnist=issubclass(builder, datasets.MNIST))
        except DataError:
            raise
        except TypeError as error:
            raise DataError(
                f"torchvision:{name} needs more than a name, or is not a classification data set: {error}"
            ) from error
        except Exception as error:  # each data set fails in its own way
            raise DataError(
                f"torchvision could not provide {name} under {path}: {error}; "
                "where the machine has no network, put its files there by hand"
            ) from error


def _build(name: str, builder: Callable[..., Any], root: Path, *, like_mnist: bool) -> Source:
    parameters = inspect.signature(builder).parameters
    common: dict[str, Any] = {"root": str(root)} if "root" in parameters else {}
    if "download" in parameters or like_mnist:  # EMNIST and QMNIST hide it, and `train`, in **kwargs
        common["download"] = True
    if name == "EMNIST":
        common["split"] = "balanced"
    if "train" in parameters or like_mnist:
        built: dict[Split, Any] = {"train": builder(train=True, **common), "test": builder(train=False, **common)}
    elif "split" in parameters:
        built = {split: _build_split(builder, common, split) for split in SPLIT_VALUES}
    else:
        built = {"train": builder(**common)}
    train = built["train"]
    if train is None:
        raise DataError(f"torchvision:{name} has no train split")
    given: dict[Split, SourceImages] = {}
    for split, dataset in built.items():
        if dataset is None:
            continue
        if (table := _dataset_table(dataset, name, split if len(built) > 1 else "")) is not None:
            given[split] = table
        elif split == "train":
            raise DataError(f"torchvision:{name} does not give each image one class")
        else:
            log.warning(f"torchvision:{name}: {split} has no labels and is left out")
    class_names = _class_names(train, given["train"])
    for split, table in given.items():
        if table.labels.max() >= len(class_names) or _class_names(built[split], given["train"]) != class_names:
            raise DataError(f"torchvision:{name}: its classes in {split} are not those in train")
    first, in_memory = canonical(train[0][0]), _pixels_in_memory(train) is not None
    return Source(
        class_names,
        given if len(built) > 1 else {},
        None if len(built) > 1 else given["train"],
        # Of files, the first says nothing about the others.
        channels=1 if in_memory and first.mode == "L" else 3,
        native_side=min(first.size) if in_memory else None,
    )


def _build_split(builder: Callable[..., Any], common: dict[str, Any], split: Split) -> Any:
    """The data set's own split, under the first name for it that it knows; None where it has none."""
    for value in SPLIT_VALUES[split]:
        try:
            return builder(split=value, **common)
        except ValueError as error:
            if "Unknown value" not in str(error):  # torchvision's verify_str_arg
                raise
    return None


def _class_names(dataset: Any, train: SourceImages) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        names = map(str, range(int(train.labels.max()) + 1))
    whole = [name if isinstance(name, str) else "/".join(map(str, name)) for name in names]
    # ImageNet has two classes that are called crane: a bird and a machine.
    return tuple(name if whole.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(whole))


def _labels(dataset: Any) -> NDArray[np.int64] | None:
    """int64 (N,), or None where images do not have one whole number each."""
    for attribute in ("targets", "labels", "_labels"):
        labels = np.asarray(getattr(dataset, attribute, None))
        if labels.shape == (len(dataset),) and labels.dtype.kind in "iu":
            return labels.astype(np.int64)
    try:
        return np.array([operator.index(dataset[i][1]) for i in range(len(dataset))], np.int64)
    except TypeError:
        return None


def _pixels_in_memory(dataset: Any) -> NDArray[np.uint8] | None:
    """All images as the data set holds them, or None where it reads files."""
    data = getattr(dataset, "data", None)
    return np.asarray(data) if data is not None and hasattr(data, "shape") and len(data) == len(dataset) else None


def _dataset_table(dataset: Any, name: str, split: str) -> SourceImages | None:
    def read(index: int) -> Image.Image:
        with refusing():
            return canonical(dataset[index][0])

    labels = _labels(dataset)
    if labels is None:
        return None
    keys = tuple(f"{split}/{i}" if split else str(i) for i in range(len(labels)))
    pixels = _pixels_in_memory(dataset)
    if pixels is not None:
        content = hashlib.sha256(pixels.tobytes()).hexdigest()
    elif root := getattr(dataset, "root", None):
        content = stamp_of(sorted(path for path in Path(root).rglob("*") if path.is_file()), Path(root)).of_content
    else:
        content = repr(dataset)
    stamp = hash_of("torchvision", name, split, version("torchvision"), str(len(keys)), content)
    return SourceImages(keys, labels, read, stamp, origin=f"torchvision:{name}")
