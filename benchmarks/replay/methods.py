"""The searches that are compared: plain Optuna, random search, and imgcls by sampler, start-up and pruner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from benchmarks.replay.search import TRIALS_OF_REFERENCE, Found, Replay, Values, by_optuna, one_by_one, paused
from benchmarks.replay.world import world
from imgcls.config.search_keys import SearchConfig
from imgcls.search.halving import FACTOR, Rungs
from imgcls.search.pruners import make_pruner
from imgcls.search.samplers import drawn_values, resolved_sampler
from imgcls.search.space import known, pruner_warmup_of
from imgcls.search.warm_start import NUM_CONFIGURATIONS

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
        first: of `halving`: epochs before the first pause; None: trials pause once.
        factor: of `halving`: between the epochs of two rungs.
    """

    sampler: str = SearchConfig().sampler
    pruner: str = SearchConfig().pruner
    start: int | None = None
    first: int | None = None
    factor: float = FACTOR

    def __call__(self, replay: Replay, seed: int, *, planned: Sequence[Values] = ()) -> Iterator[Found]:
        """Replays it; the trials after the first one have the planned values, as far as there are any."""
        own = {"search.seed": seed, "search.sampler": self.sampler, "search.pruner": self.pruner}
        experiment = replay.world.searched.replace(own)
        sampler, pauses, num_epochs = (
            resolved_sampler(experiment.search),
            self.pruner == "halving",
            replay.world.num_epochs,
        )
        rungs = Rungs.of(self.first or Rungs.latest_first(num_epochs, self.factor), num_epochs, self.factor)

        def draw(trials: Sequence[FrozenTrial]) -> Values:
            if len(trials) <= len(planned):
                return planned[len(trials) - 1]
            if self.start is not None and len(trials) < self.start:
                return drawn_values(experiment, "qmc", trials)
            return drawn_values(experiment, sampler, trials, first_rung=rungs.epochs[0] if pauses else 0)

        if pauses:
            return paused(replay, draw, rungs)
        return one_by_one(replay, draw, make_pruner(experiment, pruner_warmup_of(experiment)))


@dataclass(frozen=True)
class WarmStart:
    """A warm start of imgcls: it begins with the best configurations of a sweep of 20 trials of another table."""

    def __call__(self, replay: Replay, seed: int) -> Iterator[Found]:
        """Replays both."""
        other = world(LEARNT_FROM[replay.world.table.name])
        draws = np.random.default_rng((seed, 1))
        earlier = Replay(other, int(draws.integers(other.num_seeds)), int(draws.integers(len(other.values))))
        for found in Imgcls()(earlier, seed):
            if found.trials >= TRIALS_OF_REFERENCE and found.regret is not None:
                break
        best = sorted(filter(earlier.is_whole, earlier.trials), key=lambda trial: (-trial.best[-1], trial.number))
        own, space = replay.world.values[replay.first], replay.world.searched.search.space
        planned = [own | known(dict(trial.values), space) for trial in best[:NUM_CONFIGURATIONS]]
        return Imgcls()(replay, seed, planned=planned)


LEARNT_FROM = {"digits": "fashion", "fashion": "digits", "solar": "fashion"}
"""Table -> the other table from which a warm start has learnt."""

METHODS: dict[str, Method] = {
    OPTUNA: PlainOptuna(),
    RANDOM: RandomSearch(),
    DEFAULT: Imgcls(),
    **{
        f"{sampler}, {pruner}": Imgcls(sampler, pruner)
        for pruner in ("none", "median", "hyperband", "halving")
        for sampler in ("random", "qmc", "tpe", "gp")
        if pruner in ("none", "halving") or sampler == "tpe"
    },
    "tpe, halving, 10 fill the space first": Imgcls("tpe", "halving", start=10),
    "tpe, halving at 1/4, a quarter goes on": Imgcls("tpe", "halving", factor=4),
    "tpe, halving at 1/2, a half goes on": Imgcls("tpe", "halving", factor=2),
    "tpe, halving at 1/9 and 1/3": Imgcls("tpe", "halving", first=1),
    "imgcls, warm start from another table": WarmStart(),
}

SLOW = tuple(name for name, method in METHODS.items() if isinstance(method, Imgcls) and method.sampler == "gp")
"""Methods whose draws take a tenth of a second each: they are replayed less often."""
