"""A search replayed in a world of recorded trainings: one worker, trial-seconds alone.

What imgcls draws and promotes is decided by the functions of the package itself, `imgcls.search.samplers` and
`imgcls.search.halving`, so the replay cannot drift from what a sweep does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.replay.world import World
from imgcls.search.halving import Rungs

Values = Mapping[str, Any]

TRIALS_OF_REFERENCE = 20
"""The regret that plain Optuna has after so many trials is the one that another search has to reach."""

Draw = Callable[[Sequence[FrozenTrial]], Values]
"""The trials before -> the values of the next one."""


class Found(NamedTuple):
    """What a search would hand over if it ended now.

    Attributes:
        seconds: of training until then.
        trials: that were begun until then.
        regret: of its best trial that was trained to its end, by the seeds that it did not see; None before there is
            one.
    """

    seconds: float
    trials: int
    regret: float | None


@dataclass
class Trial:
    """A trial of a replayed search.

    Attributes:
        values: that were drawn.
        configuration: that answers for them.
        accuracies: of the epochs that were trained.
        is_over: completed, failed or pruned for good.
    """

    number: int
    values: Values
    configuration: int
    accuracies: list[float] = field(default_factory=list)
    is_over: bool = False

    @property
    def best(self) -> list[float]:
        """The best accuracy until each epoch."""
        return [max(self.accuracies[: epoch + 1]) for epoch in range(len(self.accuracies))]


class Replay:
    """One search in one world.

    Args:
        world: where it searches.
        seen: the recorded seed that it sees.
        first: the configuration that is given to it as its first trial.
    """

    def __init__(self, world: World, seen: int, first: int) -> None:
        self.world, self.seen, self.first = world, seen, first
        self.seconds = 0.0
        self.trials: list[Trial] = []

    def begin(self, values: Values) -> Trial:
        """A new trial."""
        trial = Trial(len(self.trials), values, self.world.nearest(values))
        self.trials.append(trial)
        return trial

    def train(self, trial: Trial, until: int | None = None) -> Iterator[float]:
        """Trains a trial up to this epoch, by default to its end; yields the accuracy of each epoch."""
        curve = self.world.accuracy[trial.configuration, self.seen]
        while len(trial.accuracies) < (until or self.world.num_epochs):
            epoch = len(trial.accuracies)
            self.seconds += self.world.seconds[trial.configuration, epoch]
            if math.isnan(curve[epoch]):
                trial.is_over = True
                return
            trial.accuracies.append(float(curve[epoch]))
            yield float(curve[epoch])
        trial.is_over = len(trial.accuracies) == self.world.num_epochs

    def found(self) -> Found:
        """The winner by what the search sees: the best of the trials that were trained to their end."""
        whole = [trial for trial in self.trials if self.is_whole(trial)]
        if not whole:
            return Found(self.seconds, len(self.trials), None)
        winner = max(whole, key=lambda trial: (max(trial.accuracies), -trial.number))
        return Found(self.seconds, len(self.trials), self.world.regret(winner.configuration, self.seen))

    def frozen(self) -> list[FrozenTrial]:
        """The trials as a sampler of imgcls is told of them: what waits at a rung is a pruned one."""
        return [self._frozen(trial) for trial in self.trials]

    def _frozen(self, trial: Trial) -> FrozenTrial:
        state = TrialState.COMPLETE if self.is_whole(trial) else TrialState.PRUNED
        if not trial.accuracies:
            state = TrialState.FAIL
        return create_trial(
            params=dict(trial.values), distributions=self.world.distributions, state=state,
            value=max(trial.accuracies, default=None), intermediate_values=dict(enumerate(trial.accuracies, 1)),
        )  # fmt: skip

    def is_whole(self, trial: Trial) -> bool:
        """Whether a trial was trained to its end."""
        return len(trial.accuracies) == self.world.num_epochs


def by_optuna(replay: Replay, sampler: BaseSampler, pruner: BasePruner) -> Iterator[Found]:
    """Plain Optuna without end: trial after trial, each to its end unless the pruner stops it."""
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.enqueue_trial(replay.world.values[replay.first])
    while True:
        _run(replay, study)
        yield replay.found()


def one_by_one(replay: Replay, draw: Draw, pruner: BasePruner) -> Iterator[Found]:
    """Draws of imgcls without end, each trained to its end unless the pruner stops it."""
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0), pruner=pruner)
    while True:
        study.enqueue_trial(dict(_next_values(replay, draw)))
        _run(replay, study)
        yield replay.found()


def _run(replay: Replay, study: optuna.Study) -> None:
    """Runs the study's next trial."""
    asked = study.ask(replay.world.distributions)
    trial = replay.begin(asked.params)
    for accuracy in replay.train(trial):
        asked.report(accuracy, step=len(trial.accuracies))
        if not trial.is_over and asked.should_prune():
            trial.is_over = True
            study.tell(asked, state=TrialState.PRUNED)
            return
    if replay.is_whole(trial):
        study.tell(asked, max(trial.accuracies))
    else:
        study.tell(asked, state=TrialState.FAIL)


def paused(replay: Replay, draw: Draw, rungs: Rungs) -> Iterator[Found]:
    """Draws of imgcls without end that pause at rungs and are promoted."""
    while True:
        best = {trial.number: trial.best for trial in replay.trials if trial.accuracies}
        waiting = [trial.number for trial in replay.trials if not trial.is_over]
        number = rungs.promoted(best, is_all_drawn=False, paused=waiting)
        trial = replay.begin(_next_values(replay, draw)) if number is None else replay.trials[number]
        list(replay.train(trial, rungs.next_after(len(trial.accuracies))))
        yield replay.found()


def _next_values(replay: Replay, draw: Draw) -> Values:
    return draw(replay.frozen()) if replay.trials else replay.world.values[replay.first]
