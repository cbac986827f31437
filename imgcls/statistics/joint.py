"""The score interval of a mean of scores that are measured on the same images, such as the recalls of all classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.intervals import Interval

MOST_ROUNDS = 50
"""Rounds after which the iteration ends at the latest; it takes about five."""

TOLERANCE = 1e-7
"""Change of an end that ends the iteration."""

Ends = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(K,) signed quantiles -> the value of each score from which the one observed lies so many standard errors away."""


def interval_of_mean(
    values: NDArray[np.float64],
    ends: Ends,
    influences: NDArray[np.float64],
    quantile: float,
    *,
    unmoved_correlation: float = 0.0,
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
        influences: float64 (U, K), by how much each independent unit moves each score. Scores are correlated as their
            influences are. What no unit moves shows no correlation: it is independent of what is moved.
        quantile: above 0.
        unmoved_correlation: in [0, 1], of any two scores that no unit moves, such as those without a mistake.
    """
    lengths = np.linalg.norm(influences, axis=0)
    unmoved = lengths < 1e-12
    directions = np.divide(influences, lengths, out=np.zeros_like(influences), where=~unmoved)

    def correlated(errors: NDArray[np.float64]) -> NDArray[np.float64]:
        without = unmoved * errors
        shared = unmoved * without.sum() * unmoved_correlation
        mixed: NDArray[np.float64] = directions.T @ (directions @ errors) + shared + without * (1 - unmoved_correlation)
        return mixed

    def end(sign: int) -> float:
        steps = np.full(len(values), 1 / math.sqrt(len(values)))  # of one standard error in all, as if independent
        reached, before = math.inf, math.nan
        for _ in range(MOST_ROUNDS):
            quantiles = sign * quantile * steps
            moved = ends(quantiles)
            reached = float(moved.mean())
            errors = np.divide(moved - values, quantiles, out=np.zeros_like(values), where=quantiles != 0)
            pulls = correlated(np.maximum(errors, 0))
            spread = math.sqrt(max(0.0, float(errors @ pulls)))
            if spread == 0 or abs(reached - before) < TOLERANCE:
                break
            before, steps = reached, pulls / spread
        return reached

    return Interval(end(-1), end(1))
