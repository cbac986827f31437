"""The inputs of predictions: files, folders, globs, a list of paths, arrays, images and bytes, and their decoding.

Files are found before anything is decoded, so that a misspelt path is refused at once.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.data.decode import canonical, digest, read_image, refusing, shrunk
from imgcls.data.image_set import Hashes
from imgcls.data.sketches import SIDE, sketches, thumbnail
from imgcls.data.sources.folder import ignored_in_words, images_below, why_ignored
from imgcls.errors import InputError, UnreadableImageError
from imgcls.text import listed, nearest

PathLike = str | os.PathLike[str]

Content = bytes | bytearray | memoryview
"""The content of an image file."""

ImageLike = PathLike | NDArray[np.uint8] | Image.Image | Content
"""One image, or a file, a folder or a glob of images; of an array see `given`."""

STDIN = "-"
"""The path that stands for a list of paths on stdin."""

NUM_SHOWN = 10
"""Paths that an error names."""


@dataclass(frozen=True)
class Inputs:
    r"""Inputs of a prediction, none of which is decoded yet.

    Attributes:
        names: of the N images, in the order of the answer: the path as it was given (with the path below a folder), or
            an index. A byte of a path that is not UTF-8 is spelt `\xff`.
        read: row -> upright 8-bit image; raises UnreadableImageError.
        problems: `path: reason` of folders that could not be listed.
        ignored: kind of files that are not images, such as `.txt` -> how many a folder or a glob has.
    """

    names: tuple[str, ...]
    read: Callable[[int], Image.Image]
    problems: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, rows: Sequence[int]) -> Inputs:
        """The inputs in these rows, in the order given."""
        return Inputs(tuple(self.names[row] for row in rows), lambda row: self.read(rows[row]))


class Decoded(NamedTuple):
    """Inputs that were decoded: some consecutive rows.

    Attributes:
        rows: int64 (R,), those that could be read.
        squares: uint8 (R, C, S, S).
        hashes: of the R images.
        unreadable: (row, reason) of the others.
        num_pixels: of all the images as they were read.
    """

    rows: NDArray[np.int64]
    squares: NDArray[np.uint8]
    hashes: Hashes
    unreadable: list[tuple[int, str]]
    num_pixels: int


# --- which images ---------------------------------------------------------------------------------------------------


def from_shell(paths: Sequence[str], stdin: IO[bytes]) -> Inputs:
    """Inputs as the shell names them: files, folders, globs, and `-` for a list of them on stdin.

    Args:
        paths: what exists is taken as it is, whatever its name; else `*`, `?`, `[` and `**` make a path a glob, whose
            images are taken. Of a folder, all images at any depth are taken, in the order of their names.
        stdin: read where `-` stands: a path a line, or with a NUL after each path, as `find -print0` writes them.

    Raises:
        InputError: paths that do not exist, or that name no image.
    """
    every: list[str] = []
    for path in paths:
        every += _list_of(stdin.read()) if path == STDIN else [path]
    if not every:
        raise InputError("no path was given; name files, folders, globs, or - for a list on stdin")
    return _of_paths(every)


def _list_of(content: bytes) -> list[str]:
    end = b"\0" if b"\0" in content else b"\n"
    return [os.fsdecode(line) for line in (line.removesuffix(b"\r") for line in content.split(end)) if line]


def given(images: ImageLike | Iterable[object]) -> Inputs:
    """Inputs as a program gives them: one image or a sequence of them, each of any kind.

    Args:
        images: paths as in `from_shell` (without `-`); arrays uint8 (H, W) or (H, W, 1) of a grey image, (H, W, 3) of
            an RGB one, or (N, H, W, 1) or (N, H, W, 3) of several; images of Pillow; bytes of an image file. All but
            paths are named by their index.

    Raises:
        InputError: a path that does not exist, an array of another kind, or nothing at all.
    """
    several = [images] if isinstance(images, (str, os.PathLike, np.ndarray, Image.Image, Content)) else _several(images)
    paths = [os.fspath(one) for one in several if isinstance(one, (str, os.PathLike))]
    if several and len(paths) == len(several):
        return _of_paths(paths)
    parts = [_of_one(one) for one in several]
    readers = [partial(part.read, row) for part in parts for row in range(len(part))]
    if not readers:
        raise InputError("no image was given")
    names = (name for part in parts for name in part.names)
    return Inputs(
        tuple(name or str(row) for row, name in enumerate(names)),
        lambda row: readers[row](),
        tuple(problem for part in parts for problem in part.problems),
        sum((Counter(part.ignored) for part in parts), Counter()),
    )


def _several(images: object) -> list[object]:
    if isinstance(images, Mapping):
        raise InputError("a mapping is not a sequence of images; give its values, as in list(images.values())")
    return list(images) if isinstance(images, Iterable) else [images]  # what is not one is refused as an image


def _of_one(image: object) -> Inputs:
    """Inputs of one path, image or array. The name of what is not a path is "": its index names it."""
    if isinstance(image, (str, os.PathLike)):
        return _of_paths([os.fspath(image)])
    if isinstance(image, Content):
        content = bytes(image)
        return Inputs(("",), lambda _: read_image(content))
    if isinstance(image, Image.Image):
        return Inputs(("",), _reader(image))
    if isinstance(image, np.ndarray):
        arrays = _images_of(image)
        return Inputs(("",) * len(arrays), lambda row: Image.fromarray(arrays[row]))
    raise InputError(f"{type(image).__name__} is not an image: give a path, a uint8 array, an image of Pillow or bytes")


def _reader(image: Image.Image) -> Callable[[int], Image.Image]:
    """Reads an image of Pillow at once: its file, where it is not loaded yet, cannot be shared by processes."""
    try:
        if 0 in image.size:
            _refuse(f"{image.width} x {image.height} pixels")
        with refusing():
            upright = canonical(image, in_place=False)
    except UnreadableImageError as error:
        reason = str(error)
        return lambda _: _refuse(reason)
    return lambda _: upright


def _refuse(reason: str) -> NoReturn:
    raise UnreadableImageError(reason)


def _images_of(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (N, H, W) of grey images, or (N, H, W, 3)."""
    is_one = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    is_several = array.ndim == 4 and array.shape[3] in (1, 3)
    if array.dtype != np.uint8 or not (is_one or is_several) or 0 in array.shape:
        raise InputError(
            f"an array {array.dtype} {array.shape} is not an image: give uint8 (H, W) or (H, W, C), or (N, H, W, C) "
            "for several, with levels from 0 to 255; C is 1 for grey and 3 for RGB"
        )
    images = array[None] if is_one else array
    is_grey = images.ndim == 4 and images.shape[3] == 1
    return np.ascontiguousarray(images[..., 0] if is_grey else images)


def _of_paths(paths: Sequence[str]) -> Inputs:
    ignored: Counter[str] = Counter()
    problems: list[str] = []
    found: list[str] = []
    missing: list[str] = []
    for path in paths:
        kind = _kind(path)
        if kind == "folder":
            found += sorted(str(image) for image in images_below(Path(path), ignored, problems))
        elif kind == "file":
            found.append(path)
        elif glob.has_magic(path):
            num_ignored = ignored.total()
            matching = _matching(path, ignored, problems)
            found += matching
            if not matching and ignored.total() == num_ignored:
                missing.append(f"{shown(path)}, which nothing matches")
        else:
            missing.append(f"{shown(path)}{_why_missing(path)}")
    if missing:
        raise InputError("\n".join(["no such file or folder:", *listed(missing, most=NUM_SHOWN)]))
    if not found:
        raise InputError(f"no image in {' '.join(map(shown, paths[:NUM_SHOWN]))}{_left_out(ignored, problems)}")
    files = tuple(map(Path, found))
    return Inputs(tuple(map(shown, found)), lambda row: read_image(files[row]), tuple(problems), ignored)


def shown(path: str) -> str:
    """The name of an input of this path: the path, with each byte that is not UTF-8 spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _kind(path: str) -> str:
    """`file` (anything but a folder: reading it says what is wrong), `folder`, or "" where nothing is there.

    Raises:
        InputError: a text that cannot be a path.
    """
    try:
        return "folder" if stat.S_ISDIR(os.stat(path).st_mode) else "file"  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except ValueError as error:
        raise InputError(f"{shown(path)!r} is not a path: {error}") from error
    except OSError as error:
        raise InputError(f"{shown(path)}: {error.strerror}") from error


def _matching(pattern: str, ignored: Counter[str], problems: list[str]) -> list[str]:
    """Images among what matches a glob, and in the folders that match, each once and sorted."""
    matching: set[str] = set()
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207
        if os.path.isdir(path):  # noqa: PTH112
            if "**" not in pattern:
                matching.update(str(image) for image in images_below(Path(path), ignored, problems))
        elif label := why_ignored(Path(path)):
            ignored[label] += 1
        else:
            matching.add(path)
    return sorted(matching)


def _why_missing(written: str) -> str:
    """The end of the error for a path that is not there: the nearest one that is."""
    if os.path.islink(written):  # noqa: PTH114
        return f", a link to {shown(os.readlink(written))}, which does not exist"  # noqa: PTH115
    path = Path(written)
    found = Path(path.anchor or ".")
    parts = path.parts[1:] if path.anchor else path.parts
    for at, part in enumerate(parts):
        if (found / part).exists():
            found /= part
            continue
        there = os.listdir(found) if os.access(found, os.R_OK | os.X_OK) and found.is_dir() else []  # noqa: PTH208
        near = nearest(part, sorted(there))
        if near:
            return f"; did you mean {shown(str(found.joinpath(near, *parts[at + 1 :])))}?"
        return f"; {shown(str(found.absolute()))} has no {shown(part)}"
    return ""


def _left_out(ignored: Mapping[str, int], problems: Sequence[str]) -> str:
    words = ignored_in_words(ignored)
    return "".join([f"; left out: {words}" if words else "", *(f"\n  {problem}" for problem in problems)])


# --- their pixels ---------------------------------------------------------------------------------------------------


Square = Callable[[Image.Image], NDArray[np.uint8]]
"""Image -> uint8 (C, S, S)."""


def decoded(inputs: Inputs, square: Square, shape: tuple[int, int, int]) -> Iterator[Decoded]:
    """Decodes inputs on as many cores as are worth starting, and gives them in order, a few megabytes at a time.

    Args:
        inputs: what to decode.
        square: `Preprocessing.square`.
        shape: of what it gives, (C, S, S).
    """
    from imgcls.data.decode_workers import images_of_a_piece, spread  # with torch, which no refusal has to wait for

    work = partial(_decode, inputs, square, shape)
    for _, piece in spread(work, len(inputs), images_of_a_piece(int(np.prod(shape))), lambda piece: piece.num_pixels):
        yield piece


def _decode(inputs: Inputs, square: Square, shape: tuple[int, int, int], rows: range) -> Decoded:
    readable: list[int] = []
    unreadable: list[tuple[int, str]] = []
    squares = np.empty((len(rows), *shape), np.uint8)
    hashes, num_pixels = Hashes.zeros(len(rows)), 0
    thumbnails = np.zeros((len(rows), SIDE, SIDE), np.float32)
    for row in rows:
        try:
            image = inputs.read(row)
        except UnreadableImageError as error:
            unreadable.append((row, str(error)))
            continue
        at = len(readable)
        readable.append(row)
        num_pixels += image.width * image.height
        squares[at] = square(image)
        thumbnails[at] = thumbnail(shrunk(image))
        hashes.digests[at] = np.frombuffer(digest(image), np.uint8)
        hashes.sizes[at] = image.size
    num = len(readable)
    hashes.sketches[:num] = sketches(thumbnails[:num], hashes.sizes[:num].min(axis=1).astype(np.int64))
    return Decoded(np.array(readable, np.int64), squares[:num], hashes.rows(np.arange(num)), unreadable, num_pixels)
