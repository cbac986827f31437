"""A sweep's time budget: what fits into it, what is kept for its end, and when its search is over. Numbers alone."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from imgcls.errors import InputError
from imgcls.text import counted, duration

LEAST_BUDGET = 10.0
"""Shortest budget in seconds; a sweep takes longer than that to begin and to end."""

MOST_FOR_CONFIRMATION = 0.5
"""Share of the time for training that a confirmation takes at most; for more, fewer runs are confirmed."""

FEW_TRAININGS = 4
"""Number of whole trainings below which a search has little to choose from."""

A_LITTLE = 0.02
"""Share of the budget in which no further trial begins."""

RESERVE = 1.15
"""Factor on what an end is expected to take."""

START_SECONDS = 7.0
"""Seconds after which workers begin their first runs: they, or the server that forks them, import the libraries."""


def parse_budget(text: str) -> float:
    """Seconds of a budget such as `30m`, `2h`, `1h30m` or `90s`.

    Raises:
        InputError: another text, or less than ten seconds.
    """
    found = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", text.strip().lower())
    if not text.strip() or found is None:
        raise InputError(f"--budget {text!r}: give hours, minutes or seconds, such as 30m, 2h, 1h30m or 90s")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = 3600.0 * hours + 60.0 * minutes + seconds
    if total < LEAST_BUDGET:
        raise InputError(
            f"--budget {text!r} is less than {LEAST_BUDGET:.0f} s, in which no sweep begins and ends; give "
            "30s or more, such as 30m"
        )
    return total


@dataclass(frozen=True)
class Budget:
    """A time budget of a whole sweep, from its command to its end.

    Attributes:
        seconds: in all.
        keeps_trials: whether the number of trials was given too; otherwise as many are run as fit.
        began: when the command was given, in seconds since 1970.
    """

    seconds: float
    keeps_trials: bool = False
    began: float = field(default_factory=time.time)

    def left(self) -> float:
        """Seconds that are left; negative once it is over."""
        return self.began + self.seconds - time.time()


class SearchTime:
    """The time of a search within a budget, with what it has learnt of how long things take here.

    Args:
        budget: of the whole sweep.
        num_epochs: of a whole training; with folds, those of all folds.
        epoch_seconds: of an epoch, as measured beforehand.
        report_seconds: that figures and reports take at the end.
        confirm: configurations and fresh seeds of each that a confirmation is asked for; seeds are 0 without one.
        num_workers: trials side by side.
        num_folds: of a training; 0: one val.
    """

    def __init__(
        self, budget: Budget, *, num_epochs: int, epoch_seconds: float, report_seconds: float,
        confirm: tuple[int, int] = (0, 0), num_workers: int = 1, num_folds: int = 0,
    ) -> None:  # fmt: skip
        self.budget = budget
        self.num_epochs, self.num_workers, self.num_folds = num_epochs, num_workers, num_folds
        self.epoch_seconds, self.trial_seconds = epoch_seconds, 0.5 * max(1, num_folds)
        self.report_seconds = report_seconds
        self._asked = confirm
        self._for_training = max(0.0, budget.left() - report_seconds)
        self._learnt: list[tuple[int, float]] = []

    def learn(self, num_epochs: int, epoch_seconds: float, seconds: float) -> None:
        """Learns from a trial that did `num_epochs` epochs of `epoch_seconds` each in `seconds` in all."""
        if num_epochs > 0:
            self._learnt.append((num_epochs, epoch_seconds))
            done = sum(epochs for epochs, _ in self._learnt)
            self.epoch_seconds = sum(epochs * each for epochs, each in self._learnt) / done
            beside = max(0.0, seconds - num_epochs * epoch_seconds)
            self.trial_seconds += (beside - self.trial_seconds) / len(self._learnt)

    def training(self, num_epochs: float | None = None) -> float:
        """Seconds of a training of so many epochs; of a whole one by default."""
        return (self.num_epochs if num_epochs is None else num_epochs) * self.epoch_seconds + self.trial_seconds

    def confirmation(self) -> tuple[int, int]:
        """Configurations and seeds of a confirmation that leaves the search enough time; (0, 0) for none."""
        seconds = max(0.0, MOST_FOR_CONFIRMATION * self._for_training - self.start_seconds())
        return fewer_confirmed(*self._asked, self.num_workers * int(seconds / self.training()))

    def confirming(self, top: int, seeds: int) -> float:
        """Seconds of a confirmation, whose runs are trained side by side as the trials are."""
        return self.start_seconds() + math.ceil(top * seeds / self.num_workers) * self.training() if seeds else 0.0

    def start_seconds(self) -> float:
        """Seconds that the workers of a confirmation take to start; 0 where this process trains."""
        return START_SECONDS if self.num_workers > 1 else 0.0

    def for_the_end(self) -> float:
        """Seconds that are kept for the end: report, confirmation, and the report of that."""
        return self._reports() + self.confirming(*self.confirmation())

    def _reports(self) -> float:
        """Seconds of the report, which a confirmation has written once more."""
        return self.report_seconds * (2 if self.confirmation()[1] else 1)

    def ends_at(self) -> float:
        """When the search is over, in seconds since 1970."""
        return self.budget.began + self.budget.seconds - self.for_the_end()

    def left(self) -> float:
        """Seconds that are left for the search; negative once it is over."""
        return self.ends_at() - time.time()

    def has_time_for_a_trial(self) -> bool:
        """Whether a further trial may begin; it is paused if it does not come to its end."""
        return self.left() > max(self.trial_seconds, A_LITTLE * self.budget.seconds)

    def has_time_for(self, num_epochs: int) -> bool:
        """Whether a training of so many epochs would end in the search's time, with something to spare."""
        return self.left() > RESERVE * self.training(num_epochs) + self.epoch_seconds

    def num_trials(self, epochs_of: Callable[[int], float]) -> int:
        """How many trials fit, at least 1; `epochs_of` says how many epochs a number of trials takes."""
        num = 1
        while (
            self.num_workers * self.left() >= epochs_of(num + 1) * self.epoch_seconds + (num + 1) * self.trial_seconds
        ):
            num += 1
        return num

    def in_words(self, num_trials: int, pruner: str) -> str:
        """What fits, and what is kept for the end, before the search begins."""
        top, seeds = self.confirmation()
        confirmed = f", {_short(self.confirming(top, seeds))} for {confirmation_in_words(top, seeds)}" if seeds else ""
        return (
            f"budget {duration(self.budget.seconds)}: a training of {self._training_in_words()} takes about "
            f"{_short(self.training())} as measured. {_short(self._reports())} are kept for figures and report"
            f"{confirmed}. Into the {_short(max(0.0, self.left()))} of the search fit about {self._num_whole():.3g} "
            f'whole trainings, or {counted(num_trials, "trial")} with search.pruner = "{pruner}"'
        )

    def warnings(self) -> list[str]:
        """What the user can change where little fits, and what of the confirmation does not."""
        found = []
        if self._num_whole() < FEW_TRAININGS:
            seconds = self.num_workers * max(0.0, self.left()) / FEW_TRAININGS - self.trial_seconds
            fitting = int(seconds / self.epoch_seconds) // max(1, self.num_folds)
            shorter = f"--set train.epochs={fitting}, smaller images" if fitting >= 1 else "smaller images"
            found.append(
                f"fewer than {FEW_TRAININGS} whole trainings fit into the budget; give a longer one, {shorter} or a "
                "smaller network"
            )
        if self._num_whole() < 1:
            winner = "the models of the folds that have run" if self.num_folds else "the best epoch"
            found.append(
                f"not even one whole training is expected to end in time; then the winner is {winner} of a trial "
                "that was not trained to its end, and its report says so"
            )
        if self._asked[1] and self.confirmation() != self._asked:
            top, seeds = self._asked
            found.append(
                f"{confirmation_in_words(top, seeds)} would take {_short(self.confirming(top, seeds))}, more than "
                f"half of the time; planned is {confirmation_in_words(*self.confirmation())}"
            )
        return found

    def _training_in_words(self) -> str:
        if not self.num_folds:
            return counted(self.num_epochs, "epoch")
        return f"{self.num_folds} folds with {counted(self.num_epochs // self.num_folds, 'epoch')} each"

    def _num_whole(self) -> float:
        return self.num_workers * max(0.0, self.left()) / self.training()


@dataclass(frozen=True)
class ConfirmationTime:
    """The time of a confirmation within a budget: what the search has left of it, less that of the last report.

    Attributes:
        share: of the search, which has learnt how long things take.
        report_seconds: that the report took without the confirmation.
    """

    share: SearchTime
    report_seconds: float

    def fitting(self, top: int, seeds: int, epochs: Sequence[int]) -> tuple[int, int]:
        """As much of a confirmation as fits; `epochs` are those of its configurations. (0, 0) where nothing does."""
        seconds = sum(map(self.share.training, epochs)) / len(epochs)
        rounds = max(0.0, self._left() - self.share.start_seconds()) / seconds
        return fewer_confirmed(top, seeds, self.share.num_workers * int(rounds))

    def has_time_for(self, num_epochs: int) -> bool:
        """Whether a further run of so many epochs ends in time."""
        return self._left() >= self.share.training(num_epochs)

    def _left(self) -> float:
        return self.share.budget.left() - self.report_seconds


def fewer_confirmed(top: int, seeds: int, most: int) -> tuple[int, int]:
    """As many configurations and seeds of each as make at most `most` runs; two seeds come before more configurations.

    Returns:
        (0, 0) where not even one run fits.
    """
    pairs = [(t, s) for t in range(1, top + 1) for s in range(1, seeds + 1) if t * s <= most]
    return max(pairs, key=lambda pair: (min(pair[1], 2), pair[0] * pair[1], pair[0]), default=(0, 0))


def confirmation_in_words(top: int, seeds: int) -> str:
    """A confirmation in words, such as `a confirmation of 3 configurations with 2 fresh seeds`."""
    if not seeds:
        return "no confirmation"
    return f"a confirmation of {counted(top, 'configuration')} with {counted(seeds, 'fresh seed')}"


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
