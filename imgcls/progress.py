"""Progress of a run for a person: a bar per epoch on a terminal, one line an epoch elsewhere; all on stderr."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

from imgcls import terminal
from imgcls.reporting.statistics import accuracy_interval, rounded, with_interval
from imgcls.training.loop import TrainState
from imgcls.training.metrics import EpochResult

SECONDS_BETWEEN_UPDATES = 0.2


class RunProgress:
    """Shows one run.

    Args:
        title: what the run is called.
        num_epochs: epochs in all.
        steps_per_epoch: steps in each.
        num_val: images behind the val scores, which are shown with the digits that so many support.
        seconds: spent on the epochs that an earlier sitting completed.
    """

    def __init__(self, title: str, num_epochs: int, steps_per_epoch: int, num_val: int, seconds: float = 0.0) -> None:
        self._title = title
        self._num_epochs = num_epochs
        self._steps = steps_per_epoch
        self._num_val = num_val
        self._bar: tqdm[Any] | None = None
        self._updated = 0.0
        self._seconds = seconds

    def on_step(self, state: TrainState) -> None:
        """Moves the bar, a few times a second."""
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

    def on_epoch(self, result: EpochResult, is_best: bool) -> None:
        """Prints the epoch's line."""
        self.close()
        self._seconds += result.seconds
        left = self._seconds / result.epoch * (self._num_epochs - result.epoch) if result.epoch else 0.0
        digits = accuracy_interval(result.val_accuracy, self._num_val)
        line = (
            f"{self._title} epoch {result.epoch:>3}/{self._num_epochs}  train/loss {result.train_loss:.3f}  "
            f"val/loss {rounded(result.val_loss, digits)}  "
            f"val/accuracy {with_interval(result.val_accuracy, digits)}{' *' if is_best else '  '} "
            f"{result.images_per_second:6.0f} images/s  {duration(left)} left"
        )
        tqdm.write(line, file=terminal.stderr())

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """Such as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
