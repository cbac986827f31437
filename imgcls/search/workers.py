"""How many trials of a sweep are trained side by side, with how many threads each; decided once for each sweep."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal

import torch

from imgcls.config.search_keys import SearchConfig
from imgcls.config.train_keys import TrainConfig
from imgcls.errors import ConfigError, InputError
from imgcls.machine import free_memory, usable_cores
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import Prepared
from imgcls.runs.threads import Speeds, measured_speeds, numbers_of_threads
from imgcls.search.budget import START_SECONDS
from imgcls.search.halving import Rungs
from imgcls.search.samplers import LEARNING
from imgcls.text import counted
from imgcls.training.device import most_threads

log = logging.getLogger(__name__)

WORTH = 1.1
"""Gain in time for which a sweep has more workers: with fewer, its order is closer to that of one worker."""

MEMORY_SHARE = 0.8
"""Share of the free memory that the workers of a sweep may take together."""


def order_matters(sampler: str, pruner: str) -> str:
    """What depends on the order in which trials end that several workers train, and what that means, in words."""
    of_sampler = ["what is tried next"] if sampler in LEARNING else []
    of_pruner = ["what is pruned"] if pruner != "none" else []
    if not (decided := " and ".join(of_sampler + of_pruner)):
        return "the order in which trials end changes none of them"
    return (
        f"which trial ends first decides {decided}, so the search cannot be repeated exactly; each of its trials can "
        "(imgcls rerun)"
    )


@dataclass(frozen=True)
class Share:
    """How a sweep shares the machine.

    Attributes:
        workers: trials side by side.
        threads: CPU threads of each; of several processes that train a trial, those of each process.
    """

    workers: int
    threads: int

    def __str__(self) -> str:
        """Such as `2 workers of 1 thread`."""
        return f"{counted(self.workers, 'worker')} of {counted(self.threads, 'thread')}"


@dataclass(frozen=True)
class Wanted:
    """What is to be shared.

    Attributes:
        workers: `search.workers`.
        threads: `train.threads`.
        cores: threads that all workers have together, at most.
        trials: of the sweep.
        images: that a trial trains on in an epoch; with folds, in all epochs of a fold.
        rungs: epochs, or folds, at which trials pause; the last is that of a whole training.
    """

    workers: Literal["auto"] | int
    threads: Literal["auto"] | int
    cores: int
    trials: int
    images: int
    rungs: Rungs

    def numbers_of_workers(self) -> list[int]:
        """Those that come into question, the smallest first; each has two trials at least, so that a search learns."""
        if self.workers != "auto":
            return [self.workers]
        threads = self.threads if self.threads != "auto" else 1
        most = max(1, min(self.cores // max(1, threads), self.trials // 2))
        return sorted({most, *(1 << shift for shift in range(most.bit_length()))})

    def numbers_of_threads(self, workers: int) -> list[int]:
        """Those that each of so many workers may have, the largest first."""
        if self.threads == "auto":
            return numbers_of_threads(max(1, self.cores // workers))
        return [self.threads or max(1, self.cores // workers)]

    @property
    def to_measure(self) -> list[int]:
        """Numbers of threads whose speed decides, the largest first; none where there is nothing to choose."""
        workers = self.numbers_of_workers()
        numbers = {number for each in workers for number in self.numbers_of_threads(each)}
        return sorted(numbers, reverse=True) if len(workers) * len(numbers) > 1 else []


def choose(wanted: Wanted, speeds: Speeds, free: int | None) -> Share:
    """The fewest workers that end the sweep about as soon as any number of them.

    It is assumed that workers do not slow one another, since no more threads than cores are given out. What further
    workers gain has to exceed a tenth.

    Args:
        wanted: what is to be shared.
        speeds: of one trial with each number of threads.
        free: bytes of memory that are free; None where that is not known.
    """
    shares = [Share(each, _threads(each, wanted, speeds)) for each in wanted.numbers_of_workers()]
    if free is not None and speeds.memory:
        room = MEMORY_SHARE * free // speeds.memory
        shares = [share for share in shares if share.workers <= room] or shares[:1]
    seconds = {share: _seconds(wanted, share, speeds) for share in shares}
    return next(share for share in shares if seconds[share] <= WORTH * min(seconds.values()))


def _threads(workers: int, wanted: Wanted, speeds: Speeds) -> int:
    best = speeds.best_of_one_run if workers == 1 else speeds.best_of
    return best(wanted.numbers_of_threads(workers))


def _seconds(wanted: Wanted, share: Share, speeds: Speeds) -> float:
    """Roughly the time of a sweep of which no trial ends early, unless trials pause."""
    start = START_SECONDS if share.workers > 1 else 0.0
    speed = speeds.images_per_second.get(share.threads)
    epochs = wanted.rungs.num_epochs_each(wanted.trials, share.workers)
    return start + epochs * wanted.images / speed if speed else math.inf


def new_share(prepared: Prepared, search: SearchConfig, train: TrainConfig, trials: int, rungs: Rungs) -> Share:
    """The share of a sweep that begins: numbers that the user gave, and for `auto` what a measurement chooses.

    Args:
        prepared: the experiment's own values, of which steps are timed.
        search: as the user has it.
        train: as the user has it.
        trials: that the sweep will have.
        rungs: epochs, or folds, at which they pause; the last is that of a whole training.
    """
    if prepared.device.torch_device.type != "cpu" or search.processes_per_trial > 1:
        most = min(_num_gpus(train) // search.processes_per_trial, trials // 2)
        return _divided(max(1, most) if search.workers == "auto" else search.workers, search, train)
    cores = most_threads() if train.threads else prepared.device.threads
    images, num_folds = len(prepared.dataset.train), prepared.dataset.num_folds
    if num_folds:
        images = train.last_epoch * images * (num_folds - 1) // num_folds
    wanted = Wanted(search.workers, train.threads, cores, trials, images, rungs)
    if not wanted.to_measure:
        workers = wanted.numbers_of_workers()[0]
        return Share(workers, wanted.numbers_of_threads(workers)[0])
    speeds = measured_speeds(prepared, wanted.to_measure)
    share = choose(wanted, speeds, free_memory())
    if speeds.images_per_second:
        log.info("this sweep is trained by %s (one trial at a time: %s)", share, speeds)
    return share


def recorded_share(sweep: RunRecord, search: SearchConfig, train: TrainConfig) -> Share:
    """The share of a sweep that goes on: that with which it began, but for numbers that the user gives now.

    Earlier versions recorded no number of workers, and had one where nobody asked for several.
    """
    begun = sweep.num_workers
    workers = begun if search.workers == "auto" else search.workers
    if train.threads in ("auto", 0) and workers == begun and (threads := sweep.params.get("train.threads")):
        return Share(workers, int(threads))
    return _divided(workers, search, train)


def workers_here(sweep: RunRecord) -> int:
    """The number of runs that this machine trains side by side after a sweep: that of its trials, unless others did.

    Each has the threads that the sweep recorded.
    """
    if not sweep.engine:
        return sweep.num_workers
    return max(1, most_threads() // int(sweep.params.get("train.threads", 1)))


def fitting_workers(workers: int, num_processes: int, train: TrainConfig) -> int:
    """How many runs of several processes this machine trains side by side, of those that another one may have had.

    Args:
        workers: runs side by side; 0 where nothing is to be trained.
        num_processes: that train each run together.
        train: whose device counts.

    Returns:
        At most `workers`.

    Raises:
        InputError: this machine has fewer devices than a single run needs.
    """
    if num_processes == 1 or not workers:
        return workers
    have, what = _devices(train)
    if num_processes > have:
        raise InputError(
            f"the trials of this sweep were trained by {num_processes} processes each, which need as many {what}s, and "
            f"this machine has {have}; run this on a machine that has {num_processes}"
        )
    return min(workers, have // num_processes)


def check_processes(search: SearchConfig, train: TrainConfig, workers: int) -> None:
    """Refuses trials of several processes for which this machine has too few GPUs or cores.

    Args:
        search: as the user has it.
        train: as the user has it.
        workers: trials side by side.

    Raises:
        ConfigError: naming both numbers, or a device that the processes would have to share.
    """
    if (num := search.processes_per_trial) == 1:
        return
    if train.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"search.processes_per_trial = {num}, but train.device = {train.device!r}, and each process needs a device "
            "of its own; use --set train.device=cuda or --set train.device=cpu"
        )
    have, what = _devices(train)
    if workers * num <= have:
        return
    remedy = {"search.workers": have // num} if num <= have else {"search.processes_per_trial": have}
    ((key, value),) = remedy.items()
    raise ConfigError(
        f"search.processes_per_trial = {num} needs {counted(workers * num, what)} for {counted(workers, 'trial')} side "
        f"by side, one for each process, and this machine has {have}; use --set {key}={value}",
        remedy,
    )


def _divided(workers: int, search: SearchConfig, train: TrainConfig) -> Share:
    """Without a measurement: the threads that the user gave, or as many for each process as there are."""
    given = 0 if train.threads == "auto" else train.threads
    return Share(workers, given or max(1, most_threads() // (workers * search.processes_per_trial)))


def _devices(train: TrainConfig) -> tuple[int, str]:
    """How many devices this machine has, each of which can have one process, and what they are."""
    has_gpus = train.device != "cpu" and torch.cuda.is_available()
    return (torch.cuda.device_count(), "GPU") if has_gpus else (usable_cores(), "core")


def _num_gpus(train: TrainConfig) -> int:
    """The number of GPUs that workers can have, one each; 1 where the experiment names the device."""
    return torch.cuda.device_count() if train.device in ("auto", "cuda") and torch.cuda.is_available() else 1
