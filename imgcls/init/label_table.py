"""Labels that stand in a table beside the images, which imgcls does not read: its columns, and the remedy."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from imgcls.data.image_formats import is_image_name
from imgcls.text import counted

TEXT_TABLES = (".csv", ".tsv", ".tab")
"""Endings of tables whose columns are looked at."""

TABLES = (*TEXT_TABLES, ".xlsx", ".xls", ".ods", ".json", ".jsonl", ".parquet")
"""Endings of files that may hold labels."""

MOST_ROWS = 2000
"""Number of rows of a table that are looked at."""

MOST_NAMES = 20_000
"""Number of images whose names are looked for in tables."""

LABEL_WORDS = re.compile("label|class|categor|target|diagnos|species|breed|^dx$|^y$", re.IGNORECASE)
"""What columns of labels are called."""

TABLE_WORDS = re.compile("label|annot|class|target|meta|truth|train", re.IGNORECASE)
"""What files of labels are called: above the folder that the user named, one that is not text needs such a name."""


@dataclass(frozen=True)
class LabelTable:
    """A table that may hold the labels of images.

    Attributes:
        path: of the file.
        image: number of the column that names the images, from 1; 0 where none does, or the file is not text.
        label: number of the column that may hold the labels, from 1; 0 where none may.
        titles: of the columns; empty where the first row is not one of titles.
        values: different cells of the column of labels among the first `MOST_ROWS` rows, sorted; without its title.
        is_whole: whether the table has no further rows.
    """

    path: Path
    image: int = 0
    label: int = 0
    titles: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    is_whole: bool = True

    @property
    def num_values(self) -> str:
        """How many different labels it holds, in words."""
        return f"{'' if self.is_whole else 'at least '}{counted(len(self.values), 'value')}"

    def remedy(self, images: Path) -> str:
        """What to do where the images of a folder have their labels in this table."""
        first = "" if self.path.suffix.lower() in TEXT_TABLES else "Save the table as CSV first. "
        return (
            f"labels are not read from {self.path.name}: make one folder per class, FOLDER/CLASS/IMAGE, and copy each "
            f"image into the folder of its label. {first}docs/init.md has a script for it{self._settings(images)}"
        )

    def _settings(self, images: Path) -> str:
        if not (self.image and self.label):
            return ""
        image, label = (f"{at} ({self.titles[at - 1]})" if self.titles else f"{at}" for at in (self.image, self.label))
        return (
            f'; set there TABLE = Path("{self.path}"), IMAGES = Path("{images}"), IMAGE = {image} and LABEL = {label}, '
            f"which has {self.num_values}"
        )


def find_label_table(images: Path, *above: Path) -> LabelTable | None:
    """The table that holds the labels of the images in a folder, as far as can be seen; None without any.

    Args:
        images: the folder that holds the images, at any depth.
        above: the folders in which it lies, up to the one that the user named.
    """
    inside = dict.fromkeys((images, *above))
    beside = [folder for folder in {each.parent: None for each in inside} if folder not in inside]
    found = [table for folder in inside for table in _tables(folder)]
    outer = [table for folder in beside for table in _tables(folder)]
    if not found and not outer:
        return None
    names = _names_of(path.name for path in images.rglob("*") if is_image_name(path.name))
    read = [_read(path, names) for path in (*found, *outer) if path.suffix.lower() in TEXT_TABLES]
    naming = sorted((table for table in read if table.image), key=lambda table: not table.label)
    called = [path for path in outer if path.suffix.lower() not in TEXT_TABLES and TABLE_WORDS.search(path.stem)]
    others = [LabelTable(path) for path in (*found, *called)]
    return next(iter((*naming, *others)), None)


def other_labels(folder: Path, keys: Iterable[str], classes: Iterable[str]) -> str:
    """What to know where a table in a folder of class folders names its images, and may hold other labels.

    Args:
        folder: that the user named.
        keys: paths of its images.
        classes: names of the class folders.

    Returns:
        "" where no table does.
    """
    if not (paths := [path for path in _tables(folder) if path.suffix.lower() in TEXT_TABLES]):
        return ""
    names, known = _names_of(keys), {name.casefold() for name in classes}
    for table in (_read(path, names) for path in paths):
        title = table.titles[table.label - 1] if table.label and table.titles else ""
        if LABEL_WORDS.search(title) and not {value.strip().casefold() for value in table.values} <= known:
            return (
                f"{table.path.name} names these images, and its column {title} has {table.num_values}. "
                "The classes are the folders, and the table is not read. If the labels "
                "stand in the table, docs/init.md has a script that makes a folder per label"
            )
    return ""


def _tables(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES and path.is_file())
    return []


def _names_of(images: Iterable[str]) -> set[str]:
    """Names of images, with their endings and without."""
    paths = map(PurePosixPath, islice(images, MOST_NAMES))
    return {name for path in paths for name in (path.name, path.stem)}


def _read(path: Path, names: set[str]) -> LabelTable:
    """Reads the first rows of a table of text, and finds the column that names images and that of labels."""
    try:
        rows = list(islice(_rows(path), MOST_ROWS))
    except (OSError, csv.Error):
        return LabelTable(path)
    num_rows, widths = len(rows), Counter(map(len, rows))
    width = max(widths, key=widths.__getitem__, default=0)
    rows = [row for row in rows if len(row) >= width]
    columns = list(zip(*(row[:width] for row in rows), strict=True))
    hits = [len({_last_part(cell) for cell in column} & names) for column in columns]
    if not any(hits):
        return LabelTable(path)
    image = hits.index(max(hits))
    has_titles = _last_part(columns[image][0]) not in names
    cells = [column[has_titles:] for column in columns]
    label = _label_column(columns, cells, image)
    values = tuple(sorted(set(cells[label]))) if label is not None else ()
    titles, is_whole = tuple(rows[0]) if has_titles else (), num_rows < MOST_ROWS
    return LabelTable(path, image + 1, 0 if label is None else label + 1, titles, values, is_whole)


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
        file.seek(0)
        separator = max(",;\t|", key=first.count)
        yield from (row for row in csv.reader(file, delimiter=separator) if row)


def _last_part(cell: str) -> str:
    return cell.strip().replace("\\", "/").rpartition("/")[2]


def _label_column(columns: Sequence[Sequence[str]], cells: Sequence[Iterable[str]], image: int) -> int | None:
    """The column whose cells are the same for several images: the one that is called so, else that with fewest."""
    numbers = [at for at in range(len(columns)) if at != image]
    different = {at: len(set(cells[at])) for at in numbers}
    fitting = [at for at in numbers if 2 <= different[at] < len(list(cells[at]))]
    called = [at for at in fitting if LABEL_WORDS.search(columns[at][0])]
    return min(called or fitting, key=lambda at: different[at], default=None)
