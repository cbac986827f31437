"""How far a sitting trains a run: up to a point in time, or no further at all."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from imgcls.errors import Interrupted, OutOfTime
from imgcls.signals import stop_requested
from imgcls.training.loop import Task, TrainState, is_over


@dataclass(frozen=True)
class Limits:
    """Limits of a sitting beside the requests to stop, which it answers too.

    Attributes:
        until: seconds since 1970 at which the run stops after a step, and is paused.
        least_epochs: epochs that are completed however late it is; with folds, any number above 0 stands for the whole
            first fold.
        ends_early: whether it is trained no more, and completed with the epochs, or the folds, that it has.
    """

    until: float = math.inf
    least_epochs: int = 0
    ends_early: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the time of this sitting is over."""
        return time.time() >= self.until

    def of_fold(self, number: int, num_epochs: int) -> Limits:
        """Limits of one fold. If `least_epochs` is set, the first fold is trained to its end.

        Args:
            number: of the fold, from 1.
            num_epochs: of a fold.
        """
        least = num_epochs if self.least_epochs and number == 1 else 0
        return Limits(self.until, least)

    def are_reached(self, state: TrainState) -> bool:
        """Whether the run stops here."""
        return bool(stop_requested()) or (self.is_over and state.epoch >= self.least_epochs)

    def cut(self, task: Task, state: TrainState) -> Interrupted | None:
        """The error of a run that stopped before its end; None of one that came to its end unasked."""
        after = f"epoch {state.epoch + 1}, step {state.step}" if state.step else f"epoch {state.epoch}"
        if by := stop_requested():
            return Interrupted(f"stopped by {by} after {after}")
        if is_over(task, state):
            return None
        if self.is_over:
            return OutOfTime(f"paused after {after}, because its time was over")
        return Interrupted(f"stopped after {after} by a signal to another of the processes that train it")


NO_LIMITS = Limits()
