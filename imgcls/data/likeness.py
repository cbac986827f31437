"""Which images are copies of one another although their pixels differ: saved again, resized, turned, cropped.

What is kept of an image is a *sketch* of 272 bytes, from which no picture can be shown: where it is lighter or darker
than its surroundings on a grid of 32 x 32, and fifteen numbers of its coarsest shape. Comparing takes sketches alone,
so that test images can be compared without being seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

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
"""Bits of a sketch's sixteenth byte: it says something; crops of it can be told."""

LARGE_SIDE = 48
"""Pixels of the shorter side from which on crops are looked for: in smaller images they cut off whole pixels."""

NEIGHBOURS = 8
"""Images of nearest shape that are compared with each orientation of an image."""

REACH, REACH_OF_SMALL = 0.6, 0.15
"""Largest distance of two shapes of unit norm that are compared: a crop of 5 % moves nearly all by less than the first,
and what else makes copies by less than the second."""

MOST_DISTANCE, OF_SMALL, POWER = 0.24, 0.06, 1.7
"""A copy is no further away (1 minus correlation of two sketches) than the first, or the second of images that are not
large, times the distance of the other images to this power. Where images have little in common, that lets a crop of 5 %
count; where all are alike as such, as solar cells are, a copy must be far nearer than the others."""

OTHERS, QUANTILE = 32, 0.25
"""How near the others are: this quantile of the correlations with so many upright images of nearest shape. So up to 24
copies of one image do not hide one another; fewer images than this count as having little in common."""

MOST_CROPPED = 0.065
"""Share of a side that may be cut off at each edge."""

CHUNK = 128
"""Images that are compared at a time."""


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """Grey levels of an image squeezed to 32 x 32, float32 (32, 32)."""
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
    """Bool (N,): which of these sketches, uint8 (N, 272), can be compared at all."""
    return (of[:, SHAPE - 1] & HAS_SKETCH) > 0


def copies(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pairs of images that are copies of one another, in any of the eight orientations and cropped by up to 5 %.

    Of each of theirs the eight of ours with the nearest shape are compared in each orientation, so the time grows with
    the number of images and not with that of pairs; of more copies than that, some are found.

    Args:
        ours: uint8 (N, 272).
        theirs: uint8 (M, 272).

    Returns:
        int64 (P, 2): row of ours, row of theirs; ascending.
    """
    known, asked = np.flatnonzero(says_something(ours)), np.flatnonzero(says_something(theirs))
    if not len(known) or not len(asked):
        return np.empty((0, 2), np.int64)
    tree = cKDTree(_shapes(ours[known]).reshape(len(known), -1))
    is_large = (theirs[asked, SHAPE - 1] & IS_LARGE) > 0
    found = []
    for reach, part in ((REACH_OF_SMALL, asked[~is_large]), (REACH, asked[is_large])):
        for start in range(0, len(part), CHUNK):
            rows = part[start : start + CHUNK]
            for of_known, of_rows in _copies_of_chunk(ours[known], tree, theirs[rows], reach):
                found.append(np.stack((known[of_known], rows[of_rows]), axis=1))
    return np.unique(np.concatenate(found), axis=0)


class _Candidates(NamedTuple):
    """Of each image asked about, images of nearest shape in each orientation.

    Attributes:
        rows: int64 (8, M, K), of known images; meaningless where `valid` is not.
        valid: bool (8, M, K).
        agreement: float32 (8, M, K), correlation of the sketches as they are; -1 where not valid.
    """

    rows: NDArray[np.int64]
    valid: NDArray[np.bool_]
    agreement: NDArray[np.float32]


def _copies_of_chunk(
    known: NDArray[np.uint8], tree: cKDTree, asked: NDArray[np.uint8], reach: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    turned = np.stack([_packed(*planes) for planes in zip(*map(_orientations, _planes(asked)), strict=True)])
    candidates = _candidates(known, tree, asked, turned, reach)
    wanted = _wanted(known, tree, asked)
    hits = candidates.agreement >= wanted[None, :, None]
    yield candidates.rows[hits], np.nonzero(hits)[1]
    is_large = (asked[:, SHAPE - 1] & IS_LARGE) > 0
    rest = np.flatnonzero(is_large & ~hits.any(axis=(0, 2)))
    yield from _cropped(known, turned, candidates, wanted, rest)


def _candidates(
    known: NDArray[np.uint8], tree: cKDTree, asked: NDArray[np.uint8], turned: NDArray[np.uint8], reach: float
) -> _Candidates:
    shapes = np.stack(list(_orientations(_shapes(asked), signed=True))).reshape(8 * len(asked), -1)
    _, rows = tree.query(shapes, k=range(1, NEIGHBOURS + 1), distance_upper_bound=reach, workers=-1)
    rows = rows.reshape(8, len(asked), NEIGHBOURS)
    valid = rows < len(known)
    rows = np.where(valid, rows, 0)
    agreement = _agreement(known[rows, SHAPE:], turned[:, :, None])
    return _Candidates(rows, valid, np.where(valid, agreement, -1))


def _wanted(known: NDArray[np.uint8], tree: cKDTree, asked: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (M,): the correlation from which on another image counts as a copy of each one."""
    most = np.where(asked[:, SHAPE - 1] & IS_LARGE, MOST_DISTANCE, OF_SMALL)
    if len(known) < OTHERS:
        return (1 - most).astype(np.float32)
    _, rows = tree.query(_shapes(asked).reshape(len(asked), -1), k=range(1, OTHERS + 1), workers=-1)
    others = np.quantile(_agreement(known[rows, SHAPE:], asked[:, None, SHAPE:]), QUANTILE, axis=1)
    wanted: NDArray[np.float32] = (1 - most * np.clip(1 - others, 0, 1) ** POWER).astype(np.float32)
    return wanted


# --- crops ----------------------------------------------------------------------------------------------------------

COARSE_CANDIDATES, COARSE_AGREEMENT = 12, 0.5
"""Candidates that are aligned on a grid of half the cells, and the correlation that the best one needs to go on."""


def _cropped(
    known: NDArray[np.uint8], turned: NDArray[np.uint8], candidates: _Candidates, wanted: NDArray[np.float32],
    rest: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:  # fmt: skip
    """The same for images that agree with none as they are: the best candidates are aligned with them."""
    if not len(rest):
        return
    by_image = np.moveaxis(_blurred_agreement(known, turned, candidates, rest), 1, 0).reshape(len(rest), -1)
    best = np.argpartition(-by_image, COARSE_CANDIDATES, axis=1)[:, :COARSE_CANDIDATES]
    orientation, neighbour = np.divmod(best, NEIGHBOURS)
    asked = np.repeat(rest, COARSE_CANDIDATES).reshape(best.shape)
    rows = candidates.rows[orientation, asked, neighbour]
    use = candidates.valid[orientation, asked, neighbour] & ((known[rows, SHAPE - 1] & IS_LARGE) > 0)
    coarse, edges = np.full(use.shape, -1, np.float32), np.zeros((*use.shape, 4), np.float32)
    one, other = _relief(known[rows[use], SHAPE:]), _relief(turned[orientation[use], asked[use]])
    if not use.any():
        return
    coarse[use], edges[use] = _aligned(_halved(one), _halved(other), np.zeros((len(one), 4), np.float32))
    first = coarse.argmax(axis=1)
    at = np.flatnonzero(coarse.max(axis=1) >= COARSE_AGREEMENT)
    if not len(at):
        return
    row, number = rows[at, first[at]], asked[at, first[at]]
    other = _relief(turned[orientation[at, first[at]], number])
    agreement, _ = _aligned(_relief(known[row, SHAPE:]), other, edges[at, first[at]])
    hits = agreement >= wanted[number]
    yield row[hits], number[hits]


def _blurred_agreement(
    known: NDArray[np.uint8], turned: NDArray[np.uint8], candidates: _Candidates, rest: NDArray[np.int64]
) -> NDArray[np.float32]:
    """float32 (8, R, K): correlation on a grid of 8 x 8, which a slight crop hardly lowers; -1 for no candidate."""
    valid, rows = candidates.valid[:, rest], candidates.rows[:, rest]
    agreement = np.full(valid.shape, -1, np.float32)
    orientation, number, _ = np.nonzero(valid)
    ours, theirs = _blurred(known[rows[valid], SHAPE:]), _blurred(turned[orientation, rest[number]])
    agreement[valid] = (ours * theirs).sum(axis=1)
    return agreement


def _blurred(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    cells = _relief(packed).reshape(-1, 8, SIDE // 8, 8, SIDE // 8).mean(axis=(2, 4)).reshape(-1, 64)
    unit: NDArray[np.float32] = (cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6)).astype("f4")
    return unit


def _aligned(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], edges: NDArray[np.float32], num_steps: int = 5
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Moves the four edges of our images until they agree with theirs as well as they can (Lucas and Kanade, 1981).

    Args:
        ours: (M, G, G).
        theirs: (M, G, G).
        edges: (M, 4), shares of a side by which the left, right, upper and lower edge move inwards; where to begin.
        num_steps: of Gauss and Newton.

    Returns:
        Best correlation over where both are, (M,); the edges after the last step.
    """
    grid = ours.shape[-1]
    places = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    best = np.full(len(ours), -1, np.float32)
    for step in range(num_steps + 1):
        across, there_x = _resampling(edges[:, 0], edges[:, 1], places)
        down, there_y = _resampling(edges[:, 2], edges[:, 3], places)
        weight = there_y[:, :, None] * there_x[:, None, :]
        moved, target = _unit(down @ ours @ across.transpose(0, 2, 1), weight), _unit(theirs, weight)
        best = np.maximum(best, (moved * target).sum(axis=(1, 2)))
        if step == num_steps:
            break
        smooth = uniform_filter(np.stack((moved, target)), size=(0, 0, 3, 3), mode="nearest")
        down_slope, right_slope = np.gradient(smooth[0], 1 / grid, axis=(1, 2))
        slopes = np.stack((
            right_slope * (1 - places), -right_slope * places,
            down_slope * (1 - places)[:, None], -down_slope * places[:, None],
        ), axis=1).reshape(len(ours), 4, -1)  # fmt: skip
        squares = slopes @ slopes.transpose(0, 2, 1)
        damping = 1e-3 * np.trace(squares, axis1=1, axis2=2)[:, None, None] / 4 + 1e-9
        errors = ((smooth[1] - smooth[0]) * weight).reshape(len(ours), -1, 1)
        moves = np.linalg.solve(squares + damping * np.eye(4, dtype=np.float32), slopes @ errors)
        edges = np.clip(edges + moves[..., 0], -MOST_CROPPED, MOST_CROPPED).astype(np.float32)
    return best, edges


def _resampling(
    first: NDArray[np.float32], last: NDArray[np.float32], places: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Matrices (M, G, G) that move the ends of an axis inwards, by linear interpolation; and which cells they fill."""
    grid = len(places)
    at = (first[:, None] + places * (1 - first - last)[:, None]) * grid - 0.5
    inside = ((at > -0.5) & (at < grid - 0.5)).astype(np.float32)
    distance = np.abs(np.clip(at, 0, grid - 1)[:, :, None] - np.arange(grid, dtype=np.float32))
    return np.maximum(0, 1 - distance).astype(np.float32), inside


def _unit(relief: NDArray[np.floating[Any]], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    relief = relief * weight
    norm = np.sqrt((relief**2).sum(axis=(1, 2), keepdims=True))
    unit: NDArray[np.float32] = (relief / np.maximum(norm, 1e-6)).astype(np.float32)
    return unit


def _halved(relief: NDArray[np.float32]) -> NDArray[np.float32]:
    halved: NDArray[np.float32] = relief.reshape(len(relief), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    return halved


# --- the bytes of a sketch ------------------------------------------------------------------------------------------


def _packed(notable: NDArray[np.bool_], lighter: NDArray[np.bool_]) -> NDArray[np.uint8]:
    flat = [np.packbits(plane.reshape(len(plane), -1), axis=1) for plane in (notable, lighter & notable)]
    return np.concatenate(flat, axis=1)


def _planes(of: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells are notable and which are lighter, bool (N, 32, 32) each."""
    bits = np.unpackbits(of[:, SHAPE:], axis=1).reshape(len(of), 2, SIDE, SIDE).astype(bool)
    return bits[:, 0], bits[:, 1]


def _relief(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (N, 32, 32) of the last 256 bytes: 1 lighter, -1 darker, 0 neither."""
    bits = np.unpackbits(packed, axis=1).reshape(len(packed), 2, SIDE, SIDE).astype(np.float32)
    return 2 * bits[:, 1] - bits[:, 0]


def _shapes(of: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (N, 4, 4): the coarsest DCT coefficients, the mean left out."""
    shapes = np.zeros((len(of), SHAPE), np.float32)
    shapes[:, 1:] = np.ascontiguousarray(of[:, : SHAPE - 1]).view(np.int8).astype(np.float32) / 127
    return shapes.reshape(len(of), 4, 4)


def _orientations(squares: NDArray[Any], *, signed: bool = False) -> Iterator[NDArray[Any]]:
    """The eight orientations of squares (N, G, G), upright first; of DCT coefficients if signed."""
    odd = np.where(np.arange(squares.shape[-1]) % 2, -1, 1).astype(np.float32)
    for transposed in (squares, squares.transpose(0, 2, 1)):
        for down in (False, True):
            for across in (False, True):
                if signed:
                    yield transposed * (odd[:, None] if down else 1) * (odd if across else 1)
                else:
                    yield transposed[:, :: -1 if down else 1, :: -1 if across else 1]


def _agreement(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Correlation of the last 256 bytes of sketches, cell by cell; shapes are broadcast."""
    notable_ours, lighter_ours = _words(ours)
    notable_theirs, lighter_theirs = _words(theirs)
    both = notable_ours & notable_theirs
    num_both, num_against = _count(both), _count(both & (lighter_ours ^ lighter_theirs))
    norm = np.sqrt(np.maximum(1, _count(notable_ours) * _count(notable_theirs)))
    agreement: NDArray[np.float32] = ((num_both - 2 * num_against) / norm).astype(np.float32)
    return agreement


def _words(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(packed).view(np.uint64)
    half = words.shape[-1] // 2
    return words[..., :half], words[..., half:]


def _count(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    count: NDArray[np.float64] = np.bitwise_count(words).sum(axis=-1, dtype=np.float64)
    return count
