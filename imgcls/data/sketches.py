"""A sketch of each image: 272 bytes by which its copies are recognised, and from which no picture can be shown.

A sketch says where the image is lighter or darker than its surroundings on a grid of 32 x 32, and has fifteen numbers
of its coarsest shape. Test images are compared by their sketches, so nobody has to see them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import uniform_filter

SIDE = 32
"""Cells of a sketch along each side."""

SURROUNDINGS = 5
"""Cells along each side of the square with whose mean a cell is compared."""

LEAST_CONTRAST = 1.0
"""Grey levels (root mean square) by which cells must differ from their surroundings; flatter images have no sketch."""

NOTABLE, NOTABLE_LEVELS = 0.1, 1.0
"""Share of an image's own contrast, and grey levels, from which on a cell counts as lighter or darker; below either of
them it is neither, since in flat parts signs are noise."""

SHAPE = 16
"""Bytes for the coarsest shape: 15 DCT coefficients of unit norm times 127, then `HAS_SKETCH` and `IS_LARGE`."""

SKETCH_BYTES = SHAPE + 2 * SIDE * SIDE // 8
"""Shape, then a bit a cell: is it notable; then a bit a cell: is it lighter."""

HAS_SKETCH, IS_LARGE = 1, 2
"""Bits of a sketch's sixteenth byte: it can be compared; crops are looked for."""

LARGE_SIDE = 48
"""Pixels of the shorter side from which on crops are looked for: of smaller images, a crop cuts off whole pixels."""

CHUNK = 512
"""Images that are compared at a time."""


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """What a sketch is made from: the image's grey levels, squeezed to 32 x 32, float32 (32, 32)."""
    width, height = image.size
    steps = max(1, width // (4 * SIDE)), max(1, height // (4 * SIDE))  # averaged first: one cheap pass over a large one
    small = image.reduce(steps).convert("L").convert("F")
    box = (0, 0, width / steps[0], height / steps[1])
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box), np.float32)


def sketches(thumbnails: NDArray[np.float32], shorter_sides: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Sketches of images; zeros for those that are too flat to say anything.

    Args:
        thumbnails: float32 (N, 32, 32), as `thumbnail` gives them.
        shorter_sides: int64 (N,), of the images, in pixels.

    Returns:
        uint8 (N, 272).
    """
    result = np.zeros((len(thumbnails), SKETCH_BYTES), np.uint8)
    if not len(thumbnails):
        return result
    relief = thumbnails - uniform_filter(thumbnails, size=(0, SURROUNDINGS, SURROUNDINGS), mode="nearest")
    contrast = np.sqrt((relief**2).mean(axis=(1, 2)))
    notable = np.abs(relief) >= np.maximum(NOTABLE * contrast, NOTABLE_LEVELS)[:, None, None]
    shape = dctn(thumbnails, axes=(1, 2), norm="ortho")[:, :4, :4].reshape(-1, SHAPE)[:, 1:]
    shape /= np.maximum(np.linalg.norm(shape, axis=1, keepdims=True), 1e-6)
    result[:, : SHAPE - 1] = np.rint(shape * 127).astype(np.int8).view(np.uint8)
    result[:, SHAPE - 1] = HAS_SKETCH + IS_LARGE * (shorter_sides >= LARGE_SIDE)
    result[:, SHAPE:] = _packed(notable, relief > 0)
    result[contrast < LEAST_CONTRAST] = 0
    return result


def says_something(of: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which sketches, uint8 (N, 272), can be compared at all: bool (N,)."""
    return (of[:, SHAPE - 1] & HAS_SKETCH) > 0


def of_large_images(of: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which sketches are of images that are large enough to look for their crops: bool (N,)."""
    return (of[:, SHAPE - 1] & IS_LARGE) > 0


def without_crops(of: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same sketches, uint8 (N, 272), of which no crops are looked for, which is most of the work of comparing."""
    same = of.copy()
    same[:, SHAPE - 1] &= HAS_SKETCH
    return same


# --- the bytes of a sketch ------------------------------------------------------------------------------------------


def _packed(notable: NDArray[Any], lighter: NDArray[Any]) -> NDArray[np.uint8]:
    flat = [np.packbits(plane.reshape(len(plane), -1), axis=1) for plane in (notable, lighter & notable)]
    return np.concatenate(flat, axis=1)


def _planes(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (2, N, 32, 32) of the last 256 bytes: which cells are notable, and which are lighter."""
    return np.unpackbits(packed, axis=1).reshape(len(packed), 2, SIDE, SIDE).swapaxes(0, 1)


def as_relief(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sketches as reliefs, float32 (N, 32, 32), from their last 256 bytes: 1 lighter, -1 darker, 0 neither."""
    notable, lighter = _planes(packed).astype(np.int8)
    return np.asarray(2 * lighter - notable, np.float32)


def _oriented(squares: NDArray[Any], number: int, *, signed: bool = False) -> NDArray[Any]:
    """One of the eight orientations of squares (N, G, G), 0 to 7, upright first; of DCT coefficients if signed.

    Transposed where the number has the bit 4, then upside down where it has 2, then mirrored where it has 1.
    """
    turned = squares.transpose(0, 2, 1) if number & 4 else squares
    if not signed:
        return turned[:, :: -1 if number & 2 else 1, :: -1 if number & 1 else 1]
    odd = np.where(np.arange(squares.shape[-1]) % 2, -1, 1).astype(np.float32)
    return turned * (odd[:, None] if number & 2 else 1) * (odd if number & 1 else 1)


def turned_shapes(of: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sketches, uint8 (N, 272), as their coarsest shapes in each of the eight orientations: float32 (8, N, 4, 4)."""
    shapes = np.zeros((len(of), SHAPE), np.float32)  # DCT coefficients; the first, the mean, is left out
    shapes[:, 1:] = np.ascontiguousarray(of[:, : SHAPE - 1]).view(np.int8).astype(np.float32) / 127
    return np.stack([_oriented(shapes.reshape(-1, 4, 4), number, signed=True) for number in range(8)])


def turned_reliefs(of: NDArray[np.uint8], way: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Sketches' last 256 bytes, uint8 (N, 256), each turned to the orientation of its number in `way`."""
    turned = np.empty((len(of), SKETCH_BYTES - SHAPE), np.uint8)
    for number in range(8):
        those = np.flatnonzero(way == number)
        for start in range(0, len(those), CHUNK):
            part = those[start : start + CHUNK]
            turned[part] = _packed(*(_oriented(plane, number) for plane in _planes(of[part, SHAPE:])))
    return turned


def correlation(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sketches' correlation, of their last 256 bytes cell by cell; shapes are broadcast."""
    notable_ours, lighter_ours = _words(ours)
    notable_theirs, lighter_theirs = _words(theirs)
    both = notable_ours & notable_theirs
    num_both, num_against = _count(both), _count(both & (lighter_ours ^ lighter_theirs))
    norm = np.sqrt(np.maximum(1, _count(notable_ours) * _count(notable_theirs)))
    return np.asarray((num_both - 2 * num_against) / norm, np.float32)


def _words(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(packed).view(np.uint64)
    half = words.shape[-1] // 2
    return words[..., :half], words[..., half:]


def _count(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.asarray(np.bitwise_count(words).sum(axis=-1, dtype=np.float64), np.float64)
