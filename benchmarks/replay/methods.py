"""The searches that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from benchmarks.replay.search import Found, Replay, Values, by_optuna, paused, to_the_end
from imgcls.search import samplers
from imgcls.search.halving import Rungs

Method = Callable[[Replay, int], Iterator[Found]]
"""Replays a search with a seed, without end."""


def plain_optuna(replay: Replay, seed: int) -> Iterator[Found]:
    """Optuna at its defaults."""
    return by_optuna(replay, TPESampler(seed=seed), MedianPruner())


def random_search(replay: Replay, seed: int) -> Iterator[Found]:
    """Random draws, each trained to its end."""
    return by_optuna(replay, RandomSampler(seed=seed), NopPruner())


@dataclass(frozen=True)
class Imgcls:
    """A search of imgcls.

    Attributes:
        sampler: as `search.sampler`.
        start: trials whose values fill the space before the sampler learns.
        first: epochs before the first pause; None trains each trial to its end.
        factor: between the epochs of two rungs.
    """

    sampler: str
    start: int = samplers.NUM_SPACE_FILLING
    first: int | None = None
    factor: float = 3.0
    learn: str = "best"

    def __call__(self, replay: Replay, seed: int) -> Iterator[Found]:
        """Replays it."""
        experiment = replay.world.searched.replace(
            {"search.seed": seed, "search.sampler": self.sampler.removeprefix("mix")}
        )
        rungs = Rungs.of(self.first or replay.world.num_epochs, replay.world.num_epochs, self.factor)

        def draw(trials: Sequence[FrozenTrial]) -> Values:
            samplers.NUM_SPACE_FILLING = self.start
            if self.sampler.startswith("mix"):
                return samplers.drawn_values(experiment, self.sampler[3:] if len(trials) % 2 else "qmc", trials)
            return samplers.drawn_values(experiment, self.sampler, LEARN[self.learn](trials, rungs))

        return to_the_end(replay, draw) if self.first is None else paused(replay, draw, rungs)

import numpy as np
from optuna.trial import create_trial, TrialState
def at_first(trials, rungs):
    r=rungs.epochs[0]
    return [create_trial(params=t.params,distributions=t.distributions,state=TrialState.COMPLETE,value=max(v for e,v in t.intermediate_values.items() if e<=r)) if t.intermediate_values else t for t in trials]
def shifted(trials, rungs):
    """each paused value moved by the mean gain of those that went on from its rung"""
    gains={}
    rs=rungs.epochs
    def b(t,r): return max(v for e,v in t.intermediate_values.items() if e<=r)
    ts=[t for t in trials if t.intermediate_values]
    def n(t): return max(t.intermediate_values)
    out=[]
    for t in trials:
        if not t.intermediate_values or n(t)==rs[-1]: out.append(t); continue
        v=b(t,n(t))
        for lo,hi in zip(rs,rs[1:]):
            if lo<n(t): continue
            pr=[(b(o,lo),b(o,hi)) for o in ts if n(o)>=hi]
            if pr:
                v+= np.median([h-l for l,h in pr]) if False else 0
        out.append(create_trial(params=t.params,distributions=t.distributions,state=TrialState.COMPLETE,value=float(v)))
    return out
def ranks(trials, rungs):
    """value: quantile among the trials of the highest rung each reached; higher rungs above"""
    ts=[t for t in trials if t.intermediate_values]
    rs=rungs.epochs
    def n(t): return max(t.intermediate_values)
    def b(t,r): return max(v for e,v in t.intermediate_values.items() if e<=r)
    # order: by rung then value
    order=sorted(ts,key=lambda t:(n(t),b(t,n(t))))
    from statistics import NormalDist
    val={id(t): NormalDist().inv_cdf((i+0.5)/len(order)) for i,t in enumerate(order)}
    return [create_trial(params=t.params,distributions=t.distributions,state=TrialState.COMPLETE,value=val[id(t)]) if id(t) in val else t for t in trials]
LEARN={'best': lambda t,r:t,'rung0':at_first,'ranks':ranks}

METHODS: dict[str, Method] = {"plain Optuna": plain_optuna, "random": random_search}
for s in ("qmc", "tpe", "gp"):
    METHODS[f"{s} whole"] = Imgcls(s)
for first in (1, 2, 3):
    for factor in (2.0, 3.0, 4.0):
        for s in ("random", "qmc", "tpe"):
            METHODS[f"{s} halving {first} {factor:.0f}"] = Imgcls(s, first=first, factor=factor)
        for l in LEARN: METHODS[f"gp halving {first} {factor:.0f} {l}"] = Imgcls("gp", first=first, factor=factor, learn=l)
METHODS["qmc whole"] = Imgcls("qmc")
METHODS["mix tpe halving 1 3"] = Imgcls("mixtpe", first=1, factor=3)
METHODS["mix tpe halving 1 4"] = Imgcls("mixtpe", first=1, factor=4)
METHODS["mix tpe halving 2 3"] = Imgcls("mixtpe", first=2, factor=3)
METHODS["start10 tpe halving 1 3"] = Imgcls("tpe", first=1, factor=3, start=10)
METHODS["start20 tpe halving 1 3"] = Imgcls("tpe", first=1, factor=3, start=20)
