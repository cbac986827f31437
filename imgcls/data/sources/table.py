"""A table of (image, label) per split, and the names of the classes.

Nothing is decoded here but the image asked for; a table only knows how to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "val", "test"]


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
            stamp=hash_of(self.stamp, *map(str, chosen)),
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
        ignored: kind of files that are not images of a class, such as `.txt` -> how many there are.
        folders: name of each split's folder, such as `Train/`; empty where splits are not folders.
    """

    class_names: tuple[str, ...]
    given: dict[Split, ImageTable]
    everything: ImageTable | None
    channels: Literal[1, 3]
    native_side: int | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    folders: Mapping[Split, str] = field(default_factory=dict)


def array_table(images: NDArray[np.uint8], labels: NDArray[Any], stamp: str, prefix: str = "") -> ImageTable:
    """Grey images that are in memory already: uint8 (N, H, W)."""
    keys = tuple(f"{prefix}{i}" for i in range(len(images)))
    content = hashlib.sha256(images.tobytes()).hexdigest()
    return ImageTable(keys, np.asarray(labels, np.int64), lambda i: Image.fromarray(images[i]), hash_of(stamp, content))


def files_stamp(paths: Iterable[Path]) -> str:
    """Changes when a file is moved, replaced or written to, even by a program that sets the old time again."""
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            lines.append(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}")
        except OSError:  # a dangling link; reading it says so
            lines.append(f"{path.absolute()}|missing")
    return hash_of(*lines)


def hash_of(*parts: str) -> str:
    """SHA-256 of the parts, in hexadecimal."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
