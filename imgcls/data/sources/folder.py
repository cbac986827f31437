"""A folder of images: CLASS/IMAGE, or SPLIT/CLASS/IMAGE."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from imgcls.data.decode import read_image
from imgcls.data.sources.table import ImageTable, Source, Split, files_stamp
from imgcls.errors import DataError
from imgcls.shown import CONTROL, listed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision.datasets.folder.IMG_EXTENSIONS."""

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


FORMULA = re.compile(r"[=@]|[+-].*[(|!]")
"""How a class may not be called: spreadsheets run it when they open a table of predictions. `-1` and `+ve` are fine."""


def folder_source(root: Path, *, follow_symlinks: bool) -> Source:
    """All images below `root`, in the splits that its folders name, or in one table.

    Raises:
        DataError: no such folder, or one that does not hold classes of images; lists every offender.
    """
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
        keys, np.array(labels, np.int64), lambda i: read_image(paths[i]), files_stamp(paths), origin=str(root)
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


def _stop_on(problems: list[str], headline: str) -> None:
    if problems:
        raise DataError("\n".join([f"{headline}:", *listed(problems)]))
