"""A recorded table as a world that a search can be replayed in: a draw is answered by the nearest configuration."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from benchmarks.replay.tables import TABLES, Table
from imgcls.config.keys import Experiment
from imgcls.search.space import distributions


@dataclass(frozen=True)
class World:
    """A table of which at least two seeds are recorded.

    Attributes:
        table: what was recorded.
        values: of each of the N configurations.
        accuracy: float64 (N, seeds, epochs) on val; NaN from where a training failed on.
        seconds: float64 (N, epochs), median over the seeds: the same configuration takes as long with any seed.
    """

    table: Table
    values: list[dict[str, Any]]
    accuracy: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @classmethod
    def of(cls, table: Table) -> World:
        """The world of the configurations that are recorded with every seed of which any is recorded whole."""
        runs = {(run["configuration"], run["seed"]): run for run in table.read()["runs"]}
        numbers = range(table.num_configurations)
        seeds = [seed for seed in range(table.num_seeds) if all((number, seed) in runs for number in numbers)]
        epochs = int(table.base["train.epochs"])

        def curves(name: str) -> NDArray[np.float64]:
            padded = [[_padded(runs[number, seed][name], epochs) for seed in seeds] for number in numbers]
            return np.array(padded, np.float64).reshape(len(numbers), len(seeds), epochs)

        values = [table.configurations[number] for number in numbers]
        return cls(table, values, curves("accuracy"), _median(curves("seconds")))

    @property
    def num_epochs(self) -> int:
        """Of a whole training."""
        return self.accuracy.shape[-1]

    @property
    def num_seeds(self) -> int:
        """Seeds with which every configuration is recorded."""
        return self.accuracy.shape[1]

    @cached_property
    def training_seconds(self) -> float:
        """Of a whole training, the mean over the configurations."""
        return float(np.nansum(self.seconds, axis=1).mean())

    @cached_property
    def searched(self) -> Experiment:
        """The experiment whose search is replayed."""
        return self.table.experiment({}, 0, searched=True)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Its search space in Optuna's terms."""
        return distributions(self.searched.search.space)

    @cached_property
    def _places(self) -> NDArray[np.float64]:
        return np.array([self._place(values) for values in self.values])

    def _place(self, values: Mapping[str, Any]) -> list[float]:
        """Shares, in [0, 1], of the ranges; steps of a list are as far apart as the ends of a range."""
        return [_share(options, values[key]) for key, options in self.table.space.items()]

    def nearest(self, values: Mapping[str, Any]) -> int:
        """Number of the recorded configuration that is nearest to these values."""
        return int(np.square(self._places - self._place(values)).sum(axis=1).argmin())

    @cached_property
    def best(self) -> NDArray[np.float64]:
        """float64 (N, seeds): the best epoch's accuracy; 0 where no epoch was completed."""
        return np.nan_to_num(np.fmax.reduce(self.accuracy, axis=2))

    def regret(self, configuration: int, seen: int) -> float:
        """How much worse a configuration is than the best one, by the mean over the seeds that were not seen."""
        means = np.delete(self.best, seen, axis=1).mean(axis=1)
        return float(means.max() - means[configuration])


@cache
def world(table: str) -> World:
    """The world of a table, read once a process."""
    return World.of(TABLES[table])


def _median(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the seeds, of those that came so far; as many zeros where no seed is recorded."""
    if not seconds.shape[1]:
        return np.zeros(seconds.shape[::2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an epoch to which no training came
        return np.nan_to_num(np.nanmedian(seconds, axis=1))


def _padded(curve: list[float], num: int) -> list[float]:
    return [*curve, *[math.nan] * (num - len(curve))]


def _share(options: Any, value: Any) -> float:
    if isinstance(options, list):
        return options.index(value) / max(1, len(options) - 1)
    low, high = options["low"], options["high"]
    if options.get("log"):
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
