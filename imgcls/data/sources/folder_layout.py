"""Which folders of a folder of images are splits, which are classes, and which are neither."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from imgcls.data.image_formats import is_image_name, may_be_image
from imgcls.data.image_set import Split
from imgcls.errors import DataError
from imgcls.text import CONTROL, listed, nearest, nfc, spelt

SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("training", "train", "trn"),
    "val": ("validation", "valid", "val", "development", "dev"),
    "test": ("testing", "test", "tst", "evaluation", "eval", "holdout", "heldout"),
}
"""What public data sets call their splits: the words of Hugging Face's `imagefolder`, and a few more."""

_WORD = "|".join(f"(?P<{split}>{'|'.join(words)})" for split, words in SPLIT_WORDS.items())
_THING = "data|dataset|set|split|folder|images?|imgs?|pictures?|photos?|samples?|seg"
SPLIT_NAME = re.compile(rf"(?:{_THING})?(?:{_WORD})(?:{_THING})*\d*")
"""A split's name in small letters without separators: `train`, `testset`, `validationimages`, `train2017`."""

LEFTOVERS = frozenset({
    "__macosx", "__pycache__", "@eadir", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "lost+found",
    "system volume information",
})  # fmt: skip
"""Folders, in small letters, that programs leave behind: archivers, network disks, bins."""

FORMULA = re.compile(r"[=@]|[+-].*[(|!]")
"""How a class may not be called: spreadsheets run it when they open a table of predictions. `-1` and `+ve` are fine."""


def split_of(name: str) -> Split | None:
    """The split that a folder of the layout is by its name, in upper or lower case; None for any other name."""
    plain = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    found = SPLIT_NAME.fullmatch(plain)
    return next((split for split in SPLIT_WORDS if found[split]), None) if found else None


def is_set_aside(name: str) -> bool:
    """Whether the layout of a folder leaves a name out: it is hidden, or left behind by a program."""
    return name.startswith(".") or name.casefold() in LEFTOVERS


def find_splits(root: Path) -> dict[Split, Path]:
    """The layout's split folders in `root`; none where it holds the class folders themselves.

    Raises:
        DataError: folders that are called like splits and cannot be taken as such.
    """
    folders = _folders(root)
    found: dict[Split, Path] = {}
    for folder in folders:
        if (split := split_of(folder.name)) is None:
            continue
        if split in found:
            raise DataError(
                f"{root} has {found[split].name}/ and {folder.name}/, which both name the {split} split; keep one "
                f"{split} folder, or rename what is not {split}"
            )
        found[split] = folder
    if found and "train" not in found:
        there = ", ".join(f"{folder.name}/" for folder in found.values())
        raise DataError(
            f"{root} has {there} but no train/; classes are learnt from train/ alone: {_expected(root)}. "
            "Rename what is a class and not a split"
        )
    if not found and folders and all(_sounds_like_split(folder.name) for folder in folders):
        there = ", ".join(f"{folder.name}/" for folder in folders)
        raise DataError(f"{root} has {there}: called like splits, but none that can be taken as one; {_expected(root)}")
    if found:
        _refuse_beside_classes(root, found, folders)
    return found


def _sounds_like_split(name: str) -> bool:
    """Whether a name has a word for a split in it, as in `trainA` and `test_hard`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.casefold() in SPLIT_WORDS[split] for word in words for split in SPLIT_WORDS)


def _refuse_beside_classes(root: Path, splits: Mapping[Split, Path], folders: Sequence[Path]) -> None:
    """Refuses folders beside train/ that are its classes, and those beside which `train` may be a class itself."""
    others = [folder for folder in folders if folder not in splits.values()]
    classes = {nfc(folder.name).casefold() for folder in _folders(splits["train"])}
    strays = [folder for folder in others if nfc(folder.name).casefold() in classes]
    name = splits["train"].name
    if strays:
        there = ", ".join(f"{folder.name}/" for folder in strays)
        raise DataError(f"{root} has {there} beside {name}/, which has the same classes; move them into a split")
    if not classes and _has_images(splits["train"]) and (filled := [f for f in others if _has_images(f)]):
        there = ", ".join(f"{folder.name}/" for folder in filled)
        raise DataError(
            f"{root} has {name}/ beside {there}, all with images directly in them: {name}/ is taken as a split and not "
            f"as a class; if it is a class, rename it; else {_expected(root)}"
        )


class NoClassesError(DataError):
    """Error of a layout without class folders; `folder` should hold them."""

    def __init__(self, folder: Path, stray: str) -> None:
        super().__init__(f"{folder} has no class folders; expected {folder.name}/CLASS/IMAGE.png{stray}")
        self.folder = folder


def class_folders(folder: Path) -> dict[str, Path]:
    """The layout's class folders: name of each class, in NFC and sorted -> its folder.

    Raises:
        DataError: no class folders, or names that cannot be a class's.
    """
    folders = _folders(folder)
    if not folders:
        stray = "; images that lie in it directly have no class" if _has_images(folder) else ""
        raise NoClassesError(folder, stray)
    names = [path.name for path in folders]
    formulas = [f"{str(folder / name)!r}: a spreadsheet would compute it" for name in names if FORMULA.match(name)]
    stop_on([*illegible(folder, names), *formulas, *_same_in_nfc(folders)], "classes that must be renamed")
    return dict(sorted((nfc(path.name), path) for path in folders))


def refuse_splits_below_classes(classes: Mapping[str, Path], root: Path, *, has_groups: bool) -> None:
    """Refuses a layout CLASS/SPLIT/IMAGE, and folders whose classes probably lie one level deeper.

    With `has_groups`, the folders below classes may be the same in every class.

    Raises:
        DataError: naming what was found and what is expected.
    """
    if all(split_of(name) for name in classes):
        there = ", ".join(f"{folder.relative_to(root).as_posix()}/" for folder in classes.values())
        raise DataError(f"{root} has {there}: splits where classes are expected; {_expected(root)}")
    below = {name: _folders(folder) for name, folder in classes.items()}
    splits = {name: [f.name for f in folders if split_of(f.name)] for name, folders in below.items()}
    if any(splits.values()):
        name, found = next((name, found) for name, found in splits.items() if found)
        there = ", ".join(f"{classes[name].relative_to(root).as_posix()}/{each}/" for each in found)
        raise DataError(f"{root} has {there}: a split within a class; {_expected(root)}{_one_level_down(classes)}")
    for name, folders in below.items():
        if split_of(name) and any(nfc(folder.name) in classes for folder in folders):
            there = classes[name].relative_to(root).as_posix()
            raise DataError(f"{root} has {there}/: a split among the classes that it holds; {_expected(root)}")
    kinds = {frozenset(nfc(f.name) for f in folders) for folders in below.values()}
    if has_groups or len(kinds) != 1 or len(next(iter(kinds))) < 2 or any(map(_has_images, classes.values())):
        return
    first = next(iter(classes.values())).relative_to(root).as_posix()
    there = ", ".join(f"{first}/{folder.name}/" for folder in next(iter(below.values())))
    raise DataError(
        f"{root}: no class folder has images of its own, and all hold the same folders ({there}), so these may be the "
        f"classes; {_expected(root)}{_one_level_down(classes)}. Name patients, dates or the like with data.groups"
    )


def strangers(folder: Path, theirs: Iterable[str], known: Sequence[str]) -> list[str]:
    """Problems of a layout: classes that train lacks, each with the name that was probably meant."""
    problems = []
    for name in sorted(set(theirs) - set(known)):
        near = nearest(name, known)
        meant = f"; did you mean {near}?" if near else ""
        problems.append(f"{folder / name}: a class that train/ lacks{meant}")
    return problems


def illegible(root: Path, names: Iterable[str]) -> list[str]:
    """Problems of a layout: names that the record, a table or a terminal would show as something else."""
    return [
        f"{str(root / name)!r}: control characters, or not UTF-8; rename it"
        for name in names
        if "\n" in name or "\t" in name or CONTROL.search(name)
    ]


def _same_in_nfc(paths: Iterable[Path]) -> list[str]:
    """Problems: names that look alike and differ only in their code points."""
    first: dict[str, Path] = {}
    problems = []
    for path in paths:
        if (other := first.setdefault(nfc(path.name), path)) is not path:
            problems.append(same_name(other, path))
    return problems


def same_name(one: Path, other: Path) -> str:
    """The problem of a layout with two files or folders whose names differ only in their code points."""
    return f"{one.parent}: {spelt(one.name)} and {spelt(other.name)} are the same name in Unicode's NFC; rename one"


def stop_on(problems: Sequence[str], headline: str) -> None:
    """Stops on the problems of a folder's layout, where there are any: raises a DataError that lists them."""
    if problems:
        raise DataError("\n".join([f"{headline}:", *listed(problems)]))


def refuse_links_out(root: Path, folders: Iterable[Path]) -> None:
    """Refuses a layout with links that lead out of the folder: somebody else's folder may link to private files.

    Raises:
        DataError: naming each link and where it leads.
    """
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
            with suppress(DataError):  # the listing of the images says what cannot be listed
                for entry in _visible(folder):
                    if is_folder(entry):
                        unseen.append(folder / entry.name)
                    elif entry.is_symlink() and may_be_image(entry.name):
                        end = os.path.realpath(entry.path)
                        if not Path(end).is_relative_to(home):
                            yield f"{folder / entry.name} -> {end}"


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted by name, without those that are set aside; links to folders are folders."""
    return sorted(folder / entry.name for entry in _visible(folder) if is_folder(entry))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a layout is a folder or a link to one; `entry.is_dir` raises where links lead in a circle."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112


def _has_images(folder: Path) -> bool:
    return any(is_image_name(entry.name) for entry in _visible(folder))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder that are not set aside; an entry knows its kind without asking the disk again.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_set_aside(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error


def _one_level_down(classes: Mapping[str, Path]) -> str:
    """The remedy if there is only one folder, which then holds the images."""
    return f", or data.path = {str(next(iter(classes.values())))!r}" if len(classes) == 1 else ""


def _expected(root: Path) -> str:
    return f"expected {root.name}/CLASS/IMAGE.png, or {root.name}/train/CLASS/IMAGE.png with val/ and test/ beside it"
