"""Which images are copies of one another although their pixels differ: saved again, resized, turned, cropped.

Only their sketches are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from imgcls.data.decode_workers import in_threads
from imgcls.data.sketches import (
    CHUNK,
    SIDE,
    as_relief,
    correlation,
    of_large_images,
    says_something,
    turned_reliefs,
    turned_shapes,
)

NEIGHBOURS = 32
"""Number of images, those of nearest shape, with which each possibly canonical orientation of an image is compared."""

REACH, REACH_OF_SMALL = 0.65, 0.11
"""Largest distance of two shapes of unit norm that are compared. A crop of 5 % moves nearly all shapes by less than the
first, and every other change of a copy by less than the second."""

MARGIN = 0.5
"""Share of the reach by which a change may move the two coefficients that decide on the canonical orientation."""

SHAPE_WEIGHT = 0.5
"""Weight of the distance of two shapes. The distance of two images is 1 - correlation of their cells + this weight *
distance of their shapes. Solar cells of one ingot agree in their crystals and differ in how the light falls off across
them; saving an image again changes neither."""

LEAST_LIMIT, MOST_LIMIT, POWER = 0.055, 0.25, 1.8
"""Largest distance of a copy: MOST_LIMIT * (distance of the other images) ** POWER, but at least LEAST_LIMIT. Where
images have little in common, that lets a crop of 5 % count. Where all images look alike, as solar cells do, a copy must
be much nearer than the others. For images that are not large, the limit is always LEAST_LIMIT."""

OTHERS, QUANTILE = 32, 0.25
"""How near the other images are: this quantile of the correlations with so many images of nearest shape. So up to 24
copies of one image do not hide one another. A set of no more than OTHERS images counts as having little in common."""

SAMPLE = 256
"""Size of the sample of a set that tells how near its images are to one another."""

MOST_CROPPED = 0.07
"""Share of a side that may be cut off at each edge."""


def copies(
    ours: NDArray[np.uint8],
    theirs: NDArray[np.uint8],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """Pairs of images that are copies of one another, in any of the eight orientations and cropped by up to 5 %.

    Each of theirs is compared with the `NEIGHBOURS` of ours that have the nearest shape, so the time grows with the
    number of images and not with that of pairs; of more copies than that, some are found.

    Args:
        ours: uint8 (N, 272).
        theirs: uint8 (M, 272).
        labels: int64 (N,) and int64 (M,), of ours and of theirs: pairs of one label are left out. By default none are.

    Returns:
        int64 (P, 2): row of ours, row of theirs; ascending.
    """
    known, asked = np.flatnonzero(says_something(ours)), np.flatnonzero(says_something(theirs))
    if not len(known) or not len(asked):
        return np.empty((0, 2), np.int64)
    of_ours, of_theirs = labels or (np.zeros(len(ours), np.int64), np.ones(len(theirs), np.int64))
    among = _Known.of(ours[known], of_ours[known])
    is_large = of_large_images(theirs[asked])
    found = []
    for are_large, part in ((True, asked[is_large]), (False, asked[~is_large])):
        for start in range(0, len(part), CHUNK):
            rows = part[start : start + CHUNK]
            for of_known, of_rows in _copies_of_chunk(among, theirs[rows], of_theirs[rows], are_large=are_large):
                found.append(np.stack((known[of_known], rows[of_rows]), axis=1))
    return np.unique(np.concatenate(found), axis=0)


# --- one orientation for all ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """Images among which copies are looked for, each turned to its canonical orientation.

    Attributes:
        reliefs: uint8 (N, 256), last bytes of their sketches.
        is_large: bool (N,).
        tree: their shapes.
        likeness: how near they are to one another: the median of `_others` over a sample.
        labels: int64 (N,); an image asked about is not compared with those of its own label.
    """

    reliefs: NDArray[np.uint8]
    is_large: NDArray[np.bool_]
    tree: cKDTree
    likeness: float
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, known: NDArray[np.uint8], labels: NDArray[np.int64]) -> _Known:
        """Turns images with these sketches, uint8 (N, 272)."""
        shapes = turned_shapes(known)
        way = _may_be_canonical(shapes, 0).argmax(axis=0)
        upright = shapes[way, np.arange(len(known))]
        reliefs, tree = turned_reliefs(known, way), cKDTree(upright.reshape(len(known), -1))
        if len(known) <= OTHERS:
            return cls(reliefs, of_large_images(known), tree, 0.0, labels)
        sample = np.unique(np.linspace(0, len(known) - 1, SAMPLE).astype(np.int64))
        _, rows = _nearest(tree, upright[sample], np.inf, first=2, num=OTHERS)
        likeness = np.median(_others(correlation(reliefs[rows], reliefs[sample][:, None])))
        return cls(reliefs, of_large_images(known), tree, float(likeness), labels)


def _may_be_canonical(shapes: NDArray[np.float32], margin: float) -> NDArray[np.bool_]:
    """Which shapes (..., 4, 4) are in the canonical orientation, or would be if they moved by this margin.

    In it the first coefficients of both axes are positive, and the one across is the larger. One of the eight
    orientations of an image has that, or several where a coefficient is zero or both are equal.
    """
    across, down = shapes[..., 0, 1], shapes[..., 1, 0]
    return (down >= -margin) & (across - down >= -margin)


# --- candidates -----------------------------------------------------------------------------------------------------


class _Candidates(NamedTuple):
    """Known images of nearest shape, for each orientation of the images asked about that may be the canonical one.

    Attributes:
        number: int64 (Q,), which image is asked about.
        reliefs: uint8 (Q, 256), of that orientation.
        rows: int64 (Q, K), of known images; one row too many where there are fewer than K.
        agreement: float32 (Q, K), correlation of the sketches; -1 where an image has fewer than K candidates.
        distances: float32 (Q, K), of the images; infinite for a missing candidate, and for one that cannot be a copy.
    """

    number: NDArray[np.int64]
    reliefs: NDArray[np.uint8]
    rows: NDArray[np.int64]
    agreement: NDArray[np.float32]
    distances: NDArray[np.float32]

    def of_other_labels(self, known: NDArray[np.int64], asked: NDArray[np.int64]) -> _Candidates:
        """The same candidates, of which those with the label of the image asked about are no longer possible copies."""
        others = known[np.minimum(self.rows, len(known) - 1)] != asked[self.number, None]
        return self._replace(distances=np.where(others, self.distances, np.float32(np.inf)))


def _copies_of_chunk(
    known: _Known, asked: NDArray[np.uint8], labels: NDArray[np.int64], *, are_large: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of known and of asked images; those asked about are either all large or all small."""
    candidates = _candidates(known, asked, REACH if are_large else REACH_OF_SMALL)
    limits = _limits(known, candidates, len(asked)) if are_large else np.full(len(asked), LEAST_LIMIT, np.float32)
    candidates = candidates.of_other_labels(known.labels, labels)
    hits = candidates.distances <= limits[candidates.number, None]
    query, neighbour = np.nonzero(hits)
    yield candidates.rows[query, neighbour], candidates.number[query]
    if are_large:
        rest = limits >= LEAST_LIMIT_OF_CROPS
        rest[candidates.number[query]] = False
        yield from _cropped(known, candidates, limits, np.flatnonzero(rest))


def _candidates(known: _Known, asked: NDArray[np.uint8], reach: float) -> _Candidates:
    shapes = turned_shapes(asked)
    number, way = np.nonzero(_may_be_canonical(shapes, MARGIN * reach).T)
    reliefs = turned_reliefs(asked[number], way)
    apart, rows = _nearest(known.tree, shapes[way, number], reach)
    there = np.isfinite(apart)
    query, _ = np.nonzero(there)
    agreement = np.full(there.shape, -1, np.float32)
    agreement[there] = correlation(known.reliefs[rows[there]], reliefs[query])
    return _Candidates(number, reliefs, rows, agreement, 1 - agreement + SHAPE_WEIGHT * apart)


def _nearest(
    tree: cKDTree, shapes: NDArray[np.float32], reach: float, first: int = 1, num: int = NEIGHBOURS
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances and rows, (M, num), of the images of nearest shape; infinite and one row too many beyond the reach."""
    wanted = range(first, first + num)
    apart, rows = tree.query(shapes.reshape(len(shapes), -1), k=wanted, distance_upper_bound=reach, workers=-1)
    return np.asarray(apart, np.float32), np.asarray(rows, np.int64)


def _limits(known: _Known, candidates: _Candidates, num_asked: int) -> NDArray[np.float32]:
    """float32 (M,): the distance up to which another image counts as a copy of each large one."""
    others = np.full(num_asked, known.likeness)
    if len(known.reliefs) > OTHERS:
        np.maximum.at(others, candidates.number, _others(candidates.agreement[:, :OTHERS]))
    limits: NDArray[np.float32] = (MOST_LIMIT * np.clip(1 - others, 0, 1) ** POWER).astype(np.float32)
    return np.maximum(limits, np.float32(LEAST_LIMIT))


def _others(agreement: NDArray[np.float32]) -> NDArray[np.float32]:
    """How near the others are, from correlations (M, `OTHERS`)."""
    return np.asarray(np.quantile(agreement, QUANTILE, axis=1))


# --- crops ----------------------------------------------------------------------------------------------------------

LEAST_LIMIT_OF_CROPS = 0.12
"""Limit from which on crops of an image are looked for: their distance once they are aligned, roughly."""

COARSE_CANDIDATES, COARSE_AGREEMENT = 16, 0.5
"""Number of candidates that are aligned on a grid of half the cells, and the correlation that the best of them needs to
be aligned on the whole grid."""

STARTS = (0.0, 0.04, -0.04)
"""Shares of a side by which all edges move before they are aligned, since either of the two images may be the crop."""


ALIGNED_AT_ONCE = 500
"""Number of images that a thread aligns at once; more of them do not fit into a processor's cache."""


def _cropped(
    known: _Known, candidates: _Candidates, limits: NDArray[np.float32], rest: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """As `_copies_of_chunk`, for the rest of the images, which are near to none as they are: the best are aligned."""
    query, neighbour = _best_blurred(known, candidates, rest)
    row, number = candidates.rows[query, neighbour], candidates.number[query]
    ours, theirs = as_relief(known.reliefs[row]), as_relief(candidates.reliefs[query])
    coarse, edges = _best_aligned(_halved(ours), _halved(theirs))
    best = _first_of_each(number, -coarse)
    at = best[coarse[best] >= COARSE_AGREEMENT]
    agreement, _ = _aligned(ours[at], theirs[at], edges[at])
    hits = at[1 - agreement <= limits[number[at]]]
    yield row[hits], number[hits]


def _best_blurred(
    known: _Known, candidates: _Candidates, rest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Query and neighbour of the candidates of each image that agree best on a grid of 8 x 8, as slight crops do."""
    use = np.isfinite(candidates.distances) & np.isin(candidates.number, rest)[:, None]
    use[use] = known.is_large[candidates.rows[use]]
    query, neighbour = np.nonzero(use)
    rows, of_ours = np.unique(candidates.rows[query, neighbour], return_inverse=True)
    queries, of_theirs = np.unique(query, return_inverse=True)
    ours, theirs = _blurred(known.reliefs[rows]), _blurred(candidates.reliefs[queries])
    agreement = (ours[of_ours] * theirs[of_theirs]).sum(axis=1)
    at = _first_of_each(candidates.number[query], -agreement, COARSE_CANDIDATES)
    return query[at], neighbour[at]


def _first_of_each(number: NDArray[np.int64], key: NDArray[np.float32], num: int = 1) -> NDArray[np.int64]:
    """Places of the `num` lowest keys of each number, both (M,)."""
    order = np.lexsort((key, number))
    _, starts, counts = np.unique(number[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return order[rank < num]


def _blurred(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    cells = as_relief(packed).reshape(-1, 8, SIDE // 8, 8, SIDE // 8).mean(axis=(2, 4)).reshape(-1, 64)
    return np.asarray(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6), np.float32)


def _best_aligned(
    ours: NDArray[np.float32], theirs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`_aligned` from the best of `STARTS` for each image: a single start leads larger crops astray."""
    pieces = [slice(start, start + ALIGNED_AT_ONCE) for start in range(0, max(1, len(ours)), ALIGNED_AT_ONCE)]
    done = in_threads(lambda piece: _best_of_starts(ours[piece], theirs[piece]), pieces)
    agreements, edges = zip(*done, strict=True)
    return np.concatenate(agreements), np.concatenate(edges)


def _best_of_starts(
    ours: NDArray[np.float32], theirs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    starts = (np.full((len(ours), 4), start, np.float32) for start in STARTS)
    agreements, edges = zip(*(_aligned(ours, theirs, start) for start in starts), strict=True)
    best = np.argmax(agreements, axis=0), np.arange(len(ours))
    return np.stack(agreements)[best], np.stack(edges)[best]


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
        ), axis=1).reshape(len(ours), 4, grid * grid)  # fmt: skip
        squares = slopes @ slopes.transpose(0, 2, 1)
        damping = 1e-3 * np.trace(squares, axis1=1, axis2=2)[:, None, None] / 4 + 1e-9
        errors = ((smooth[1] - smooth[0]) * weight).reshape(len(ours), grid * grid, 1)
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
    return np.asarray(relief / np.maximum(norm, 1e-6), np.float32)


def _halved(relief: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(relief.reshape(len(relief), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4)), np.float32)
