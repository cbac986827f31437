"""What the headers of image files tell before any pixel is decoded: formats, modes and sizes."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.data.image_formats import FORMATS
from imgcls.data.image_set import SourceImages

MOST_HEADERS = 2000
"""Number of files whose headers are read, spread evenly over the folder."""

GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images."""

TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation for which width and height change places."""

ORIENTATION = 0x0112
"""EXIF's tag of the orientation."""


@dataclass(frozen=True)
class Headers:
    """The headers of some image files; those that cannot be read are left out.

    Attributes:
        num_files: files that were asked.
        sizes: int64 (N, 2), width and height of each in pixels, as it is shown.
        modes: Pillow's mode -> how many files have it.
        formats: file format -> how many files have it.
    """

    num_files: int
    sizes: NDArray[np.int64]
    modes: Counter[str]
    formats: Counter[str]

    @property
    def shorter_side(self) -> int:
        """Median of the shorter sides in pixels; 0 where no header can be read."""
        return int(np.median(self.sizes.min(axis=1))) if len(self.sizes) else 0

    @property
    def elongation(self) -> float:
        """Median of longer side / shorter side."""
        return float(np.median(self.sizes.max(axis=1) / self.sizes.min(axis=1))) if len(self.sizes) else 1.0

    @property
    def are_grey(self) -> bool:
        """Whether every file is stored in grey."""
        return bool(self.modes) and all(mode in GREY_MODES for mode in self.modes)


def read_headers(tables: Sequence[SourceImages]) -> Headers:
    """Reads the headers of up to `MOST_HEADERS` files of these tables; no pixel is decoded."""
    paths = [table.path(row) for table in tables for row in range(len(table))]
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(MOST_HEADERS, len(paths))).astype(int)).tolist()
    sizes, modes, formats = [], Counter[str](), Counter[str]()
    for at in chosen:
        with suppress(Exception):  # whatever is wrong with a file is said when it is decoded
            size, mode, kind = _header(Path(paths[at]))
            sizes.append(size)
            modes[mode] += 1
            formats[kind] += 1
    return Headers(len(chosen), np.array(sizes, np.int64).reshape(-1, 2), modes, formats)


def _header(path: Path) -> tuple[tuple[int, int], str, str]:
    if not path.is_file():  # opening a pipe would wait forever
        raise OSError
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION) in TURNED
        return (height, width) if turned else (width, height), image.mode, image.format or "unknown"
