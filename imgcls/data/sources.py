"""Where images come from: a table of (image, label) per split, and the names of the classes.

Nothing is decoded here but the image asked for; a table only knows how to.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import inspect
import logging
import operator
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.config import DataConfig, located
from imgcls.data.decode import canonical, read_image, refusing
from imgcls.errors import DataError
from imgcls.shown import CONTROL

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision.datasets.folder.IMG_EXTENSIONS."""

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


FORMULA = re.compile(r"[=@]|[+-].*[(|!]")
"""How a class may not be called: spreadsheets run it when they open a table of predictions. `-1` and `+ve` are fine."""


@dataclass(frozen=True)
class ImageTable:
    """Labelled images that are not decoded yet.

    Attributes:
        keys: a stable name per image (a path relative to the source, or an index).
        labels: int64 (N,), indices into the class names.
        read: index -> upright 8-bit image, mode `L` or `RGB`; raises UnreadableImageError.
        stamp: changes when the files do (place, names, sizes, times of change), known without decoding an image.
        origin: what a key is relative to: a folder, or the name of a data set.
        groups: name of each image's group, or none where images stand for themselves.
    """

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    read: Callable[[int], Image.Image]
    stamp: str
    origin: str = ""
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def path(self, row: int) -> str:
        """Where the image is, for people."""
        return str(Path(self.origin, self.keys[row]))

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageTable:
        """The rows at `indices`, in that order."""
        chosen = [int(i) for i in indices]
        return ImageTable(
            keys=tuple(self.keys[i] for i in chosen),
            labels=self.labels[chosen],
            read=lambda i: self.read(chosen[i]),
            stamp=_hash(self.stamp, *map(str, chosen)),
            origin=self.origin,
            groups=tuple(self.groups[i] for i in chosen) if self.groups else (),
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
    path = located(config.path, root, "data.path")
    if config.source == "folder":
        if not config.path:
            raise DataError('data.source = "folder" needs data.path = "…", the folder that holds the images')
        return _folder(path, follow_symlinks=config.follow_symlinks)
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


def _folder(root: Path, *, follow_symlinks: bool) -> Source:
    if not root.is_dir():
        raise DataError(f"data.path: there is no folder {root}")
    splits = _split_folders(root)
    if not follow_symlinks:
        _refuse_links_out(root, splits.values() if splits else [root])
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


def _refuse_links_out(root: Path, folders: Iterable[Path]) -> None:
    """A folder of images that somebody else made may have links to files that are none of its maker's business."""
    if offenders := sorted(_links_out(root, folders)):
        raise DataError(
            "\n".join([
                f"{root} has links that lead out of it:", *listed(offenders),
                "copy what they lead to into the folder, or allow them with data.follow_symlinks = true",
            ])
        )  # fmt: skip


def _links_out(root: Path, folders: Iterable[Path]) -> Iterator[str]:
    """`path -> where it leads` of each link, at any depth below `folders`, whose end lies outside of `root`."""
    # os.path.realpath, since Path.resolve raises where links lead in a circle.
    home = os.path.realpath(root)
    unseen, seen = list(folders), set()
    while unseen:
        folder = unseen.pop()
        real = os.path.realpath(folder)
        if not Path(real).is_relative_to(home):
            yield f"{folder} -> {real}"
        elif real not in seen:
            seen.add(real)
            links, inner = _links_and_folders(folder)
            unseen += inner
            ends = ((link, os.path.realpath(link)) for link in links)
            yield from (f"{link} -> {end}" for link, end in ends if not Path(end).is_relative_to(home))


def _links_and_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Links that are called like images, and folders, linked ones included; hidden ones are left out."""
    links, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112
                    folders.append(folder / entry.name)
                elif entry.is_symlink() and entry.name.lower().endswith(IMAGE_SUFFIXES):
                    links.append(folder / entry.name)
    except OSError:  # whoever lists the images says so
        return [], []
    return links, folders


def _class_folders(folder: Path) -> list[str]:
    try:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    if not names:
        raise DataError(f"{folder} has no class folders; expected {folder.name}/CLASS/IMAGE.png")
    formulas = [f"{str(folder / name)!r}: a spreadsheet would compute it" for name in names if FORMULA.match(name)]
    _stop_on(_illegible(folder, names) + formulas, "classes that must be renamed")
    return names


def _illegible(root: Path, names: Iterable[str]) -> list[str]:
    """Names that would come out as something else where the record, a table or a terminal shows them."""
    return [
        f"{str(root / name)!r}: control characters, or not UTF-8; rename it"
        for name in names
        if "\n" in name or "\t" in name or CONTROL.search(name)
    ]


def _folder_table(
    root: Path, folder: Path, class_names: Sequence[str], *, may_lack_classes: bool = False
) -> tuple[ImageTable, list[str]]:
    """All images below `folder`'s class folders, and what is wrong with them."""
    paths: list[Path] = []
    labels: list[int] = []
    problems: list[str] = []
    for label, name in enumerate(class_names):
        if may_lack_classes and not (folder / name).is_dir():
            continue
        files = sorted(_image_files(folder / name, problems), key=lambda p: p.relative_to(root).as_posix())
        if not files:
            problems.append(f"{folder / name}: no image in this class ({', '.join(IMAGE_SUFFIXES)})")
        paths += files
        labels += [label] * len(files)
    keys = tuple(p.relative_to(root).as_posix() for p in paths)
    if illegible := _illegible(root, keys):
        return ImageTable((), np.array([], np.int64), lambda i: read_image(paths[i]), ""), [*problems, *illegible]
    table = ImageTable(
        keys, np.array(labels, np.int64), lambda i: read_image(paths[i]), _files_stamp(paths), origin=str(root)
    )
    return table, problems


def _image_files(folder: Path, problems: list[str]) -> Iterable[Path]:
    """Images at any depth, links followed as ImageFolder does, but for a link back to a folder it lies in."""

    def note(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        here = Path(os.path.realpath(parent))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not here.is_relative_to(os.path.realpath(Path(parent, name)))
        ]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent) / name


def _files_stamp(paths: Iterable[Path]) -> str:
    """Changes when a file is moved, replaced or written to, even by a program that sets the old time again."""
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            lines.append(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}")
        except OSError:  # a dangling link; reading it says so
            lines.append(f"{path.absolute()}|missing")
    return _hash(*lines)


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
    keys = tuple(row[0] for row in rows)
    table = ImageTable(keys, labels, lambda i: read_image(paths[i]), stamp, origin=str(folder))
    return Source(("functional", "defective"), {}, table, channels=1, native_side=300)


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
        images = _read_idx(FASHION_FOLDER / f"{stem}-images-idx3-ubyte.gz")
        labels = _read_idx(FASHION_FOLDER / f"{stem}-labels-idx1-ubyte.gz")
        given[split] = _array_table(images, labels, f"fashion-mnist-{split}", prefix=f"{split}/")
    return Source(FASHION_CLASSES, given, None, channels=1, native_side=28)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """A gzipped IDX file of bytes (yann.lecun.com/exdb/mnist), in the shape that its header names."""
    try:
        with gzip.open(path) as file:
            content = file.read()
        num_dimensions = content[3]
        shape = np.frombuffer(content, ">u4", count=num_dimensions, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path}: {error}; install the package dataset-fashion-mnist again") from error


SPLIT_VALUES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
"""What torchvision's data sets call their splits; the first that a data set knows is taken."""


def _torchvision(name: str, root: Path) -> Source:
    """Any torchvision classification data set; its own test split is test, whatever it is called there."""
    from torchvision import datasets

    builder = getattr(datasets, name, None)
    if builder is None or not inspect.isclass(builder) or name in ("ImageFolder", "DatasetFolder", "VisionDataset"):
        raise DataError(f"data.source: torchvision.datasets has no data set {name!r}")
    try:
        return _torchvision_source(name, builder, root, like_mnist=issubclass(builder, datasets.MNIST))
    except DataError:
        raise
    except TypeError as error:
        raise DataError(f"torchvision:{name} needs more than a name, or is no classification: {error}") from error
    except Exception as error:  # each data set fails in its own way
        raise DataError(
            f"torchvision could not provide {name} under {root}: {error}; "
            "where the machine has no network, put its files there by hand"
        ) from error


def _torchvision_source(name: str, builder: Callable[..., Any], root: Path, *, like_mnist: bool) -> Source:
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
    given: dict[Split, ImageTable] = {}
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


def _class_names(dataset: Any, train: ImageTable) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        names = map(str, range(int(train.labels.max()) + 1))
    return tuple(name if isinstance(name, str) else "/".join(map(str, name)) for name in names)


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


def _dataset_table(dataset: Any, name: str, split: str) -> ImageTable | None:
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
        content = _files_stamp(sorted(path for path in Path(root).rglob("*") if path.is_file()))
    else:
        content = repr(dataset)
    stamp = _hash("torchvision", name, split, version("torchvision"), str(len(keys)), content)
    return ImageTable(keys, labels, read, stamp, origin=f"torchvision:{name}")


def _array_table(images: NDArray[np.uint8], labels: NDArray[Any], stamp: str, prefix: str = "") -> ImageTable:
    """Grey images that are in memory already: uint8 (N, H, W)."""
    keys = tuple(f"{prefix}{i}" for i in range(len(images)))
    content = hashlib.sha256(images.tobytes()).hexdigest()
    return ImageTable(keys, np.asarray(labels, np.int64), lambda i: Image.fromarray(images[i]), _hash(stamp, content))


def _stop_on(problems: list[str], headline: str) -> None:
    if problems:
        raise DataError("\n".join([f"{headline}:", *listed(problems)]))


def listed(items: Sequence[str], num: int | None = None, most: int | None = None) -> list[str]:
    """Indented lines, one an item; where there are more than are shown, a last line says how many.

    Args:
        items: what to list, or its beginning.
        num: how many there are in all, where that is not all of `items`.
        most: how many to show; all by default.
    """
    shown = [f"  {item}" for item in items[:most]]
    left = (len(items) if num is None else num) - len(shown)
    return [*shown, f"  and {left} more"] if left > 0 else shown


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
