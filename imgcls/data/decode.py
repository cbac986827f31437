"""One image file -> canonical pixels: upright, 8 bits, grey or RGB.

A served model carries this file and what it imports, as they are, to places without imgcls. So they import nothing but
the standard library, NumPy, Pillow and, relatively, one another.
"""

from __future__ import annotations

import hashlib
import math
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from ..errors import UnreadableImageError
from .image_formats import FORMATS, MAGIC_BYTES, why_not, why_unknown

if TYPE_CHECKING:
    from imgcls.config.key_types import Fit

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


SEVERAL_FRAMES = "several_frames"
"""Key in the `info` of an image whose file has further frames or pages: it is the first of them."""


FEW_LEVELS = 32
"""Number of grey levels below which an image is refused if its file has many more values that lie close together."""


ANIMATED = ("GIF", "WEBP", "PNG", "TIFF", "AVIF", "HEIF")
"""Formats of several frames or pages. An MPO's second picture is a telephone's other view of the same."""


WHITE_IS_ZERO, SIGNED = 0, 2
"""Values of TIFF's tags PHOTOMETRIC_INTERPRETATION and SAMPLEFORMAT."""


# Pillow warns of half as many pixels as it refuses, and of broken EXIF beside sound pixels. Here a file is read or
# refused. The filter is for the whole process, since one for a block is not safe among threads.
def quieten_pillow() -> None:
    """Decoding is silent from here on: whatever Pillow warns of is ignored in this process."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


quieten_pillow()


STRIP_PIXELS = 2**16
"""Number of pixels that `digest` hashes at a time, so that they stay in the processor's cache."""


REDUCING_GAP = 3.0
"""Of Pillow's `resize`: what it averages in blocks keeps this many times the side that is asked for."""


SHRUNK_SIDE = 600
"""Pixels of the shorter side that `shrunk` keeps at least."""


PAD_LEVEL = 128
"""Level, 0 to 255, of the bars beside a padded image, in every channel. It is the middle of the range, so that no bar
is the brightest or darkest part of a picture. It is the same for all data, so that a model can be used without it."""


def read_image(file: Path | bytes) -> Image.Image:
    """Decodes a file, or the bytes of one, to an upright 8-bit image.

    Returns:
        Mode `L` for grey files, `RGB` for every other; see `canonical`. Of a file with several frames or pages, the
        first, with `SEVERAL_FRAMES` in its `info`.

    Raises:
        UnreadableImageError: a missing, empty, truncated, foreign or oversized file, or what is not a file.
    """
    with refusing():
        if isinstance(file, Path):
            _refuse_by_name_and_kind(file)
        elif not file:
            raise UnreadableImageError("empty file")
        try:
            with Image.open(file if isinstance(file, Path) else BytesIO(file), formats=FORMATS) as image:
                has_more = image.format in ANIMATED and getattr(image, "is_animated", False)
                first = canonical(image)
        except UnidentifiedImageError as error:
            raise UnreadableImageError(why_unknown(_head(file))) from error
        first.info = {SEVERAL_FRAMES: True} if has_more else {}
        return first


def size_in_header(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels as its file's header has them: not decoded, and not turned upright.

    Raises:
        UnreadableImageError: as `read_image`, as far as a header shows it.
    """
    with refusing():
        _refuse_by_name_and_kind(path)
        with Image.open(path, formats=FORMATS) as image:
            return image.size


def _refuse_by_name_and_kind(path: Path) -> None:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # opening a pipe or a terminal may wait forever
        raise UnreadableImageError("a pipe, a device or a folder, not a file")
    if about.st_size == 0:
        raise UnreadableImageError("empty file")
    if reason := why_not(path):
        raise UnreadableImageError(reason)


def _head(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file[:MAGIC_BYTES]
    with file.open("rb") as opened:
        return opened.read(MAGIC_BYTES)


@contextmanager
def refusing() -> Iterator[None]:
    """Decoding in the block: every error in it becomes an UnreadableImageError that says why."""
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


def canonical(image: Image.Image, *, in_place: bool = True) -> Image.Image:
    """A decoded image of any mode of Pillow -> upright, mode `L` (grey) or `RGB`.

    EXIF orientation is applied, and transparency is laid over white. Grey of more than 8 bits is scaled: 0 becomes 0,
    and the largest value of its kind (65535 of 16 bits, 4095 of 12 bits, 1.0 of floats) becomes 255; the other way
    round where the file says that 0 is white.

    Args:
        image: of any mode; best as it was opened, since loading forgets how its values were stored.
        in_place: whether the image may be changed.

    Raises:
        UnreadableImageError: values whose scale is not known, or that become only a few grey levels.
    """
    stored = _Stored.of(image)
    image.load()
    if in_place:
        ImageOps.exif_transpose(image, in_place=True)  # else it copies what needs no turning
    else:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode in SIXTEEN_BIT_MODES:
        return _deep_grey(image, stored)
    if stored.is_sixteen_bits:
        _refuse_crowded_colours(image)
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        image.info["transparency"] = stored.transparent_colour(image.info["transparency"])
        image = image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA"):
        # What lies under transparent pixels is whatever the program that wrote the file left there.
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True)
class _Stored:
    """What an image file's header says of its pixels; decoding loses it.

    Attributes:
        raw_mode: Pillow's name of their layout in the file, such as `L;4` or `RGB;16B`; "" where it is not known.
        num_bits: of a grey value.
        is_white_zero: whether 0 is white.
        is_unsigned_32: whether values have 32 bits and no sign, which Pillow reads as if they had one.
    """

    raw_mode: str
    num_bits: int
    is_white_zero: bool
    is_unsigned_32: bool

    @classmethod
    def of(cls, image: Image.Image) -> _Stored:
        """Of an image that is not loaded yet, or that never was a file.

        Raises:
            UnreadableImageError: signed values of up to 16 bits.
        """
        tiles = getattr(image, "tile", ())
        arguments = tiles[0][3] if tiles else ""
        raw_mode = arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""
        tags = getattr(image, "tag_v2", {})
        num_bits = max(tags.get(BITSPERSAMPLE, (16,)))
        if SIGNED in tags.get(SAMPLEFORMAT, ()) and num_bits <= 16:
            raise UnreadableImageError("signed values, whose black and white are not known; save unsigned ones")
        is_unsigned_32 = num_bits == 32 and image.mode == "I" and SIGNED not in tags.get(SAMPLEFORMAT, ())
        return cls(raw_mode, min(16, num_bits), tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO, is_unsigned_32)

    @property
    def is_sixteen_bits(self) -> bool:
        """Whether Pillow keeps only the upper half of each value."""
        return ";16" in self.raw_mode

    def transparent_colour(self, colour: Any) -> Any:
        """The transparent colour of a PNG, in the values that Pillow gives to its pixels.

        Raises:
            UnreadableImageError: a colour of 16 bits.
        """
        if self.is_sixteen_bits:
            raise UnreadableImageError("a transparent colour of 16 bits; save it with 8 bits or with an alpha channel")
        levels = {"L;2": 85, "L;4": 17}  # of one step of 2 or 4 bits
        return colour * levels[self.raw_mode] if self.raw_mode in levels else colour


def _deep_grey(image: Image.Image, stored: _Stored) -> Image.Image:
    """Grey of more than 8 bits -> mode `L`, or `RGB` where some of it is transparent."""
    values = np.asarray(image)
    if stored.is_unsigned_32:
        values = values.view(np.uint32)
    white = 1.0 if image.mode == "F" else float(2**stored.num_bits - 1)
    levels = _to_eight_bits(values, white, is_white_zero=stored.is_white_zero)
    _refuse_crowded(values, levels, white)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(levels)
    over_white = np.where(values == transparent, np.uint8(255), levels)
    return Image.fromarray(over_white).convert("RGB")


def _to_eight_bits(values: NDArray[np.generic], white: float, *, is_white_zero: bool) -> NDArray[np.uint8]:
    """Scales [0, white] to [0, 255], rounded."""
    exact = values.astype(np.float64)
    lowest, highest = (float(exact.min()), float(exact.max())) if exact.size else (0.0, 0.0)
    if not (lowest >= 0 and highest <= white):  # "not", since NaN is neither
        limits = "float grey values must lie in [0, 1]" if white == 1 else f"grey values must lie in 0 to {white:.0f}"
        raise UnreadableImageError(f"{limits}, and reach from {lowest:g} to {highest:g}; rescale those of all files")
    shown = white - exact if is_white_zero else exact
    return np.floor(shown * (255 / white) + 0.5).astype(np.uint8)


def _refuse_crowded(values: NDArray[np.generic], levels: NDArray[np.uint8], white: float) -> None:
    """Refuses many values that lie so close together that they become only a few grey levels."""
    used = np.flatnonzero(np.bincount(levels.ravel(), minlength=256))
    if not len(used) or len(used) >= FEW_LEVELS:
        return
    num_values = len(np.unique(values))
    # Neighbouring levels of 256 are black to every eye: 16-bit files of 0 and 255, or of 0 and 1.
    if num_values > 4 * len(used) or (num_values > 1 and used[-1] - used[0] <= 1):
        raise UnreadableImageError(
            f"its values, {values.min():g} to {values.max():g}, would become {len(used)} of 256 grey levels, since "
            f"0 is black and {white:g} is white; rescale the values of all files alike"
        )


def _refuse_crowded_colours(image: Image.Image) -> None:
    """Refuses colours of 16 bits, of which Pillow keeps the upper 8, if these are a few neighbouring levels."""
    for band in image.split()[:3]:
        used = np.flatnonzero(band.histogram())
        if len(used) < 3 or used[-1] - used[0] >= FEW_LEVELS:
            return
    raise UnreadableImageError(
        f"its colours of 16 bits would become fewer than {FEW_LEVELS} of 256 levels, since 0 is the darkest and 65535 "
        "the brightest; rescale the values of all files alike"
    )


def digest(image: Image.Image) -> bytes:
    """A decoded image's digest: SHA-256 (32 bytes) of its pixels as RGB, before any resizing.

    Grey files and their RGB copies, and the same pixels in another file format, share a digest.
    """
    hasher = hashlib.sha256(b"%dx%d:" % image.size)
    height = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(top + height, image.height)))
        hasher.update(_as_mode(strip, "RGB").tobytes())
    return hasher.digest()


def shrunk(image: Image.Image) -> Image.Image:
    """A decoded image, averaged in square blocks to a shorter side of 600 to 1199 pixels; a smaller one as it is.

    `to_square` gives the same result from it as from the image, and `sketches.thumbnail` nearly so; so one pass over a
    large image serves both. Pixels at the right and lower edge that fill no block, less than 1/600 of a side, are left
    out.
    """
    width, height = image.size
    block = min(width, height) // SHRUNK_SIDE
    if block < 2:
        return image
    return image.reduce(block, box=(0, 0, width - width % block, height - height % block))


def to_square(image: Image.Image, side: int, channels: int, fit: Fit = "crop") -> NDArray[np.uint8]:
    """A decoded image as a square: uint8 (channels, side, side), straight from the source's pixels.

    Pillow's bilinear filter averages over all source pixels when it shrinks, so nothing aliases. What shrinks to less
    than a sixth is averaged in blocks first; the result is "indistinguishable from fair resampling in most cases"
    (Pillow's documentation of `reducing_gap`).

    Args:
        image: upright.
        side: in pixels.
        channels: 1 or 3.
        fit: `crop` takes the largest centred square. `pad` keeps the whole image and its proportions, centred between
            bars of grey (`PAD_LEVEL`). `squash` keeps the whole image and stretches it to a square.
    """
    image = shrunk(image) if shrunk_is_enough(side) else image
    image = _as_mode(image, "L" if channels == 1 else "RGB")
    if fit == "pad":
        image = _padded(image, side)
    elif image.size != (side, side):
        image = _resized(image, (side, side), _centred_square(image) if fit == "crop" else None)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _resized(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)


def _centred_square(image: Image.Image) -> Box:
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return left, top, left + short, top + short


def _padded(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    width, height = (max(1, math.floor(length * scale + 0.5)) for length in image.size)
    square = Image.new(image.mode, (side, side), (PAD_LEVEL,) * len(image.getbands()))
    square.paste(_resized(image, (width, height)), ((side - width) // 2, (side - height) // 2))
    return square


def shrunk_is_enough(side: int) -> bool:
    """Whether a square of this side can be made from the `shrunk` image as well as from the image."""
    return side * REDUCING_GAP <= SHRUNK_SIDE


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # `convert` copies even where nothing is to change


def resize_squares(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Decoded squares at another side: uint8 (N, C, D, D) -> (N, C, side, side), with the filter of `to_square`.

    Format 1 of `imgcls.squares` made val and test so, from squares of train's size.
    """
    if images.shape[-1] == side:
        return images
    small = np.empty((*images.shape[:2], side, side), np.uint8)
    for source, target in zip(images.reshape(-1, *images.shape[2:]), small.reshape(-1, side, side), strict=True):
        target[:] = np.asarray(Image.fromarray(source).resize((side, side), Image.Resampling.BILINEAR))
    return small
