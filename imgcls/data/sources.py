"""Where images come from: a table of (image, label) per split, and the names of the classes.

Nothing is decoded here but the image asked for; a table only knows how to.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.config import DataConfig
from imgcls.data.decode import canonical, read_image
from imgcls.errors import DataError

Split = Literal["train", "val", "test"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision.datasets.folder.IMG_EXTENSIONS."""

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class ImageTable:
    """Labelled images that are not decoded yet.

    Attributes:
        keys: a stable name per image (a path relative to the source, or an index).
        labels: int64 (N,), indices into the class names.
        read: index -> upright 8-bit image, mode `L` or `RGB`; raises UnreadableImageError.
        stamp: changes when the files do (names, sizes, times of change), known without reading an image.
    """

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    read: Callable[[int], Image.Image]
    stamp: str

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageTable:
        """The rows at `indices`, in that order."""
        chosen = [int(i) for i in indices]
        return ImageTable(
            keys=tuple(self.keys[i] for i in chosen),
            labels=self.labels[chosen],
            read=lambda i: self.read(chosen[i]),
            stamp=_hash(self.stamp, *map(str, chosen)),
        )


@dataclass(frozen=True)
class Source:
    """What a source brings: either its own splits, or one table of everything to carve them from.

    Attributes:
        class_names: name of each label, from train.
        given: the splits that the source itself defines (train is always among them), or empty.
        everything: all images where the source defines no split.
        channels: 1 where the source is grey, else 3.
        native_side: shorter side of the images in pixels where all are alike and small, else None.
    """

    class_names: tuple[str, ...]
    given: dict[Split, ImageTable]
    everything: ImageTable | None
    channels: Literal[1, 3]
    native_side: int | None = None


def open_source(config: DataConfig, root: Path) -> Source:
    """Finds the images that `config.source` names.

    Args:
        config: the `[data]` table.
        root: the project's root; a relative `data.path` starts there.

    Raises:
        DataError: an unknown source, a missing package or folder, no usable image; lists every offender.
    """
    path = root / Path(config.path).expanduser()
    if config.source == "folder":
        if not config.path:
            raise DataError('data.source = "folder" needs data.path = "…", the folder that holds the images')
        return _folder(path)
    if config.source.startswith("torchvision:"):
        return _torchvision(config.source.removeprefix("torchvision:"), path if config.path else root / "data")
    fixed: dict[str, Callable[[], Source]] = {
        "elpv": _elpv,
        "digits": _digits,
        "fashion-mnist": lambda: _fashion_mnist(path if config.path else root / "data"),
    }
    if config.source not in fixed:
        raise DataError(
            f"data.source = {config.source!r} is unknown; use folder, {', '.join(fixed)} or torchvision:NAME"
        )
    return fixed[config.source]()


# --- a folder of images -----------------------------------------------------------------------------------------


def _folder(root: Path) -> Source:
    if not root.is_dir():
        raise DataError(f"data.path: there is no folder {root}")
    splits = _split_folders(root)
    if not splits:
        names = _class_folders(root)
        table, problems = _folder_table(root, root, names)
        _stop_on(problems, f"{root} cannot be used")
        return Source(tuple(names), {}, table, channels=3)
    if "train" not in splits:
        found = ", ".join(f"{p.name}/" for p in splits.values())
        raise DataError(f"{root} has {found} but no train/; classes are learnt from train/ alone")
    names = _class_folders(splits["train"])
    given: dict[Split, ImageTable] = {}
    problems = []
    for split, folder in splits.items():
        strangers = sorted(set(_class_folders(folder)) - set(names))
        problems += [f"{folder / name}: a class that train/ lacks" for name in strangers]
        given[split], more = _folder_table(root, folder, names, may_lack_classes=split != "train")
        problems += more
    _stop_on(problems, f"{root} cannot be used")
    return Source(tuple(names), given, None, channels=3)


def _split_folders(root: Path) -> dict[Split, Path]:
    found: dict[Split, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if len(there) > 1:
            raise DataError(f"{root} has {' and '.join(p.name + '/' for p in there)}; keep one {split} folder")
        if there:
            found[split] = there[0]
    return found


def _class_folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no class folders; expected {folder.name}/CLASS/IMAGE.png")
    return names


def _folder_table(
    root: Path, folder: Path, class_names: Sequence[str], *, may_lack_classes: bool = False
) -> tuple[ImageTable, list[str]]:
    """All images below `folder`'s class folders, and what is wrong with them."""
    paths: list[Path] = []
    labels: list[int] = []
    problems = []
    for label, name in enumerate(class_names):
        files = sorted(_image_files(folder / name), key=lambda p: p.relative_to(root).as_posix())
        if not files and not (may_lack_classes and not (folder / name).is_dir()):
            problems.append(f"{folder / name}: no image in this class ({', '.join(IMAGE_SUFFIXES)})")
        paths += files
        labels += [label] * len(files)
    keys = tuple(p.relative_to(root).as_posix() for p in paths)
    stats = [p.stat() for p in paths]
    stamp = _hash(*(f"{k}|{s.st_size}|{s.st_mtime_ns}" for k, s in zip(keys, stats, strict=True)))
    return ImageTable(keys, np.array(labels, np.int64), lambda i: read_image(paths[i]), stamp), problems


def _image_files(folder: Path) -> Iterable[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent) / name


# --- data sets that packages bring ------------------------------------------------------------------------------


def _elpv() -> Source:
    """Deitsch et al. 2019, arXiv 1807.02894: 2,624 solar cells, 300x300 grey."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError('data.source = "elpv" needs the extra "solar": pip install elpv-dataset')
    folder = Path(spec.submodule_search_locations[0]) / "data"
    lines = (folder / "labels.csv").read_text().split("\n")
    rows = [line.split() for line in lines if line.strip()]  # path, probability of a defect, kind of module
    paths = [folder / row[0] for row in rows]
    labels = np.array([float(row[1]) >= 0.5 for row in rows], np.int64)
    stamp = f"elpv-{version('elpv-dataset')}"
    table = ImageTable(tuple(row[0] for row in rows), labels, lambda i: read_image(paths[i]), stamp)
    return Source(("functional", "defective"), {}, table, channels=1)


def _digits() -> Source:
    """scikit-learn's copy of the UCI digits: 1,797 real 8x8 scans with 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    table = _array_table(images, bunch.target, "digits")
    return Source(tuple(str(i) for i in range(10)), {}, table, channels=1, native_side=8)


FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the four files."""


def _fashion_mnist(download_to: Path) -> Source:
    if not FASHION_FOLDER.is_dir():
        return _torchvision("FashionMNIST", download_to)
    given: dict[Split, ImageTable] = {}
    stems: dict[Split, str] = {"train": "train", "test": "t10k"}
    for split, stem in stems.items():
        images = _read_idx(FASHION_FOLDER / f"{stem}-images-idx3-ubyte.gz").reshape(-1, 28, 28)
        labels = _read_idx(FASHION_FOLDER / f"{stem}-labels-idx1-ubyte.gz")
        given[split] = _array_table(images, labels, f"fashion-mnist-{split}", prefix=f"{split}/")
    return Source(FASHION_CLASSES, given, None, channels=1, native_side=28)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of a gzipped IDX file (yann.lecun.com/exdb/mnist) after its header, flat."""
    with gzip.open(path) as file:
        content = file.read()
    num_dimensions = content[3]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions)


def _torchvision(name: str, root: Path) -> Source:
    """Any torchvision classification data set; its own test split is test, whatever it is called there."""
    from torchvision import datasets

    builder = getattr(datasets, name, None)
    if builder is None or not inspect.isclass(builder) or name in ("ImageFolder", "DatasetFolder", "VisionDataset"):
        raise DataError(f"data.source: torchvision.datasets has no data set {name!r}")
    parameters = inspect.signature(builder).parameters
    common: dict[str, Any] = {"root": str(root)} if "root" in parameters else {}
    if "download" in parameters:
        common["download"] = True
    if "train" in parameters:
        options: dict[Split, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in parameters:
        options = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
    else:
        dataset = _build(builder, common)
        return Source(_class_names(dataset), {}, _dataset_table(dataset, name, ""), channels=3)
    built = {split: _build(builder, common | extra, optional=split == "val") for split, extra in options.items()}
    given = {split: _dataset_table(d, name, split) for split, d in built.items() if d is not None}
    return Source(_class_names(built["train"]), given, None, channels=3)


def _build(builder: Callable[..., Any], arguments: dict[str, Any], *, optional: bool = False) -> Any:
    try:
        return builder(**arguments)
    except ValueError as error:
        if optional:  # torchvision refuses a split name that the data set does not have
            return None
        raise DataError(f"torchvision: {error}") from error
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"torchvision could not provide the data set under {arguments.get('root')}: {error}; "
            "where the machine has no network, put its files there by hand"
        ) from error


def _class_names(dataset: Any) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if names is None:
        names = [str(i) for i in range(int(max(_targets(dataset))) + 1)]
    return tuple(str(name if isinstance(name, str) else "/".join(map(str, name))) for name in names)


def _targets(dataset: Any) -> list[int]:
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(dataset, attribute):
            return [int(label) for label in getattr(dataset, attribute)]
    return [int(dataset[i][1]) for i in range(len(dataset))]


def _dataset_table(dataset: Any, name: str, split: str) -> ImageTable:
    def read(index: int) -> Image.Image:
        return canonical(dataset[index][0])

    labels = np.array(_targets(dataset), np.int64)
    keys = tuple(f"{split}/{i}" if split else str(i) for i in range(len(labels)))
    stamp = _hash("torchvision", name, split, version("torchvision"), str(getattr(dataset, "root", "")), str(len(keys)))
    return ImageTable(keys, labels, read, stamp)


def _array_table(images: NDArray[np.uint8], labels: NDArray[Any], stamp: str, prefix: str = "") -> ImageTable:
    """Grey images that are in memory already: uint8 (N, H, W)."""
    keys = tuple(f"{prefix}{i}" for i in range(len(images)))
    content = hashlib.sha256(images.tobytes()).hexdigest()
    return ImageTable(keys, np.asarray(labels, np.int64), lambda i: Image.fromarray(images[i]), _hash(stamp, content))


def _stop_on(problems: list[str], headline: str) -> None:
    if problems:
        raise DataError("\n".join([f"{headline}:", *(f"  {problem}" for problem in problems)]))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
