"""How long a step takes here: a few real steps of a task, timed with one number of threads or with several in turn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from imgcls.training.loop import Task, TrainState, fit

MOST_PIXELS = 8 * 224 * 224
"""Most pixels of a timed step on a CPU. In a larger batch, an image takes about as long."""

ENDLESS = 1_000_000
"""Epochs of a task that is trained only until enough of its steps are timed."""


def quick_batch(batch_size: int, side: int) -> int:
    """The batch size, halved until a step has no more than `MOST_PIXELS`."""
    while batch_size > 1 and batch_size * side**2 > MOST_PIXELS:
        batch_size //= 2
    return batch_size


def timed_steps(
    task: Task, state: TrainState, threads: Sequence[int], *, most_steps: int, most_seconds: float
) -> dict[int, list[float]]:
    """Times steps of the loop with each number of CPU threads in turn, so that a change of the machine meets them all.

    The loop's own state is trained, at a learning rate of 0 and with nothing frozen. The first step with each number
    is not counted, since it prepares what later ones find. Torch is left with one of the numbers.

    Args:
        task: what is trained.
        state: before its first step.
        threads: numbers of CPU threads.
        most_steps: steps of each that are counted at most, at least 1.
        most_seconds: after which no further one begins, once each number has a step that counts.

    Returns:
        Seconds of the steps, for each number of threads.

    Raises:
        TrainingError: a loss is not finite.
    """
    still = {"epochs": ENDLESS, "warmup_epochs": 0, "score_epoch": 0, "patience": 0, "lr": 0.0, "freeze_epochs": 0}
    task = replace(task, config=task.config.model_copy(update=still))
    seconds: dict[int, list[float]] = {number: [] for number in threads}
    turns = itertools.cycle(threads)
    begun, before, number = time.perf_counter(), 0.0, next(turns)

    def after_step(state: TrainState) -> None:
        nonlocal before, number
        _ = state.loss_sum  # waits for the device
        seconds[number].append(state.seconds - before)
        before = 0.0 if state.step == task.train.steps_per_epoch else state.seconds
        number = next(turns)
        torch.set_num_threads(number)

    def is_enough() -> bool:
        fewest = min(map(len, seconds.values())) - 1
        return fewest >= most_steps or (fewest >= 1 and time.perf_counter() - begun > most_seconds)

    torch.set_num_threads(number)
    for _ in fit(task, state, is_enough, after_step):
        pass
    return {number: steps[1:] for number, steps in seconds.items()}
