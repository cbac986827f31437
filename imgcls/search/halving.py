"""Pause and promote: which trial of a sweep goes on, which waits, and which can end. Numbers alone, no study.

Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv
1810.05934): a trial pauses at each rung, and goes on from there once it is among the best 1 / factor of all that
reached the rung. Nobody waits for a rung to be full.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

FACTOR, FACTOR_OF_FOLDS = 3.0, 4.0
"""By which the epochs, or the folds, of one rung differ from those of the next; one of so many trials goes on.

Replays of recorded trainings chose them: docs/searching.md and docs/folds.md.
"""

Best = Mapping[int, Sequence[float]]
"""Number of a trial -> its best value after each completed epoch, the higher the better; of a trial in folds, the mean
over the folds that have run, after each fold.

Every trial that completed an epoch is in it, also one that was pruned or failed later: it keeps the place it had. A
trial that was trained to its end in fewer epochs than a rung has keeps its last value up to the last rung.
"""


@dataclass(frozen=True)
class Rungs:
    """Rungs of pause and promote.

    Attributes:
        epochs: after which trials pause, ascending; the last is that of a whole training, where nobody pauses. Of
            trials in folds, these are folds.
        factor: one of so many trials goes on from a rung; above 1.
    """

    epochs: tuple[int, ...]
    factor: float = FACTOR

    @classmethod
    def of(cls, first: int, last: int, factor: float = FACTOR) -> Rungs:
        """Rungs a factor apart, of which the highest is at `last`, and none is before `first`.

        Where `last` is less than `factor` times `first`, there is only one rung, and no trial pauses.
        """
        epochs = [last]
        while epochs[0] / factor >= max(1, first) - 1e-9:
            epochs.insert(0, round(epochs[0] / factor))
        return cls(tuple(epochs), factor)

    @classmethod
    def of_trials(cls, first: int, num_epochs: int, num_folds: int = 0) -> Rungs:
        """Rungs of trials of so many epochs, none before epoch `first`; of trials in folds, their rungs are folds."""
        return cls.of(1, num_folds, FACTOR_OF_FOLDS) if num_folds else cls.of(first, num_epochs)

    @classmethod
    def latest_first(cls, last: int, factor: float = FACTOR) -> int:
        """The latest epoch that can be the first rung, so that trials still pause before `last`; at least 1."""
        return max(1, int(last / factor))

    def next_after(self, epoch: int) -> int | None:
        """The epoch at which a trial that has completed `epoch` epochs pauses next; None: it is trained to its end."""
        return next((rung for rung in self.epochs[:-1] if rung > epoch), None)

    def last_reached(self, epoch: int) -> int:
        """The rung at which a trial waits that was paused after `epoch` epochs; 0 where that is before the first one.

        It is `epoch` itself, unless the trial was paused by an earlier version, which had other rungs.
        """
        return max((rung for rung in self.epochs[:-1] if rung <= epoch), default=0)

    def promoted(
        self, best: Best, *, is_all_drawn: bool, paused: Collection[int] | None = None, is_idle: bool = True
    ) -> int | None:
        """The trial that goes on, one of the highest rung that has any; None where none does.

        A trial that was paused before the first rung goes on to it. Once all trials are drawn, and nothing else is
        under way, the best one that is paused goes on until a trial has been trained to its end, however few there are.

        Args:
            best: of the trials.
            is_all_drawn: whether no further trial will begin.
            paused: numbers of the trials that wait at a rung; by default those whose last epoch is one.
            is_idle: whether no trial is under way.
        """
        paused = self._at_a_rung(best) if paused is None else paused
        for rung in reversed(self.epochs[:-1]):
            ranked = ranking(best, rung)
            for number in ranked[: int(len(ranked) / self.factor)]:
                if number in paused and self.last_reached(len(best[number])) == rung:
                    return number
        if before_first := self._waiting(0, best, paused):
            return before_first[0]
        if is_all_drawn and is_idle and not self._any_completed(best):
            return next(iter(self.reserve(best, paused)), None)
        return None

    def hopeless(self, best: Best, ended: Collection[int], paused: Collection[int], num_trials: int) -> list[int]:
        """Paused trials that will never go on, whatever values come, in the order of their rungs and numbers.

        At most `num_trials`, less those that ended before, can reach a rung. A trial behind the best 1 / factor of so
        many stays behind: others can only come in front of it. So long as no trial was trained to its end, the first
        paused one of each rung is kept, in case all those before it fail.

        Args:
            best: of the trials.
            ended: numbers of the trials that completed, failed or were pruned.
            paused: numbers of the trials that wait at a rung.
            num_trials: that the sweep has at most.
        """
        kept = [] if self._any_completed(best) else self.reserve(best, paused)
        found: list[int] = []
        for rung in self.epochs[:-1]:
            gone = sum(len(best.get(number, ())) < rung for number in (*ended, *found))
            places = max(1, int((num_trials - gone) / self.factor))
            behind = ranking(best, rung)[places:]
            here = self._waiting(rung, best, paused)
            found += sorted(n for n in behind if n in here and n not in kept)
        return found

    def excess(self, best: Best, paused: Collection[int], most: int) -> list[int]:
        """Paused trials beyond the best `most`: the worst of the lowest rung first."""
        order = [n for rung in (0, *self.epochs[:-1]) for n in reversed(self._waiting(rung, best, paused))]
        return order[: max(0, len(order) - most)]

    def num_epochs(self, num_trials: float) -> float:
        """About how many epochs so many trials take: each rung sends on the best 1 / factor of those that reach it."""
        total, before = 0.0, 0
        for place, rung in enumerate(self.epochs):
            total += max(1.0, num_trials / self.factor**place) * (rung - before)
            before = rung
        return total

    def num_epochs_each(self, num_trials: int, num_workers: int) -> int:
        """Epochs of the worker that ends last, where several share so many trials, roughly.

        The trials that reach a rung are taken to be trained in rounds, one for each worker at a time.
        """
        total, before = 0, 0
        for place, rung in enumerate(self.epochs):
            num_here = math.ceil(num_trials / self.factor**place)
            total += math.ceil(num_here / num_workers) * (rung - before)
            before = rung
        return total

    def _any_completed(self, best: Best) -> bool:
        return any(len(values) >= self.epochs[-1] for values in best.values())

    def _at_a_rung(self, best: Best) -> set[int]:
        return {number for number, values in best.items() if len(values) in self.epochs[:-1]}

    def reserve(self, best: Best, paused: Collection[int]) -> list[int]:
        """The first paused trial of each rung, the highest rung first: who goes on where one has to."""
        of_rungs = (self._waiting(rung, best, paused) for rung in reversed((0, *self.epochs[:-1])))
        return [waiting[0] for waiting in of_rungs if waiting]

    def _waiting(self, rung: int, best: Best, paused: Collection[int]) -> list[int]:
        """The paused trials of a rung, the best one first; of rung 0, those that were paused before the first one."""
        here = {number for number in paused if self.last_reached(len(best[number])) == rung}
        return [number for number in ranking(best, max(1, rung)) if number in here]


def ranking(best: Best, rung: int) -> list[int]:
    """Pause and promote's ranking of the trials that reached a rung, by the best value until then; ties by number."""
    reached = (number for number in best if len(best[number]) >= rung)
    return sorted(reached, key=lambda number: (-best[number][rung - 1], number))
