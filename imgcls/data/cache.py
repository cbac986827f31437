"""Decode once: every image of a table becomes uint8 on disk, memory-mapped ever after.

A cache entry is a folder named by what it was made from. It is written aside and renamed, so a reader sees a
whole one or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from imgcls.data.decode import UnreadableImageError, digest, to_square
from imgcls.data.labelled import LabelledImages
from imgcls.data.sources import ImageTable
from imgcls.errors import DataError

FORMAT = "2"
"""Part of every key: raise it when the pixels that decoding gives change."""


@dataclass(frozen=True)
class Decoded:
    """A decoded table.

    Attributes:
        digests: uint8 (N, 32), SHA-256 of each image's source pixels; zeros where unreadable.
        kept: int64 (M,), rows of the table whose pixels are here, ascending.
        images: uint8 (M, C, side, side), memory-mapped.
        unreadable: (row, reason) of each image left out.
    """

    digests: NDArray[np.uint8]
    kept: NDArray[np.int64]
    images: NDArray[np.uint8]
    unreadable: tuple[tuple[int, str], ...]

    def labelled(self, table: ImageTable) -> LabelledImages:
        """The kept rows of the table, decoded."""
        keys = tuple(table.keys[row] for row in self.kept)
        return LabelledImages(self.images, table.labels[self.kept], keys, self.digests[self.kept])

    def offenders(self, table: ImageTable) -> list[str]:
        """`name: reason` of each unreadable image."""
        return [f"{table.keys[row]}: {reason}" for row, reason in self.unreadable]


Keep = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.bool_]]
"""(digests (N, 32), readable (N,)) -> which rows' pixels to keep."""


def cache_folder() -> Path:
    """`IMGCLS_CACHE`, else `imgcls` in the user's cache folder."""
    if named := os.environ.get("IMGCLS_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgcls"


def decode(
    table: ImageTable, side: int, channels: int, *, keep: Keep | None = None, keep_name: str = "all", title: str = ""
) -> Decoded:
    """Decodes a table, or maps what an earlier call left.

    Args:
        table: N images.
        side: of the squares, in pixels. 0 keeps no pixels and gives digests alone.
        channels: 1 or 3.
        keep: chooses the rows whose pixels are written; all readable ones by default.
        keep_name: names that choice in the cache's key.
        title: what the progress bar says.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    key = hashlib.sha256("|".join((FORMAT, table.stamp, str(side), str(channels), keep_name)).encode()).hexdigest()
    entry = cache_folder() / key[:32]
    if not entry.is_dir():
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            _build(entry, table, side, channels, keep, title)
        except OSError as error:
            raise DataError(
                f"the cache of decoded images cannot be written to {cache_folder()}: {error.strerror or error}; "
                "make room, or name another folder in IMGCLS_CACHE"
            ) from error
    meta = json.loads((entry / "meta.json").read_text())
    return Decoded(
        digests=np.load(entry / "digests.npy"),
        kept=np.load(entry / "kept.npy"),
        images=np.load(entry / "images.npy", mmap_mode="r"),
        unreadable=tuple((int(row), str(reason)) for row, reason in meta["unreadable"]),
    )


def _build(entry: Path, table: ImageTable, side: int, channels: int, keep: Keep | None, title: str) -> None:
    aside = Path(tempfile.mkdtemp(prefix="building-", dir=entry.parent))
    try:
        digests = np.zeros((len(table), 32), np.uint8)
        readable = np.ones(len(table), bool)
        unreadable: dict[int, str] = {}
        everything = np.lib.format.open_memmap(
            aside / "everything.npy", mode="w+", dtype=np.uint8, shape=(len(table), channels, side, side)
        )

        def work(row: int) -> None:
            try:
                image = table.read(row)
            except UnreadableImageError as error:
                unreadable[row], readable[row] = str(error), False
                return
            digests[row] = np.frombuffer(digest(image), np.uint8)
            if side:
                everything[row] = to_square(image, side, channels)

        # Threads: Pillow's decoders and filters and hashlib all release the GIL.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            bar = tqdm(total=len(table), desc=title or "decoding", unit=" images", file=sys.stderr, leave=False,
                       disable=None)  # fmt: skip
            for _ in pool.map(work, range(len(table))):
                bar.update()
            bar.close()

        chosen = readable if keep is None else keep(digests, readable)
        kept = np.flatnonzero(chosen)
        if len(kept) == len(table):
            everything.flush()
            (aside / "everything.npy").rename(aside / "images.npy")
        else:
            # Pixels of rows that are not kept (a carved test split) do not stay on disk.
            images = np.lib.format.open_memmap(
                aside / "images.npy", mode="w+", dtype=np.uint8, shape=(len(kept), channels, side, side)
            )
            for start in range(0, len(kept), 4096):
                images[start : start + 4096] = everything[kept[start : start + 4096]]
            images.flush()
            (aside / "everything.npy").unlink()
        np.save(aside / "digests.npy", digests)
        np.save(aside / "kept.npy", kept)
        (aside / "meta.json").write_text(json.dumps({"unreadable": sorted(unreadable.items())}))
        try:
            aside.rename(entry)
        except OSError:
            if not entry.is_dir():  # another process may have been faster; its entry is as good
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
