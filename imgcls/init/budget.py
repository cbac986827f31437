"""How many trials of how many epochs fit into a time budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from imgcls.runs.threads import Speeds
from imgcls.search.budget import START_SECONDS
from imgcls.search.halving import Rungs
from imgcls.search.workers import Share, Wanted, choose
from imgcls.text import counted, duration
from imgcls.training.device import most_threads
from imgcls.training.measured_pace import Pace

SWEEP_SECONDS, TRIAL_SECONDS = 20.0, 4.0
"""Seconds that a sweep takes beside its trials, and a trial beside its epochs: start, record, figures, report."""

WANTED_TRIALS, MOST_TRIALS = 20, 40
"""Trials that a search of two or three keys wants, and beyond which it gains little; a third is trained whole."""


@dataclass(frozen=True)
class Plan:
    """A sweep that fits into a time budget, if any does.

    Attributes:
        epochs: of each trial.
        trials: number of them.
        seconds: that all of it takes.
        fulfilment: 1 where trials and epochs are as many as one would like; less in proportion.
        workers: trials that are trained side by side.
    """

    epochs: int
    trials: int
    seconds: float
    fulfilment: float
    workers: int = 1


@dataclass(frozen=True)
class Training:
    """What is trained, and how fast.

    Attributes:
        pace: with each number of threads that comes into question.
        num_train: train images.
        num_val: val images.
    """

    pace: Pace
    num_train: int
    num_val: int

    def side_by_side(self, epochs: int, trials: int) -> tuple[int, float]:
        """How many trials a sweep with `search.workers = "auto"` trains side by side, and seconds of an epoch then."""
        share, epoch = self.share(epochs, trials), self.pace.epoch(self.num_train, self.num_val)
        return share.workers, epoch * self.pace.slower.get(share.threads, 1.0)

    def share(self, epochs: int, trials: int) -> Share:
        """What a sweep with `search.workers = "auto"` chooses if there is memory enough."""
        slower = self.pace.slower
        if len(slower) < 2:
            return Share(1, next(iter(slower), 1))
        speeds = Speeds({threads: 1 / (self.pace.train * factor) for threads, factor in slower.items()}, None)
        return choose(Wanted("auto", "auto", max(slower), trials, self.num_train, _rungs(epochs)), speeds, None)


def numbers_of_threads() -> list[int]:
    """Numbers of CPU threads that a trial may have here, by how many are trained side by side; none with a GPU."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return []
    return Wanted("auto", "auto", most_threads(), MOST_TRIALS, images=0, rungs=_rungs(1)).to_measure


SideBySide = Callable[[int, int], tuple[int, float]]
"""(epochs, trials) -> how many trials are trained side by side, and seconds of an epoch of each."""


def plan(
    budget: float, side_by_side: SideBySide, wanted_epochs: int, wanted_trials: int = WANTED_TRIALS, *,
    decode_seconds: float = 0.0,
) -> Plan:  # fmt: skip
    """The plan that comes nearest to the wanted numbers of epochs and of trials, both in the same proportion.

    If there is time for more than the wanted numbers, it has up to two and a half times as many epochs. If there is no
    time for anything, it has one trial of one epoch.

    Args:
        budget: seconds for the whole sweep.
        side_by_side: how fast trials are trained.
        wanted_epochs: of each trial; more of them gain little.
        wanted_trials: more of them gain little.
        decode_seconds: that the sweep needs to decode the images before its first trial.
    """
    plans = [
        Plan(epochs, trials, seconds, min(epochs / wanted_epochs, trials / wanted_trials), workers)
        for epochs in range(1, round(2.5 * wanted_epochs) + 1)
        for trials in range(1, MOST_TRIALS + 1)
        for workers, epoch_seconds in [side_by_side(epochs, trials)]
        if (seconds := decode_seconds + _seconds(epochs, trials, workers, epoch_seconds)) <= budget
    ]
    if not plans:
        return Plan(1, 1, decode_seconds + _seconds(1, 1, 1, side_by_side(1, 1)[1]), 0.0)
    return max(plans, key=lambda each: (each.fulfilment, each.seconds))


def in_words(of: Plan) -> str:
    """The plan in words, such as `6 trials of 5 epochs`."""
    return f"{counted(of.trials, 'trial')} of {counted(of.epochs, 'epoch')}"


def _seconds(epochs: int, trials: int, workers: int, epoch_seconds: float) -> float:
    start = START_SECONDS if workers > 1 else 0.0
    of_one = max(epochs, _rungs(epochs).num_epochs(trials) / workers)  # no worker trains less than the winner
    return SWEEP_SECONDS + start + math.ceil(trials / workers) * TRIAL_SECONDS + of_one * epoch_seconds


def _rungs(epochs: int) -> Rungs:
    """The epochs of a sweep's trials, which pause by default after a third of them."""
    return Rungs.of(Rungs.latest_first(epochs), epochs)


def arithmetic(of: Plan, pace: Pace, num_train: int, num_val: int, decode_seconds: float) -> str:
    """The plan's arithmetic in two sentences."""
    decoding = f", and about {_short(decode_seconds)} for decoding the images" if decode_seconds else ""
    training = Training(pace, num_train, num_val)
    share, (_, epoch) = training.share(of.epochs, of.trials), training.side_by_side(of.epochs, of.trials)
    speed = pace.epoch(num_train, num_val) / epoch / pace.train
    of_each = f" of a trial with {counted(share.threads, 'thread')}" if of.workers > 1 else ""
    several = f", {of.workers} trials side by side" if of.workers > 1 else ""
    start = f", {START_SECONDS:.0f} s for the start of the workers" if of.workers > 1 else ""
    pause, *later = (rungs := _rungs(of.epochs)).epochs
    some = f", of which about a third goes on after epoch {pause}" if later and of.trials > 1 else ""
    return (
        f"measured on {pace.device}: {speed:.0f} train images/s{of_each}, so an epoch of {num_train:,} train and "
        f"{num_val:,} val images takes {_short(epoch)}; {in_words(of)}{some}, make "
        f"{rungs.num_epochs(of.trials):.0f} epochs{several}. These, {TRIAL_SECONDS:.0f} s for each trial{start} and "
        f"{SWEEP_SECONDS:.0f} s for the sweep beside them{decoding} make "
        f"{_short(of.seconds)}. search.confirm, which is off, would take time beyond that"
    )


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
