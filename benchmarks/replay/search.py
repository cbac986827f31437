"""A search replayed in a world of recorded trainings, one worker, trial-seconds alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.replay.world import World

Values = dict[str, Any]


class Found(NamedTuple):
    """What a search would hand over if it ended now.

    Attributes:
        seconds: of training until then.
        trials: that were begun until then.
        regret: of its best trial that was trained to its end, by the seeds that it did not see; None before there is one.
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
        best: accuracy of the best epoch after each epoch that was trained.
        is_over: completed, failed or pruned for good.
    """

    number: int
    values: Values
    configuration: int
    best: list[float] = field(default_factory=list)
    is_over: bool = False


def distributions(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """A search space in Optuna's terms."""
    found: dict[str, BaseDistribution] = {}
    for key, options in space.items():
        if isinstance(options, list):
            found[key] = CategoricalDistribution(options)
        elif isinstance(options["low"], int):
            found[key] = IntDistribution(options["low"], options["high"], log=options.get("log", False))
        else:
            found[key] = FloatDistribution(options["low"], options["high"], log=options.get("log", False))
    return found


class Replay:
    """One search in one world with one seed.

    Args:
        world: where it searches.
        seen: the recorded seed that it sees.
        first: the configuration that is given to it as its first trial.
    """

    def __init__(self, world: World, seen: int, first: int) -> None:
        self.world, self.seen, self.first = world, seen, first
        self.space = distributions(world.table.space)
        self.seconds = 0.0
        self.trials: list[Trial] = []

    def begin(self, values: Values) -> Trial:
        """A new trial."""
        trial = Trial(len(self.trials), values, self.world.nearest(values))
        self.trials.append(trial)
        return trial

    def train(self, trial: Trial, until: int) -> Iterator[float]:
        """Trains a trial up to this epoch, whole epochs; yields the accuracy of each."""
        curve = self.world.accuracy[trial.configuration, self.seen]
        while len(trial.best) < until:
            epoch = len(trial.best)
            self.seconds += self.world.seconds[trial.configuration, epoch]
            if math.isnan(curve[epoch]):
                trial.is_over = True
                return
            trial.best.append(max([*trial.best[-1:], curve[epoch]]))
            yield float(curve[epoch])

    def found(self) -> Found:
        """The winner by what the search sees: the best of the trials that were trained to their end."""
        whole = [trial for trial in self.trials if len(trial.best) == self.world.num_epochs]
        if not whole:
            return Found(self.seconds, len(self.trials), None)
        winner = max(whole, key=lambda trial: (trial.best[-1], -trial.number))
        return Found(self.seconds, len(self.trials), self.world.regret(winner.configuration, self.seen))


# --- each trial until it ends or is pruned ------------------------------------------------------------------------


def straight(
    replay: Replay, make_sampler: Callable[[int], BaseSampler], pruner: BasePruner, num_trials: int
) -> Iterator[Found]:
    """Plain Optuna: trial after trial, each to its end unless the pruner stops it.

    Args:
        replay: the world.
        make_sampler: number of the trial -> its sampler; the same object each time keeps its own state.
        pruner: asked after each epoch.
        num_trials: in all.
    """
    study = optuna.create_study(direction="maximize", sampler=make_sampler(0), pruner=pruner)
    study.enqueue_trial(replay.world.values[replay.first])
    for number in range(num_trials):
        study.sampler = make_sampler(number)
        asked = study.ask(replay.space)
        trial = replay.begin(dict(asked.params))
        is_pruned = False
        for accuracy in replay.train(trial, replay.world.num_epochs):
            asked.report(accuracy, step=len(trial.best))
            if len(trial.best) < replay.world.num_epochs and asked.should_prune():
                is_pruned = True
                break
        if trial.is_over:
            study.tell(asked, state=TrialState.FAIL)
        elif is_pruned:
            study.tell(asked, state=TrialState.PRUNED)
        else:
            study.tell(asked, trial.best[-1])
        trial.is_over = True
        yield replay.found()


# --- pause and promote --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rungs:
    """Epochs at which trials are paused, ascending; the last is that of a whole training.

    A trial is promoted where it is among the best 1 / factor of those that reached its rung (asynchronous successive
    halving, Li et al. 2020, arXiv 1810.05934).
    """

    epochs: tuple[int, ...]
    factor: float

    @classmethod
    def of(cls, first: int, last: int, factor: float) -> Rungs:
        """Rungs a factor apart, the last one at `last`; the first at `first` or a little later."""
        epochs = [last]
        while epochs[0] / factor >= first - 1e-9:
            epochs.insert(0, round(epochs[0] / factor))
        return cls(tuple(epochs), factor)

    def promoted(self, best: Mapping[int, list[float]]) -> int | None:
        """The number of the trial that goes on: one of the highest rung that has any; None: a new one begins.

        Args:
            best: number -> best value after each epoch, the higher the better; of trials that did not fail.
        """
        for rung in reversed(self.epochs[:-1]):
            reached = sorted((number for number in best if len(best[number]) >= rung), key=lambda n: -best[n][rung - 1])
            for number in reached[: int(len(reached) / self.factor)]:
                if len(best[number]) == rung:
                    return number
        return None

    def next_after(self, epoch: int) -> int:
        """The rung that follows an epoch."""
        return next(rung for rung in self.epochs if rung > epoch)


def halving(
    replay: Replay, make_sampler: Callable[[int], BaseSampler], rungs: Rungs, num_trials: int,
    learns: Callable[[Replay], list[FrozenTrial]] | None = None,
) -> Iterator[Found]:  # fmt: skip
    """Pause and promote, with a sampler that draws from a copy of the study.

    Args:
        replay: the world.
        make_sampler: number of the trial -> its sampler.
        rungs: where trials are paused.
        num_trials: in all.
        learns: what the sampler sees of the trials; `as_trials` by default.
    """
    learns = learns or as_trials
    while True:
        best = {trial.number: trial.best for trial in replay.trials if not trial.is_over or trial.best}
        best = {n: b for n, b in best.items() if not replay.trials[n].is_over or len(b) == replay.world.num_epochs}
        number = rungs.promoted(best)
        if number is None and len(replay.trials) < num_trials:
            trial = replay.begin(_drawn(replay, make_sampler, learns))
        elif number is not None:
            trial = replay.trials[number]
        else:
            return
        list(replay.train(trial, rungs.next_after(len(trial.best))))
        trial.is_over = trial.is_over or len(trial.best) == replay.world.num_epochs
        yield replay.found()


def _drawn(
    replay: Replay, make_sampler: Callable[[int], BaseSampler], learns: Callable[[Replay], list[FrozenTrial]]
) -> Values:
    if not replay.trials:
        return dict(replay.world.values[replay.first])
    study = optuna.create_study(direction="maximize", sampler=make_sampler(len(replay.trials)))
    study.add_trials(learns(replay))
    return dict(study.ask(replay.space).params)


def as_trials(replay: Replay) -> list[FrozenTrial]:
    """The trials for a sampler that knows pruned ones: paused ones count as pruned after the epochs that they have."""
    return [
        create_trial(
            params=trial.values, distributions=replay.space,
            state=TrialState.COMPLETE if len(trial.best) == replay.world.num_epochs else TrialState.PRUNED,
            value=trial.best[-1], intermediate_values=dict(enumerate(trial.best, 1)),
        )
        for trial in replay.trials if trial.best
    ]  # fmt: skip


def at_a_rung(replay: Replay, rung: int) -> list[FrozenTrial]:
    """The trials by their values at one epoch, which most have reached: whole trials and paused ones alike."""
    return [
        create_trial(
            params=trial.values, distributions=replay.space, state=TrialState.COMPLETE, value=trial.best[rung - 1]
        )
        for trial in replay.trials if len(trial.best) >= rung
    ]  # fmt: skip
