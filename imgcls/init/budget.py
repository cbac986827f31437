"""How many trials of how many epochs fit into a time budget."""

from dataclasses import dataclass

from imgcls.text import counted, duration
from imgcls.training.measured_pace import Pace

SWEEP_SECONDS, TRIAL_SECONDS = 20.0, 4.0
"""Seconds that a sweep takes beside its trials, and a trial beside its epochs: start, record, figures, report."""

MOST_TRIALS = 20
"""Number of trials beyond which a search of two or three keys gains little."""


@dataclass(frozen=True)
class Plan:
    """A sweep that fits into a time budget, if any does.

    Attributes:
        epochs: of each trial.
        trials: number of them.
        seconds: that all of it takes if no trial is pruned.
        fulfilment: 1 where trials and epochs are as many as one would like; less in proportion.
    """

    epochs: int
    trials: int
    seconds: float
    fulfilment: float


def plan(
    budget: float, epoch_seconds: float, wanted_epochs: int, wanted_trials: int = 8, *, decode_seconds: float = 0.0
) -> Plan:
    """The plan that comes nearest to the wanted numbers of epochs and of trials, both in the same proportion.

    If there is time for more than the wanted numbers, it has up to two and a half times as many epochs. If there is no
    time for anything, it has one trial of one epoch.

    Args:
        budget: seconds for the whole sweep.
        epoch_seconds: of one epoch, validation included.
        wanted_epochs: of each trial; more of them gain little.
        wanted_trials: more of them gain little.
        decode_seconds: that the sweep needs to decode the images before its first trial.
    """
    plans = [
        Plan(epochs, trials, seconds, min(epochs / wanted_epochs, trials / wanted_trials))
        for epochs in range(1, round(2.5 * wanted_epochs) + 1)
        for trials in range(1, MOST_TRIALS + 1)
        if (seconds := decode_seconds + _seconds(epochs, trials, epoch_seconds)) <= budget
    ]
    if not plans:
        return Plan(1, 1, decode_seconds + _seconds(1, 1, epoch_seconds), 0.0)
    return max(plans, key=lambda each: (each.fulfilment, each.seconds))


def in_words(of: Plan) -> str:
    """The plan in words, such as `6 trials of 5 epochs`."""
    return f"{counted(of.trials, 'trial')} of {counted(of.epochs, 'epoch')}"


def _seconds(epochs: int, trials: int, epoch_seconds: float) -> float:
    return SWEEP_SECONDS + trials * (TRIAL_SECONDS + epochs * epoch_seconds)


def arithmetic(of: Plan, pace: Pace, num_train: int, num_val: int, decode_seconds: float) -> str:
    """The plan's arithmetic in two sentences."""
    decoding = f", and about {_short(decode_seconds)} for decoding the images" if decode_seconds else ""
    epoch = pace.epoch(num_train, num_val)
    return (
        f"measured on {pace.device}: {1 / pace.train:.0f} train images/s, so an epoch of {num_train:,} train and "
        f"{num_val:,} val images takes {_short(epoch)}; {of.trials} x {of.epochs} epochs, and {TRIAL_SECONDS:.0f} s "
        f"for each trial and {SWEEP_SECONDS:.0f} s for the sweep beside them{decoding}, make {_short(of.seconds)}. "
        "search.confirm, which is off, would take time beyond that"
    )


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
