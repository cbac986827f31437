"""Folders whose only class is a mistake: classes that lie deeper, labels in a file; each error has its remedy."""

from pathlib import Path

from imgcls.data.image_formats import is_image_name
from imgcls.data.sources.folder_layout import NoClassesError, is_set_aside
from imgcls.data.sources.source import Source
from imgcls.errors import DataError
from imgcls.init.label_table import find_label_table
from imgcls.text import nfc

MOST_CLASSES = 5
"""Number of classes that an error names."""


def one_class_only(source: Source, images: Path) -> DataError:
    """The error of a folder of images in which one class was found, with the remedy for what it probably is.

    Args:
        source: the listing.
        images: the folder.
    """
    name = source.class_names[0]
    above = images / source.folders.get("train", "")
    folder = next((each for each in _folders(above) if nfc(each.name) == name), above)
    remedy = _deeper(above, folder, is_split=bool(source.folders)) or _labels(images, above, folder)
    problem = f"{images} has only one class, {name}"
    return DataError(f"{problem}; {remedy or 'a classifier needs two or more, each a folder of its own'}")


def _deeper(above: Path, folder: Path, *, is_split: bool) -> str:
    """The remedy where the folder of the only class holds folders with images instead of images."""
    while len(below := _folders(folder)) == 1 and not _has_images(folder):
        folder = below[0]
    if len(below) < 2 or _has_images(folder):
        return ""
    names = [each.name for each in below]
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    holds = f"{folder} holds {', '.join(names[:MOST_CLASSES])}{more}"
    return f"{holds}: if these are the classes, " + (f"move them into {above}" if is_split else "give that folder")


def _labels(images: Path, above: Path, folder: Path) -> str:
    """The remedy where a file beside the images or above them may hold their labels."""
    table = find_label_table(folder, above, images)
    return table.remedy(folder) if table else ""


def no_classes(error: NoClassesError, images: Path) -> DataError:
    """The error of a folder of images without class folders, with the remedy where labels stand in a table.

    Args:
        error: of the source.
        images: the folder that the user named.
    """
    folder = error.folder
    table = find_label_table(folder, *(each for each in folder.parents if each.is_relative_to(images)))
    return DataError(f"{error}; {table.remedy(folder)}") if table else error


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and not is_set_aside(each.name))


def _has_images(folder: Path) -> bool:
    return any(each.is_file() and is_image_name(each.name) for each in folder.iterdir())
