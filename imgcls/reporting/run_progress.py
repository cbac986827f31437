"""Progress of a run for a person: a bar per epoch on a terminal, one line an epoch elsewhere; all on stderr."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from imgcls import terminal
from imgcls.metrics import ACCURACY, LOSS
from imgcls.record import MetricName
from imgcls.reporting.rounding import rounded, with_interval
from imgcls.statistics.intervals import Interval
from imgcls.text import PARTS, duration
from imgcls.training.epoch import EpochResult
from imgcls.training.loop import TrainState

SECONDS_BETWEEN_UPDATES = 0.2


class Pace:
    """The pace of progress: estimates the time left of a run or sweep, by what this sitting alone has done.

    Args:
        done: what earlier sittings did, in epochs, trials or whatever is counted.
        now: seconds of a clock.
    """

    def __init__(self, done: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._done = done
        self._now = now
        self._begun = now()

    def seconds_each(self, done: float) -> float | None:
        """Seconds for each, where all sittings together have done `done`; None as long as this one has done nothing."""
        return (self._now() - self._begun) / (done - self._done) if done > self._done else None

    def left(self, done: float, total: float, most: float = math.inf) -> str:
        """The time left in words, where all sittings together have done `done` of `total`; `most` seconds at most."""
        if done >= total or most <= 0:
            return "0 s left"
        each = self.seconds_each(done)
        return "time left not known yet" if each is None else f"{duration(min(most, each * (total - done)))} left"


@dataclass(frozen=True)
class Outlook:
    """What the progress of a trial has to know of its sweep, to tell the time left of all of it.

    Attributes:
        num_waiting: trials that nobody has begun once every worker has one.
        num_workers: that share them.
        seconds_each: after how many seconds another trial of the sweep has ended, on average; None as long as this
            sitting has ended none, so that the others are taken to be like the trial itself.
        seconds_to_timeout: of `search.timeout` that were left when the trial was given out; no trial begins after it.
        fold: of a trial in folds the one that is training, from 1.
        num_folds: that a trial has.
    """

    num_waiting: float
    num_workers: int
    seconds_each: float | None
    seconds_to_timeout: float = math.inf
    fold: int = 1
    num_folds: int = 1

    def left(self, seconds_an_epoch: float, done: float, total: float, elapsed: float = 0.0) -> str:
        """The time left of the sweep in words, where the trial has done `done` of `total` epochs in `elapsed` s.

        With folds, all three are of the fold.
        """
        a_trial = seconds_an_epoch * total * self.num_folds
        this = seconds_an_epoch * (total * (1 + self.num_folds - self.fold) - done)
        others = self.seconds_each or a_trial / self.num_workers
        rest = self.seconds_to_timeout - elapsed - this
        most = rest + a_trial if rest > 0 else 0.0  # a trial that began in time is trained to its end
        return f"{duration(this + min(others * self.num_waiting, most))} in the sweep"


class RunProgress:
    """The progress of one run, shown to a person.

    Args:
        title: what the run is called; lines of epochs have its first part alone.
        num_epochs: epochs in all.
        steps_per_epoch: steps in each.
        metric: what selects, such as `val/accuracy`.
        done: epochs that earlier sittings completed, with the share of one that was begun.
        outlook: of the sweep of which it is a trial.
        pause_at: the epoch after which it pauses, which ends its time; 0: it does not.
        now: seconds of a clock.
    """

    def __init__(
        self, title: str, num_epochs: int, steps_per_epoch: int, metric: str, done: float = 0.0,
        outlook: Outlook | None = None, pause_at: int = 0, now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._until = pause_at or num_epochs
        self._outlook = outlook
        self._metric = metric
        self._title = title
        self._num_epochs = num_epochs
        self._steps = steps_per_epoch
        self._bar: tqdm[Any] | None = None
        self._updated = 0.0
        self._pace = Pace(done, now)
        self._now, self._begun = now, now()

    def on_step(self, state: TrainState) -> None:
        """Moves the progress bar, a few times a second."""
        now = time.perf_counter()
        if not terminal.stderr().isatty() or (
            now - self._updated < SECONDS_BETWEEN_UPDATES and state.step < self._steps
        ):
            return
        self._updated = now
        if self._bar is None:
            self._bar = tqdm(total=self._steps, file=terminal.stderr(), leave=False, unit="step", dynamic_ncols=True)
            self._bar.set_description(f"{self._title} epoch {state.epoch + 1}/{self._num_epochs}")
        self._bar.n = state.step
        self._bar.set_postfix(
            {
                "loss": f"{state.loss_sum / max(1, state.num_images):.3f}",
                "lr": f"{state.optimizer.param_groups[0]['lr']:.1e}",
                "images/s": f"{state.num_images / max(1e-9, state.seconds):.0f}",
            }
        )

    def on_epoch(self, result: EpochResult, is_best: bool, interval: Interval) -> None:
        """Prints the line of a completed epoch; `interval` is that of its val accuracy and rounds its scores."""
        self.close()
        selecting = ""
        if self._metric not in (LOSS.on_val, ACCURACY.on_val):
            selecting = f"  {self._metric} {rounded(result.value(self._metric), interval)}"
        line = (
            f"{self._title.partition(PARTS)[0]} epoch {result.epoch:>3}/{self._num_epochs}  "
            f"{MetricName.TRAIN_LOSS} {result.train_loss:.3f}  {LOSS.on_val} {rounded(result.val_loss, interval)}  "
            f"{ACCURACY.on_val} {with_interval(result.val_accuracy, interval)}{selecting}{' *' if is_best else '  '} "
            f"{result.images_per_second:6.0f} images/s  {self._left(result.epoch)}"
        )
        tqdm.write(line, file=terminal.stderr())

    def _left(self, epoch: int) -> str:
        """The time left of the run, and of its sweep."""
        left, each = self._pace.left(epoch, self._until), self._pace.seconds_each(epoch)
        if self._outlook is None or each is None:
            return left
        of_sweep = self._outlook.left(each, epoch, self._until, self._now() - self._begun)
        return f"{left} in this {'trial' if self._outlook.num_folds == 1 else 'fold'}, {of_sweep}"

    def close(self) -> None:
        """Takes the progress bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
