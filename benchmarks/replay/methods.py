"""The searches that are compared: a sampler, what it learns, and who stops or pauses its trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from benchmarks.replay.search import Found, Replay, Rungs, as_trials, at_a_rung, halving, straight
from benchmarks.replay.tables import value_at

Make = Callable[[int], BaseSampler]
"""Number of a trial -> its sampler."""

Method = Callable[[Replay, int], Iterator[Found]]
"""Replays a search with a seed."""

MOST_TRIALS = 40
"""Trials of a replayed search that trains each to its end or its pruning."""


def _optuna(replay: Replay, seed: int) -> Iterator[Found]:
    """Optuna's defaults."""
    sampler = TPESampler(seed=seed)
    return straight(replay, lambda _: sampler, MedianPruner(), MOST_TRIALS)


def _random(replay: Replay, seed: int) -> Iterator[Found]:
    sampler = RandomSampler(seed=seed)
    return straight(replay, lambda _: sampler, NopPruner(), MOST_TRIALS)


class _Point(BaseSampler):
    """The point of a Sobol sequence whose number is the trial's."""

    def __init__(self, replay: Replay, seed: int, number: int) -> None:
        self._shares = dict(zip(replay.world.table.space, _sobol(len(replay.world.table.space), seed)[number], strict=True))
        self._space = replay.world.table.space

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return value_at(self._space[param_name], float(self._shares[param_name]))


@lru_cache
def _sobol(num_keys: int, seed: int) -> np.ndarray:
    return qmc.Sobol(num_keys, seed=seed).random_base2(8)


def sampler(kind: str, start: int) -> Callable[[Replay, int], Make]:
    """`start` points of a Sobol sequence, then a sampler of this kind."""

    def of(replay: Replay, seed: int) -> Make:
        def make(number: int) -> BaseSampler:
            own = seed * 1000 + number
            if number < start or kind == "qmc":
                return _Point(replay, seed, number)
            if kind == "gp":
                return GPSampler(seed=own, n_startup_trials=0)
            if kind == "mtpe":
                return TPESampler(seed=own, n_startup_trials=0, multivariate=True)
            if kind == "tpe":
                return TPESampler(seed=own, n_startup_trials=0)
            return RandomSampler(seed=own)

        return make

    return of


def stopped(kind: str, start: int, pruner: Callable[[], BasePruner]) -> Method:
    def method(replay: Replay, seed: int) -> Iterator[Found]:
        return straight(replay, sampler(kind, start)(replay, seed), pruner(), MOST_TRIALS)

    return method


def paused(kind: str, start: int, first: int, factor: float, most: int = 3 * MOST_TRIALS, learn: int | None = None) -> Method:
    """Halving; samplers learn from pruned trials as such, or from the values at one rung."""

    def method(replay: Replay, seed: int) -> Iterator[Found]:
        rungs = Rungs.of(first, replay.world.num_epochs, factor)
        learns = as_trials if learn is None else (lambda each: at_a_rung(each, rungs.epochs[learn]))
        return halving(replay, sampler(kind, start)(replay, seed), rungs, most, learns)

    return method


METHODS: dict[str, Method] = {
    "plain Optuna": _optuna,
    "random": _random,
    "qmc": stopped("qmc", 0, NopPruner),
    "tpe 5 median": stopped("tpe", 5, MedianPruner),
    "mtpe 5 median": stopped("mtpe", 5, MedianPruner),
    "gp 5 none": stopped("gp", 5, NopPruner),
}
for first in (1, 2, 3):
    for factor in (2, 3, 4):
        METHODS |= {
            f"random halving {first} {factor}": paused("random", 0, first, factor),
            f"qmc halving {first} {factor}": paused("qmc", 0, first, factor),
            f"tpe 5 halving {first} {factor}": paused("tpe", 5, first, factor),
            f"mtpe 5 halving {first} {factor}": paused("mtpe", 5, first, factor),
            f"gp 5 halving {first} {factor} rung0": paused("gp", 5, first, factor, 60, 0),
        }
