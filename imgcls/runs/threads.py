"""How many CPU threads a run gets: a few of its steps are timed with each number that comes into question."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch

from imgcls.data.loader import Loader
from imgcls.errors import TrainingError
from imgcls.machine import own_memory
from imgcls.runs.prepare import Prepared
from imgcls.terminal import waiting
from imgcls.text import counted
from imgcls.training.loop import TrainState
from imgcls.training.pace import quick_batch, timed_steps

log = logging.getLogger(__name__)

MOST_STEPS, MOST_SECONDS = 16, 1.2
"""Number of steps that are timed with each number of threads, and seconds after which no further one begins."""

WORTH = 1.05
"""Gain in speed for which more threads are used: with fewer, more is left for other programs."""


@dataclass(frozen=True)
class Speeds:
    """How fast a run trains here and now.

    Attributes:
        images_per_second: number of CPU threads -> train images a second; empty where a loss is not finite.
        memory: bytes that a process needs which trains it; None where the system does not tell.
    """

    images_per_second: Mapping[int, float]
    memory: int | None

    def best_of(self, numbers: Iterable[int]) -> int:
        """The fewest of these numbers of threads with which training is about as fast as with the best."""
        known = [number for number in numbers if number in self.images_per_second]
        if not known:
            return max(numbers)
        fastest = max(self.images_per_second[number] for number in known)
        return min(number for number in known if WORTH * self.images_per_second[number] >= fastest)

    def __str__(self) -> str:
        """Such as `440 images/s with 1 thread, 630 with 2`."""
        first, *others = sorted(self.images_per_second.items())
        words = [f"{first[1]:.0f} images/s with {counted(first[0], 'thread')}"]
        return ", ".join([*words, *(f"{speed:.0f} with {number}" for number, speed in others)])


def with_threads(prepared: Prepared) -> Prepared:
    """A run about to begin with its number of threads: where `train.threads` is `auto`, the fastest here and now."""
    if prepared.experiment.train.threads != "auto":
        return prepared
    speeds = measured_speeds(prepared, numbers_of_threads(prepared.device.threads))
    threads = speeds.best_of(numbers_of_threads(prepared.device.threads))
    if speeds.images_per_second:
        log.info('train.threads = "auto": %s (%s)', counted(threads, "thread"), speeds)
    return prepared.with_threads(threads)


def numbers_of_threads(most: int) -> list[int]:
    """Numbers of threads that are tried, the largest first: all, all but one, and halves down to one."""
    halves = [most >> shift for shift in range(most.bit_length())]
    return sorted({most, max(1, most - 1), *halves}, reverse=True)


def measured_speeds(prepared: Prepared, numbers: Iterable[int]) -> Speeds:
    """Times steps of a run's own task with each of these numbers of threads; torch's random state stays as it was."""
    prepared = prepared.of_fold(1) if prepared.has_folds else prepared  # each fold is trained as it is
    task, config = prepared.task(), prepared.experiment.train
    batch = quick_batch(config.batch_size, prepared.experiment.data.image_size)
    quick = replace(task, train=Loader(prepared.dataset.train, batch, prepared.device.torch_device))
    with waiting("timing a few steps"), torch.random.fork_rng(devices=[]):
        before = own_memory()
        state = TrainState.start(prepared.model(with_weights=False), config, prepared.device)
        try:
            steps = timed_steps(quick, state, list(numbers), most_steps=MOST_STEPS, most_seconds=MOST_SECONDS)
        except TrainingError:  # the run will say so itself
            steps = {}
        after = own_memory()
    torch.set_num_threads(prepared.device.threads)
    batch = min(batch, len(prepared.dataset.train))
    speeds = {number: batch / median(each) for number, each in steps.items()}
    if before is None or after is None:
        return Speeds(speeds, None)
    return Speeds(speeds, after + int((after - before) * (config.batch_size / batch - 1)))
