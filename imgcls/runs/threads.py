"""How many CPU threads a run gets: a few of its steps are timed with each number that comes into question."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from imgcls.data.loader import Loader
from imgcls.errors import TrainingError
from imgcls.machine import own_memory
from imgcls.runs.prepare import Prepared
from imgcls.terminal import waiting
from imgcls.text import counted
from imgcls.training.pace import quick_batch, timed_steps

log = logging.getLogger(__name__)

MOST_STEPS, MOST_SECONDS = 16, 1.2
"""Number of steps that are timed with each number of threads, and seconds after which no further one begins."""

WORTH = 1.05
"""Gain in speed for which more threads are used: with fewer, more is left for other programs."""

WORTH_OF_ALL_CORES = 1.3
"""Gain in speed for which no core is left free. A program that starts later takes most of the speed of a run that
computes on every core: two threads kept 0.01 to 0.3 of it on 2 cores, and one thread 0.6 or more (docs/speed.md)."""


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

    def best_of_one_run(self, numbers: Sequence[int]) -> int:
        """As `best_of`, but the largest number, which uses every core, has to gain what `WORTH_OF_ALL_CORES` says."""
        fewer = [number for number in numbers if number < max(numbers)]
        best = self.best_of(numbers)
        if best != max(numbers) or not (self.images_per_second.keys() & set(fewer)):
            return best
        best_of_fewer = self.best_of(fewer)
        gain = self.images_per_second[best] / self.images_per_second[best_of_fewer]
        return best if gain >= WORTH_OF_ALL_CORES else best_of_fewer

    def __str__(self) -> str:
        """Such as `440 images/s with 1 thread, 630 with 2`."""
        first, *others = sorted(self.images_per_second.items())
        words = [f"{first[1]:.0f} images/s with {counted(first[0], 'thread')}"]
        return ", ".join([*words, *(f"{speed:.0f} with {number}" for number, speed in others)])


def with_threads(prepared: Prepared) -> Prepared:
    """A run about to begin with its number of threads: where `train.threads` is `auto`, the fastest here and now."""
    if prepared.experiment.train.threads != "auto":
        return prepared
    numbers = numbers_of_threads(prepared.device.threads)
    speeds = measured_speeds(prepared, numbers)
    threads = speeds.best_of_one_run(numbers)
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
    config, before = prepared.experiment.train, own_memory()
    quick, state = prepared.begin(with_weights=False)
    batch = config.batch_size
    if not config.head_only and (fits := quick_batch(batch, prepared.experiment.data.image_size)) < batch:
        batch = fits
        quick = replace(quick, train=Loader(prepared.dataset.train, batch, prepared.device.torch_device))
    with waiting("timing a few steps"), torch.random.fork_rng(devices=[]):
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
