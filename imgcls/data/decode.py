"""One image file -> canonical pixels: upright, 8 bits, grey or RGB."""

from __future__ import annotations

import hashlib
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", *(("AVIF",) if features.check("avif") else ()))
"""What a file may be, whatever it is called. Pillow knows more, some of which start other programs (EPS, WMF)."""

# Pillow warns of half as many pixels as it refuses, and of broken EXIF beside sound pixels. Here a file is read or
# refused. The filter is for the whole process, since one for a block is not safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

LEAST_FALL = 0.5
"""Grey levels by which brightness must fall to count in `difference_hash`; in a flat part, less is noise."""

LARGE_PIXELS = 2**18
"""What `digest` hashes at once; more of them it takes in pieces."""

REDUCING_GAP = 3.0
"""Of Pillow's `resize`: what it averages in blocks keeps this many times the side that is asked for."""

SHRUNK_SIDE = 600
"""Pixels of the shorter side that `shrunk` keeps at least."""


class UnreadableImageError(Exception):
    """This one image cannot be used; the message says why. Collected into one DataError by the caller."""


def read_image(path: Path) -> Image.Image:
    """Decodes a file to an upright 8-bit image.

    Returns:
        Mode `L` for grey files, `RGB` for every other; see `canonical`.

    Raises:
        UnreadableImageError: a missing, empty, truncated, foreign or oversized file, or what is no file at all.
    """
    with refusing():
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # whoever opens a pipe or a terminal may wait for ever
            raise UnreadableImageError("a pipe, a device or a folder, not a file")
        if about.st_size == 0:
            raise UnreadableImageError("empty file")
        with Image.open(path, formats=FORMATS) as image:
            return canonical(image)


@contextmanager
def refusing() -> Iterator[None]:
    """Turns whatever goes wrong within into an UnreadableImageError that says why."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image that Pillow knows") from error
    except Image.DecompressionBombError as error:  # raised once the size is known, before a pixel is decoded
        raise UnreadableImageError(f"too many pixels: {error}") from error
    except UnreadableImageError:
        raise
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken input
        raise UnreadableImageError(f"{type(error).__name__}: {error}") from error


def canonical(image: Image.Image) -> Image.Image:
    """Any Pillow image -> upright, mode `L` (grey) or `RGB`.

    EXIF orientation is applied, 16-bit grey is divided by 257 (65535 -> 255), float grey in [0, 1] is multiplied by
    255, transparency is laid over white.
    """
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # else it copies what needs no turning
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        image = image.convert("RGBA")
    if image.mode in SIXTEEN_BIT_MODES:
        return Image.fromarray(_sixteen_to_eight_bits(np.asarray(image)))
    if image.mode == "F":
        return Image.fromarray(_float_to_eight_bits(np.asarray(image)))
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA"):
        return _over_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    wide = values.astype(np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise UnreadableImageError(f"integer grey values {wide.min()} to {wide.max()} lie outside 0 to 65535")
    return ((wide + 128) // 257).astype(np.uint8)


def _float_to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all() or (floats.size and (floats.min() < 0 or floats.max() > 1)):
        raise UnreadableImageError("float grey values must lie in [0, 1]")
    return np.rint(floats * 255).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    # What lies under transparent pixels is whatever the program that wrote the file left there.
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def digest(image: Image.Image) -> bytes:
    """SHA-256 (32 bytes) of the source pixels as RGB, before any resizing.

    Grey files and their RGB copies, and the same pixels in another file format, share a digest.
    """
    hasher = hashlib.sha256(b"%dx%d:" % image.size)
    image = _as_mode(image, "RGB")
    if image.width * image.height <= LARGE_PIXELS:
        hasher.update(image.tobytes())
    else:
        image.save(cast(IO[bytes], _PixelsOfPpm(hasher.update, image.size)), "PPM")
    return hasher.digest()


class _PixelsOfPpm:
    """A file to which Pillow saves a PPM, 64 KiB at a time, of which all but the header is handed on.

    Pillow has no other way to give pixels in pieces that stay in the processor's cache; all at once, the copy costs as
    much as the hash.
    """

    def __init__(self, take: Callable[[bytes], None], size: tuple[int, int]) -> None:
        self._take = take
        self._header = b"P6\n%d %d\n255\n" % size

    def write(self, data: bytes) -> int:
        num_header = min(len(self._header), len(data))
        assert data[:num_header] == self._header[:num_header]
        self._header = self._header[num_header:]
        self._take(data[num_header:])
        return len(data)

    def flush(self) -> None:
        pass


def shrunk(image: Image.Image) -> Image.Image:
    """A large image averaged in square blocks, its shorter side 600 to 1199 pixels; a smaller one as it is.

    `difference_hash` and `to_square` take it in place of the image, with the same result, so that one pass over a
    large image serves both. What fills no block at the right and lower edge, less than 1/600 of a side, is left out.
    """
    width, height = image.size
    block = min(width, height) // SHRUNK_SIDE
    if block < 2:
        return image
    return image.reduce(block, box=(0, 0, width - width % block, height - height % block))


def difference_hash(image: Image.Image) -> int:
    """64 bits that survive re-encoding: where brightness falls from left to right in a grid of 9 x 8.

    Krawetz's dHash (hackerfactor.com, "Kind of Like That", 2013), with the grid in floating point, since whole grey
    levels tie in plain images. 0 where brightness falls nowhere, as in a flat image: such a hash says nothing.

    Returns:
        An unsigned 64-bit number, first row in the highest byte, leftmost in the highest bit of each.
    """
    image = shrunk(image)
    width, height = image.size
    # Averaged first to about 8 x 8 pixels a cell: a large image costs little more than the one pass over it.
    step_x, step_y = max(1, width // 72), max(1, height // 64)
    small = image.reduce((step_x, step_y)).convert("L").convert("F")
    box = (0, 0, width / step_x, height / step_y)
    grid = np.asarray(small.resize((9, 8), Image.Resampling.LANCZOS, box=box))
    return int.from_bytes(np.packbits(grid[:, :-1] - grid[:, 1:] > LEAST_FALL).tobytes())


def to_square(image: Image.Image, side: int, channels: int) -> NDArray[np.uint8]:
    """The largest centred square, resized: uint8 (channels, side, side).

    Pillow's bilinear filter averages over all source pixels when it shrinks, so nothing aliases. What shrinks to less
    than a sixth is averaged in blocks first; the result is "indistinguishable from fair resampling in most cases"
    (Pillow's documentation of `reducing_gap`).
    """
    image = shrunk(image) if _shrunk_is_enough(side) else image
    image = _as_mode(image, "L" if channels == 1 else "RGB")
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    if image.size != (side, side):
        box = (left, top, left + short, top + short)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def hash_and_square(image: Image.Image, side: int, channels: int) -> tuple[int, NDArray[np.uint8]]:
    """`difference_hash` and `to_square` in one pass over a large image."""
    small = shrunk(image)
    return difference_hash(small), to_square(small if _shrunk_is_enough(side) else image, side, channels)


def _shrunk_is_enough(side: int) -> bool:
    return side * REDUCING_GAP <= SHRUNK_SIDE


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # `convert` copies even where nothing is to change


def resize_squares(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resizes decoded squares, uint8 (N, C, D, D) -> (N, C, side, side), with the filter of `to_square`."""
    if images.shape[-1] == side:
        return images
    small = np.empty((*images.shape[:2], side, side), np.uint8)
    for source, target in zip(images.reshape(-1, *images.shape[2:]), small.reshape(-1, side, side), strict=True):
        target[:] = np.asarray(Image.fromarray(source).resize((side, side), Image.Resampling.BILINEAR))
    return small
