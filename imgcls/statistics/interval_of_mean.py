"""The score interval of a mean of scores that are measured on the same images, such as the recalls of all classes."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.intervals import Interval

MAX_ROUNDS = 50
"""Largest number of rounds of the iteration; it takes about five."""

TOLERANCE = 1e-7
"""Change of an end, in the unit of the score, below which the iteration ends."""

Ends = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(K,) signed quantiles -> (K,) ends of the scores' own intervals at these quantiles."""


def correlations(left_out: NDArray[np.float64], between_unmoved: float = 0.0) -> NDArray[np.float64]:
    """Correlations of K scores, by how much each of them falls when a unit is left out.

    Args:
        left_out: float64 (K, U).
        between_unmoved: correlation of any two scores that no unit moves, such as those without a mistake. A score that
            no unit moves is independent of one that is moved.

    Returns:
        float64 (K, K).
    """
    products = left_out @ left_out.T
    lengths = np.sqrt(np.diag(products))
    is_moved = lengths > 1e-12
    found = np.where(np.outer(~is_moved, ~is_moved), between_unmoved, 0.0)
    np.divide(products, np.outer(lengths, lengths), out=found, where=np.outer(is_moved, is_moved))
    np.fill_diagonal(found, 1)
    return found


def interval_of_mean(
    values: NDArray[np.float64], ends: Ends, correlation: NDArray[np.float64], quantile: float
) -> Interval:
    """Joins the score intervals of K scores to that of their mean.

    An end is the mean of K values that together lie `quantile` standard errors from the observed ones, in the direction
    in which the mean moves most: each score goes to the end of its own interval at a smaller quantile, and the standard
    errors are those at the ends. One score keeps its own interval. The idea is that of MOVER (Zou & Donner 2008,
    Statistics in Medicine 27:1693-1702), which goes to the ends at the whole quantile and thereby overstates the
    skewness of a mean of many; for independent proportions it is the score interval of Martín Andrés, Álvarez Hernández
    & Herranz Tejedor (2011, Statistical Methods in Medical Research 20:369-387).

    Args:
        values: float64 (K,), the scores.
        ends: gives the ends of their own intervals.
        correlation: float64 (K, K), of the scores.
        quantile: above 0.
    """

    def end(sign: int) -> float:
        steps = np.full(len(values), 1 / math.sqrt(len(values)))  # of one standard error in all, as if independent
        reached, before = math.inf, math.nan
        for _ in range(MAX_ROUNDS):
            quantiles = sign * quantile * steps
            moved = ends(quantiles)
            reached = float(moved.mean())
            errors = np.divide(moved - values, quantiles, out=np.zeros_like(values), where=quantiles != 0)
            pulls = correlation @ np.maximum(errors, 0)
            spread = math.sqrt(max(0.0, float(errors @ pulls)))
            if spread == 0 or abs(reached - before) < TOLERANCE:
                break
            before, steps = reached, pulls / spread
        return reached

    return Interval(end(-1), end(1))
