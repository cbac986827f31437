"""Regret against trial-seconds: the mean over many replayed searches, and how soon it is that of plain Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.search import TRIALS_OF_REFERENCE, Found

RESAMPLES, RESAMPLING_SEED = 2000, 0


@dataclass(frozen=True)
class Curves:
    """The regrets of one method in one world, one row a replayed search.

    Attributes:
        seconds: float64 (G,), trial-seconds, ascending.
        regrets: float64 (R, G), of what each search would hand over after so many seconds.
        reference: float64 (R,), each search's regret after 20 trials.
    """

    seconds: NDArray[np.float64]
    regrets: NDArray[np.float64]
    reference: NDArray[np.float64]

    @classmethod
    def of(cls, searches: Sequence[Sequence[Found]], seconds: NDArray[np.float64], first: Sequence[float]) -> Curves:
        """The curves of replayed searches.

        Args:
            searches: what each would hand over after each of its steps.
            seconds: float64 (G,), where the curves are read.
            first: regret of the configuration that each search was given: until a trial was trained to its end,
                nothing better is known.
        """
        regrets = [_read(found, seconds, before) for found, before in zip(searches, first, strict=True)]
        reference = [_after_trials(found, before) for found, before in zip(searches, first, strict=True)]
        return cls(seconds, np.array(regrets), np.array(reference))

    def first(self, num: int) -> Curves:
        """Those of the first searches alone."""
        return Curves(self.seconds, self.regrets[:num], self.reference[:num])

    @property
    def mean(self) -> NDArray[np.float64]:
        """float64 (G,), over the searches."""
        return np.asarray(self.regrets.mean(axis=0))

    @property
    def error(self) -> NDArray[np.float64]:
        """float64 (G,), standard error of the mean."""
        return np.asarray(self.regrets.std(axis=0, ddof=1) / len(self.regrets) ** 0.5)


@dataclass(frozen=True)
class Ratio:
    """Seconds that a method needs for the regret of plain Optuna after 20 trials, over those that Optuna needs.

    Attributes:
        value: infinite where the method does not come to that regret in the seconds that were replayed.
        low, high: 95 % percentile interval over resampled searches (2,000 resamples, seed 0).
    """

    value: float
    low: float
    high: float


def ratio(ours: Curves, optuna: Curves) -> Ratio:
    """How soon a method is where plain Optuna is after 20 trials; row by row both replayed the same search."""
    num = len(optuna.regrets)
    draws = np.random.default_rng(RESAMPLING_SEED).integers(num, size=(RESAMPLES, num))
    values = np.array([_ratio(ours, optuna, rows) for rows in draws])
    # Ranks, not interpolation: some values are infinite.
    low, high = np.percentile(values, (2.5, 97.5), method="nearest")
    return Ratio(_ratio(ours, optuna, np.arange(num)), float(low), float(high))


def _ratio(ours: Curves, optuna: Curves, rows: NDArray[np.int64]) -> float:
    """The ratio of these rows.

    A winner may be worse than the one before, so plain Optuna may not be at its own regret of trial 20 again within the
    seconds that were replayed. Then all of them count for it, which is in its favour.
    """
    regret = float(optuna.reference[rows].mean())
    by_optuna = min(_seconds_to(regret, optuna, rows), float(optuna.seconds[-1]))
    return _seconds_to(regret, ours, rows) / by_optuna


def _seconds_to(regret: float, curves: Curves, rows: NDArray[np.int64]) -> float:
    """The first seconds at which the mean is at this regret or below; infinite where it never is."""
    there = np.flatnonzero(curves.regrets[rows].mean(axis=0) <= regret)
    return float(curves.seconds[there[0]]) if len(there) else float("inf")


def _read(search: Sequence[Found], seconds: NDArray[np.float64], first: float) -> NDArray[np.float64]:
    whole = [found for found in search if found.regret is not None]
    regrets = np.array([first, *(found.regret for found in whole)], np.float64)
    return regrets[np.searchsorted([found.seconds for found in whole], seconds, side="right")]


def _after_trials(search: Sequence[Found], first: float) -> float:
    within = [found.regret for found in search if found.trials <= TRIALS_OF_REFERENCE and found.regret is not None]
    return within[-1] if within else first
