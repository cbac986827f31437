"""The cache of decoded images: every image of a source becomes uint8 on disk once, and is memory-mapped afterwards.

A cache entry is a folder named by what it was made from. It is written aside and renamed, so a reader sees a
whole one or none, and its checksums are looked at when it is opened. Where an entry would not fit the budget, the
least recently used ones make room; a data set larger than the budget keeps only its hashes on disk and is decoded again
each time. Pixels that are not to stay (a test split) only ever lie in a file without a name, which ends with the
process, however that ends.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from imgcls.config.key_types import Fit
from imgcls.data.block_checksums import block_checksums, matches
from imgcls.data.cache_folder import (
    ASIDE,
    budget,
    cache_folder,
    only_one,
    prune,
    remove_abandoned,
    remove_entry,
    size_in_words,
    writing,
)
from imgcls.data.decode import resize_squares
from imgcls.data.decode_on_demand import PixelsOnDemand
from imgcls.data.decode_source import Recipe, decode_into, mapped, write_header
from imgcls.data.decode_workers import in_threads
from imgcls.data.image_set import DecodedImages, Hashes, Pixels, SourceImages, gather
from imgcls.errors import DataError
from imgcls.text import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """The decode cache's answer for a source's N images.

    Attributes:
        images: those whose pixels are kept.
        kept: int64 (M,), their rows in the source, ascending.
        hashes: of all N, zeros where unreadable.
        unreadable: row in the source -> `path: reason`, of each image left out.
    """

    images: DecodedImages
    kept: NDArray[np.int64]
    hashes: Hashes
    unreadable: Mapping[int, str]

    @classmethod
    def of(
        cls, source: SourceImages, hashes: Hashes, moments: NDArray[np.int64], kept: NDArray[np.int64], pixels: Pixels,
        unreadable: Sequence[tuple[int, str]],
    ) -> Decoded:  # fmt: skip
        """From what was learnt of all rows, int64 (N, C, 2) moments included, and the pixels of those kept."""
        images = DecodedImages(
            tuple(source.keys[row] for row in kept),
            source.labels[kept],
            hashes.rows(kept),
            pixels,
            np.arange(len(kept)),
            moments[kept],
            groups=tuple(source.groups[row] for row in kept) if source.groups else (),
        )
        return cls(images, kept, hashes, {int(row): f"{source.path(row)}: {reason}" for row, reason in unreadable})


Keep = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.bool_]]
"""(digests (N, 32), readable (N,)) -> which rows' pixels to keep."""


def decode(table: SourceImages, side: int, channels: int, *, fit: Fit = "crop", title: str = "") -> Decoded:
    """The decode cache's squares of a table at one size, decoded now or by an earlier call; see `decode_sides`."""
    (decoded,) = decode_sides(table, (side,), channels, fit=fit, title=title)
    return decoded


def decode_sides(
    table: SourceImages,
    sides: Sequence[int],
    channels: int,
    *,
    fit: Fit = "crop",
    keep: Keep | None = None,
    keep_name: str = "all",
    title: str = "",
) -> tuple[Decoded, ...]:
    """The decode cache's squares of a table at each of these sides, decoded in one pass or by earlier calls.

    Args:
        table: N images.
        sides: of the squares, in pixels, in order of priority: the first ones get what room there is. 0 keeps only
            hashes, no pixels.
        channels: 1 or 3.
        fit: how an image becomes a square.
        keep: chooses the rows whose pixels are written, out of the readable ones; all of them by default.
        keep_name: names that choice in the cache's key.
        title: what the progress bar says.

    Returns:
        One for each side, all of the same rows.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    recipes = [Recipe(table, side, channels, fit, keep_name) for side in dict.fromkeys(sides)]
    found = {recipe.side: _open(recipe) for recipe in recipes}
    if missing := [recipe for recipe in recipes if found[recipe.side] is None]:
        with writing(), only_one(missing[0].entry.name, "decodes these images"):
            found |= _built(missing, [recipe for recipe in recipes if recipe not in missing], keep, title)
    decoded = tuple(one for one in map(found.get, sides) if one is not None)
    if len(decoded) < len(sides):
        raise DataError(
            f"what was just written to {cache_folder()} cannot be read back; check the disk, or set IMGCLS_CACHE"
        )
    if any(not np.array_equal(one.hashes.digests, decoded[0].hashes.digests) for one in decoded):
        raise DataError(_changed(table))
    return decoded


def _built(
    recipes: Sequence[Recipe], beside: Sequence[Recipe], keep: Keep | None, title: str
) -> dict[int, Decoded | None]:
    """The entries for these recipes, by the side of their squares; made now, unless another process was faster."""
    found = {recipe.side: _open(recipe) for recipe in recipes}
    missing = [recipe for recipe in recipes if found[recipe.side] is None]
    if not missing:
        return found
    remove_abandoned()
    missing = _within_budget(missing, [*beside, *(recipe for recipe in recipes if recipe not in missing)])
    found |= {recipe.side: _open(recipe) for recipe in missing}  # its hashes alone may be there
    if missing := [recipe for recipe in missing if found[recipe.side] is None]:
        _build(missing, keep, title)
        found |= {recipe.side: _open(recipe) for recipe in missing}
    return found


def decode_and_forget(table: SourceImages, side: int, channels: int, *, fit: Fit = "crop", title: str = "") -> Decoded:
    """Leaves nothing in the decode cache: decodes a table, whose pixels are gone when the result is."""
    recipe = Recipe(table, side, channels, fit)
    with writing() as folder, tempfile.TemporaryFile(dir=folder) as file:
        hashes, (moments,), readable, unreadable = decode_into([file], [recipe], title)
        return Decoded.of(table, hashes, moments, np.flatnonzero(readable), mapped(file), unreadable)


def resized(images: DecodedImages, side: int) -> DecodedImages:
    """The decode cache's squares at another size, made from these and not from the source; as they are where they fit.

    They are mapped from a file without a name, so that they take no memory of their own.
    """
    stored = images.stored
    if stored.shape[-1] == side:
        return images
    if isinstance(stored, PixelsOnDemand):
        return replace(images, stored=replace(stored, image_size=side), known_moments=None)
    with writing() as folder, tempfile.TemporaryFile(dir=folder) as file:
        write_header(file, (len(images), stored.shape[1], side, side))
        for squares in in_threads(lambda chunk: resize_squares(chunk, side), images.chunks()):
            file.write(squares.tobytes())
        file.flush()
        return replace(images, stored=mapped(file), at=np.arange(len(images)), known_moments=None)


def _within_budget(recipes: Sequence[Recipe], beside: Sequence[Recipe]) -> list[Recipe]:
    """Recipes in order of priority, with hashes alone where the budget has no room for pixels beside what has to stay.

    Older entries leave if they must.
    """
    most = budget()
    room = most - sum(recipe.num_bytes for recipe in beside)
    affordable, wanted = [], 0
    for recipe in recipes:
        if recipe.side and wanted + recipe.num_bytes > room:
            log.info(
                "%s of %d x %d pixels need %s, more than the %s that the cache may take (IMGCLS_CACHE_BYTES): they are "
                "decoded again in each epoch",
                counted(len(recipe.table), "image"), recipe.side, recipe.side,
                size_in_words(recipe.num_bytes), size_in_words(most),
            )  # fmt: skip
            affordable.append(replace(recipe, has_pixels=False))
            continue
        wanted += recipe.num_bytes
        affordable.append(recipe)
    for entry in prune(most - wanted) if wanted else ():
        log.info("removed %s from the cache of decoded images (%s)", entry.about, size_in_words(entry.num_bytes))
    return affordable


def _open(recipe: Recipe) -> Decoded | None:
    """Reads an entry; None where there is none, or none that is whole."""
    entry = recipe.entry
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if damaged := [name for name, sums in meta["checksums"].items() if not matches(entry / name, sums)]:
            raise ValueError(f"{', '.join(damaged)}: not what was written")
        hashes = Hashes(*(np.load(entry / f"{name}.npy") for name in Hashes._fields))
        moments, kept = (np.load(entry / f"{name}.npy") for name in ("moments", "kept"))
        table, rest = recipe.table, (recipe.side, recipe.channels, recipe.fit)
        pixels: Pixels = (
            np.load(entry / "images.npy", mmap_mode="r")
            if recipe.has_pixels
            else PixelsOnDemand(table.read, table.path, kept, hashes.digests[kept], *rest)
        )
        decoded = Decoded.of(table, hashes, moments, kept, pixels, meta["unreadable"])
        with suppress(OSError):  # a folder that cannot be written is as good to read
            os.utime(entry, ns=(time.time_ns(),) * 2)
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
        log.warning("the decoded images in %s are damaged (%s), and are made again", entry, error)
        with writing():
            remove_entry(entry)
        return None
    except OSError as error:
        raise DataError(
            f"the decoded images in {entry} cannot be read: {error.strerror or error}; mend its permissions, or name "
            "another folder in IMGCLS_CACHE"
        ) from error
    return decoded


def _build(recipes: Sequence[Recipe], keep: Keep | None, title: str) -> None:
    """Decodes a table once, and writes an entry for each of these recipes for it."""
    with ExitStack() as until_done:
        asides = [Path(tempfile.mkdtemp(prefix=ASIDE, dir=cache_folder())) for _ in recipes]
        for aside in asides:
            until_done.callback(shutil.rmtree, aside, ignore_errors=True)
        files = [
            until_done.enter_context(_target(recipe, aside, is_whole=keep is None))
            for recipe, aside in zip(recipes, asides, strict=True)
        ]
        hashes, moments, readable, unreadable = decode_into(files, recipes, title)
        if recipes[0].table.is_outdated():  # what was decoded is not what the entries are named by
            raise DataError(_changed(recipes[0].table))
        kept = readable & keep(hashes.digests, readable) if keep else readable
        for recipe, aside, file, of_squares in zip(recipes, asides, files, moments, strict=True):
            if recipe.has_pixels and keep is not None:
                _copy_rows(file, np.flatnonzero(kept[readable]), aside / "images.npy")
            # Of what is not kept, hashes alone may stay.
            of_squares[~kept], hashes.sizes[~kept] = 0, 0
            arrays = hashes._asdict() | {"moments": of_squares, "kept": np.flatnonzero(kept)}
            _write_entry(recipe, aside, arrays, unreadable)


def _changed(table: SourceImages) -> str:
    return f"{table.origin or 'a data set'} was changed while it was decoded; start again"


def _target(recipe: Recipe, aside: Path, *, is_whole: bool) -> AbstractContextManager[IO[bytes]]:
    """Where squares go as they are decoded: to the entry, or to a file without a name if some of them may not stay."""
    if not recipe.has_pixels:
        return open(os.devnull, "w+b")  # noqa: PTH123
    return (aside / "images.npy").open("w+b") if is_whole else tempfile.TemporaryFile(dir=aside)


def _write_entry(
    recipe: Recipe, aside: Path, arrays: Mapping[str, NDArray[Any]], unreadable: list[tuple[int, str]]
) -> None:
    """The rest of an entry whose pixels are written; then it gets its name."""
    for name, array in arrays.items():
        np.save(aside / f"{name}.npy", array)
    num_kept = len(arrays["kept"])
    what = f"{recipe.side} x {recipe.side} x {recipe.channels}, {recipe.fit}"
    meta = {
        "about": f"{counted(num_kept, 'image')} of {recipe.table.origin or 'a data set'}, "
        + (what if recipe.has_pixels and recipe.side else "hashes alone"),
        "unreadable": unreadable,
        "checksums": {path.name: block_checksums(path) for path in sorted(aside.iterdir())},
    }
    (aside / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    try:
        aside.rename(recipe.entry)
    except OSError:
        if not recipe.entry.is_dir():  # another process may have been faster; its entry is as good
            raise


def _copy_rows(decoded: IO[bytes], rows: NDArray[np.int64], path: Path) -> None:
    """Copies the squares that a cache entry keeps from an open .npy to the entry's file."""
    images = mapped(decoded)
    with path.open("wb") as file:
        write_header(file, (len(rows), *images.shape[1:]))
        for chunk in gather(images, rows):
            file.write(chunk.tobytes())
