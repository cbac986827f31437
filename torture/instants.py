"""When and how the next blow falls: drawn, so that a seed tells the whole story."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from typing import Literal

When = Literal["start", "store", "opening", "epoch", "trial"]


@dataclass(frozen=True)
class Blow:
    """What is sent.

    Attributes:
        signals: one after the other.
        seconds_between: them.
        whole_group: to every process of the command, as a terminal does; else to the first alone, as the kernel does
            when memory is out.
    """

    signals: tuple[signal.Signals, ...]
    seconds_between: float = 0.0
    whole_group: bool = True

    def __str__(self) -> str:
        names = " ".join(name.name for name in self.signals)
        between = f" within {self.seconds_between:.2f} s" if len(self.signals) > 1 else ""
        return names + between + ("" if self.whole_group else " to the driver alone")


@dataclass(frozen=True)
class Pace:
    """How long an uninterrupted sweep takes, in seconds.

    Attributes:
        startup: from the command to its first sign of life, most of it imports.
        opening: from there to the first completed epoch: store, images, study, model.
        epoch: from one completed epoch to the next.
        conclusion: from the end of the last trial to the end.
    """

    startup: float
    opening: float
    epoch: float
    conclusion: float


@dataclass(frozen=True)
class Instant:
    """When a blow falls.

    Attributes:
        when: what is waited for: the `start` of the process, its making of the `store`, its `opening` of study and
            data, or an `epoch` or `trial` completed.
        count: so many epochs or trials.
        delay: seconds after that.
        delay_at_end: seconds after the end of the last trial, where that comes first.
    """

    when: When
    count: int
    delay: float
    delay_at_end: float

    def __str__(self) -> str:
        what = f"{self.when} {self.count}" if self.when in ("epoch", "trial") else self.when
        return f"{self.delay:.3f} s after {what}"


def draw_instant(rng: random.Random, pace: Pace, *, has_store: bool, has_trained: bool) -> Instant:
    """The next instant, with a liking for what has not been reached yet.

    Args:
        rng: of this round.
        pace: how long things take.
        has_store: whether there is a store already.
        has_trained: whether any trial has begun already, or is to.
    """
    weights: dict[When, int]
    if has_trained:
        weights = {"start": 1, "opening": 1, "epoch": 7, "trial": 2}
    elif has_store:
        weights = {"start": 1, "opening": 3, "epoch": 2}
    else:
        weights = {"start": 1, "store": 2, "opening": 2}
    (when,) = rng.choices(list(weights), list(weights.values()))
    delays = {
        "start": rng.uniform(0, pace.startup),
        "store": rng.uniform(0, pace.opening / 2),
        "opening": rng.uniform(pace.startup, pace.startup + pace.opening),
        "epoch": rng.uniform(0, 2 * pace.epoch),
        "trial": rng.uniform(0, 3 * pace.epoch),
    }
    count = rng.randint(1, 4) if when == "epoch" else rng.randint(1, 2)
    return Instant(when, count, delays[when], rng.uniform(0, pace.conclusion))


def draw_blow(rng: random.Random, *, with_workers: bool) -> Blow:
    """Four in five are SIGKILL; the others ask to leave, once or twice.

    Args:
        rng: of this round.
        with_workers: whether the sweep has processes besides its driver; then the driver dies alone now and then.
    """
    kind = rng.randrange(10)
    if kind < 8:
        return Blow((signal.SIGKILL,), whole_group=not (with_workers and kind < 2))
    name = rng.choice((signal.SIGTERM, signal.SIGINT))
    return Blow((name,) * (kind - 7), rng.uniform(0, 0.3))
