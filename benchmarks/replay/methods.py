"""The searches that are compared: plain Optuna, random search, and imgcls by sampler, start-up and pruner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from benchmarks.replay.search import Found, Replay, Values, by_optuna, one_by_one, paused
from imgcls.config.search_keys import SearchConfig
from imgcls.search.halving import FACTOR, Rungs
from imgcls.search.samplers import drawn_values, resolved_sampler
from imgcls.search.space import pruner_warmup_of
from imgcls.search.study import make_pruner

Method = Callable[[Replay, int], Iterator[Found]]
"""Replays a search with a seed, without end."""

OPTUNA, RANDOM, DEFAULT = "plain Optuna", "random search", "imgcls"


@dataclass(frozen=True)
class PlainOptuna:
    """Optuna at its defaults: TPE after ten random trials, and the median pruner."""

    def __call__(self, replay: Replay, seed: int) -> Iterator[Found]:
        """Replays it."""
        return by_optuna(replay, TPESampler(seed=seed), MedianPruner())


@dataclass(frozen=True)
class RandomSearch:
    """Random draws, each trained to its end."""

    def __call__(self, replay: Replay, seed: int) -> Iterator[Found]:
        """Replays it."""
        return by_optuna(replay, RandomSampler(seed=seed), NopPruner())


@dataclass(frozen=True)
class Imgcls:
    """A sweep of imgcls with one worker; what is not given is as its configuration has it by default.

    Attributes:
        sampler: as `search.sampler`.
        pruner: as `search.pruner`.
        start: trials whose values fill the space before the sampler learns; None: as many as the package has.
        first: of `halving`: epochs before the first pause.
        factor: of `halving`: between the epochs of two rungs.
    """

    sampler: str = SearchConfig().sampler
    pruner: str = SearchConfig().pruner
    start: int | None = None
    first: int | None = None
    factor: float = FACTOR

    def __call__(self, replay: Replay, seed: int) -> Iterator[Found]:
        """Replays it."""
        own = {"search.seed": seed, "search.sampler": self.sampler, "search.pruner": self.pruner}
        experiment = replay.world.searched.replace(own)
        sampler, warmup = resolved_sampler(experiment.search), pruner_warmup_of(experiment)
        rungs = Rungs.of(self.first or warmup, replay.world.num_epochs, self.factor)
        pauses = self.pruner == "halving"

        def draw(trials: Sequence[FrozenTrial]) -> Values:
            if self.start is not None and len(trials) < self.start:
                return drawn_values(experiment, "qmc", trials)
            return drawn_values(experiment, sampler, trials, first_rung=rungs.epochs[0] if pauses else 0)

        return paused(replay, draw, rungs) if pauses else one_by_one(replay, draw, make_pruner(experiment, warmup))


METHODS: dict[str, Method] = {
    OPTUNA: PlainOptuna(),
    RANDOM: RandomSearch(),
    DEFAULT: Imgcls(),
    **{f"{sampler}, none": Imgcls(sampler, "none") for sampler in ("qmc", "tpe", "gp")},
    **{
        f"{sampler}, halving at 1/4": Imgcls(sampler, "halving", factor=4) for sampler in ("random", "qmc", "tpe", "gp")
    },
}
