"""A folder of images: CLASS/IMAGE, or SPLIT/CLASS/IMAGE. Every file in it is used, refused by name or counted."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imgcls.config.keys import DataConfig
from imgcls.data.decode import read_image, size_in_header
from imgcls.data.image_formats import ending, is_image_name, kind_inside, may_be_image
from imgcls.data.image_set import SourceImages, Split
from imgcls.data.sources.folder_layout import (
    class_folders,
    find_splits,
    illegible,
    is_set_aside,
    refuse_links_out,
    refuse_splits_below_classes,
    same_name,
    stop_on,
    strangers,
)
from imgcls.data.sources.source import ImageSource, Source
from imgcls.data.sources.stamps import stamp_of
from imgcls.errors import DataError
from imgcls.text import nearest, nfc


class Folder(ImageSource):
    """A folder as the source: all images below it, in the splits that its subfolders name, or in one set."""

    name = "folder"

    def open(self, config: DataConfig, path: Path) -> Source:
        """Lists every image of every class."""
        if not config.path:
            raise DataError('data.source = "folder" needs data.path = "…", the folder that holds the images')
        root = _existing(path)
        splits = find_splits(root)
        if not config.follow_symlinks:
            refuse_links_out(root, splits.values() if splits else [root])
        folders = {split: class_folders(folder) for split, folder in splits.items()}
        classes = folders["train"] if splits else class_folders(root)
        refuse_splits_below_classes(classes, root, has_groups=bool(config.groups))
        files = _Files(root)
        names = tuple(classes)
        given: dict[Split, SourceImages] = {}
        everything = None if splits else files.table(classes, names)
        files.ignore_beside(root, splits.values() if splits else classes.values())
        for split, folder in splits.items():
            files.problems += strangers(folder, folders[split], names)
            given[split] = files.table(folders[split], names)
            files.ignore_beside(folder, folders[split].values())
        stop_on(files.problems, f"{root} cannot be used")
        return Source(
            names, given, everything, channels=3, ignored=dict(files.ignored),
            folders={split: f"{folder.name}/" for split, folder in splits.items()},
        )  # fmt: skip


@dataclass
class _Files:
    """The files that are found below a folder of images.

    Attributes:
        root: the folder, to which keys are relative.
        problems: why the folder cannot be used, each with its path.
        ignored: kind of files that are not images of a class -> how many there are.
    """

    root: Path
    problems: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def table(self, classes: Mapping[str, Path], names: tuple[str, ...]) -> SourceImages:
        """All images below the folders of classes, by name; those of classes that are not in `names` are left out."""
        rows: dict[str, tuple[Path, int]] = {}
        for label, name in enumerate(names):
            if name not in classes:
                continue
            found = sorted(
                (nfc(path.relative_to(self.root).as_posix()), path)
                for path in images_below(classes[name], self.ignored, self.problems)
            )
            if not found:
                self.problems.append(f"{classes[name]}: no image in this class{self._ignored_there(classes[name])}")
            for key, path in found:
                if key in rows:
                    self.problems.append(same_name(rows[key][0], path))
                rows[key] = path, label
        paths = [path for path, _ in rows.values()]
        self.problems += illegible(self.root, rows)
        if self.problems:  # the folder will be refused
            return SourceImages((), np.array([], np.int64), lambda i: read_image(paths[i]), "")
        labels = np.array([label for _, label in rows.values()], np.int64)
        stamp = stamp_of(paths, self.root)
        return SourceImages(
            tuple(rows), labels, lambda i: read_image(paths[i]), stamp.of_content, origin=str(self.root),
            earlier_stamp=stamp.of_place, is_outdated=stamp.is_outdated, header=lambda i: size_in_header(paths[i]),
        )  # fmt: skip

    def ignore_beside(self, folder: Path, used: Iterable[Path]) -> None:
        """Counts the files that lie directly in a folder of folders, and all those in folders that are not used."""
        chosen = set(used)
        for path in sorted(folder.iterdir()):
            if path in chosen:
                continue
            if path.is_dir() and path.is_symlink():
                self.ignored["link to a folder"] += 1
            elif path.is_dir():
                _ignore_folder(path, self.ignored)
            else:
                label = why_ignored(path) or f"{ending(path.name) or 'images'} outside of the class folders"
                self.ignored[label] += 1

    def _ignored_there(self, folder: Path) -> str:
        """What a class without an image has instead, as the end of a message."""
        found = Counter(filter(None, (why_ignored(path) for path in folder.rglob("*") if path.is_file())))
        return f"; it has {ignored_in_words(found)}" if found else ", nor any other file"


def images_below(folder: Path, ignored: Counter[str], problems: list[str]) -> Iterator[Path]:
    """A folder's images at any depth, links followed as ImageFolder does, except a link back to a folder it lies in.

    Args:
        folder: where to look.
        ignored: kind of files that are not images -> how many there are; those met are added.
        problems: `path: reason` of each folder that cannot be listed; those met are added.
    """

    def note(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        here = Path(os.path.realpath(parent))
        for name in filter(is_set_aside, folders):
            _ignore_folder(Path(parent, name), ignored)
        folders[:] = [
            name
            for name in folders
            if not is_set_aside(name) and not here.is_relative_to(os.path.realpath(Path(parent, name)))
        ]
        for path in (Path(parent, name) for name in files):
            if label := why_ignored(path):
                ignored[label] += 1
            else:
                yield path


def _ignore_folder(folder: Path, ignored: Counter[str]) -> None:
    num_files = sum(len(files) for _, _, files in os.walk(folder))
    if num_files:
        ignored["hidden" if folder.name.startswith(".") else f"in {folder.name}/"] += num_files


def ignored_in_words(ignored: Mapping[str, int]) -> str:
    """A folder's ignored files in words, the most frequent kind first: `40 .HEIC, 1 .txt`."""
    return ", ".join(f"{num} {kind}" for kind, num in sorted(ignored.items(), key=lambda item: (-item[1], item[0])))


def why_ignored(path: Path) -> str:
    """Why a folder's file is left out: the kind of what is not an image, in words; "" for one, readable or not."""
    name = path.name
    if is_set_aside(name):
        return "hidden"
    if is_image_name(name):
        return ""
    if not may_be_image(name):
        return ending(name) or "~"
    with suppress(OSError):
        if path.is_file() and kind_inside(path):
            return ""
    return "without an ending"


def _existing(written: Path) -> Path:
    """The folder of images at a path, in whichever normal form its accents are written.

    Raises:
        DataError: the folder does not exist; the message names the nearest one that does.
    """
    found = Path(written.anchor)
    parts = written.parts[1:] if written.anchor else written.parts
    for at, part in enumerate(parts, start=1):
        if (found / part).exists():
            found /= part
            continue
        try:
            there = sorted(path.name for path in found.iterdir() if path.is_dir())
        except OSError:  # not a folder, or not to be listed
            there = []
        same = [name for name in there if nfc(name) == nfc(part)]
        if not same:
            near = nearest(part, there)
            meant = f"; did you mean {found.joinpath(near, *parts[at:])}?" if near else f"; {found} has no {part}"
            raise DataError(f"data.path: the folder {written} does not exist{meant}")
        found /= same[0]
    if not found.is_dir():
        raise DataError(f"data.path: {found} is a file, not a folder; unpack it if it is an archive")
    return found
