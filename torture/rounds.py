"""A round: one sweep in a fresh folder, killed until it has had enough or has ended, then let to its end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torture.evidence import Evidence, Verdict, check_totals, compare, gather
from torture.instants import Instant, Pace, draw_blow, draw_instant
from torture.victim import Start, Victim

Tell = Callable[[str], None]

MOST_BEFORE_TRAINING = 4
"""So many blows may fall before the first trial; then the round goes on to what comes after."""


class BrokenStartError(Exception):
    """A start that nobody struck ended with an error of its own, or one that was asked to leave did not."""


@dataclass(frozen=True)
class Reference:
    """The sweep that nobody interrupts.

    Attributes:
        experiment: its file.
        evidence: what it left.
        pace: how long its parts took.
    """

    experiment: str
    evidence: Evidence
    pace: Pace


@dataclass(frozen=True)
class Round:
    """How a round went: so many blows fell, and the verdict on what was left."""

    num_kills: int
    verdict: Verdict


def run_reference(folder: Path, experiment: str) -> Reference:
    """Lets a sweep of an experiment file run to its end and takes its times.

    Raises:
        BrokenStartError: it failed.
    """
    victim = Victim.make(folder, experiment)
    start = victim.start()
    marks = {}
    for name, has_come in (
        ("startup", lambda start: bool(start.said)),
        ("opening", lambda start: start.num_epochs() > 0),
        ("trials", Start.is_concluding),
    ):
        start.wait_for(has_come)
        marks[name] = start.seconds
    _let_end(start)
    evidence = gather(victim.root)
    num_epochs = sum(len(run.points["val/loss"]) for run in evidence.folds or evidence.trials)
    return Reference(
        experiment,
        evidence,
        Pace(
            startup=marks["startup"],
            opening=marks["opening"] - marks["startup"],
            epoch=(marks["trials"] - marks["opening"]) / num_epochs,
            conclusion=start.seconds - marks["trials"],
        ),
    )


def run_round(
    folder: Path, seed: str, num_kills: int, reference: Reference, tell: Tell, options: tuple[str, ...] = ()
) -> Round:
    """Strikes a sweep up to so many times, lets it end, and judges what it left.

    Args:
        folder: for the project; it must not exist.
        seed: of every draw.
        num_kills: at most; a sweep that ends before has had fewer.
        reference: the uninterrupted sweep; with options, which may change values, only its totals and pace count.
        tell: told each blow.
        options: of the sweep's command.

    Raises:
        BrokenStartError: a start failed without being struck, or did not leave when asked to.
    """
    rng = random.Random(seed)
    victim = Victim.make(folder, reference.experiment, options)
    struck = 0
    while struck < num_kills:
        has_store, has_trained = victim.has_store(), victim.has_trained() or struck >= MOST_BEFORE_TRAINING
        instant = draw_instant(rng, reference.pace, has_store=has_store, has_trained=has_trained)
        blow = draw_blow(rng, with_workers=bool(options))
        start = victim.start()
        if not _await(start, instant):
            break
        since = start.seconds
        if not start.strike(blow):
            raise BrokenStartError(f"{blow} {instant}, {since:.3f} s after its start: it did not leave\n{start.said}")
        if start.exit_code == 0:
            break
        struck += 1
        tell(f"{blow}, {instant}, {since:.3f} s after its start")
    _let_end(victim.start())
    found = gather(victim.root)
    num_trials = len(reference.evidence.trials)
    return Round(struck, check_totals(found, num_trials) if options else compare(reference.evidence, found))


def _await(start: Start, instant: Instant) -> bool:
    """Waits until the blow is to fall; False where the sweep ended before."""
    if not start.wait_for(lambda start: _has_come(start, instant)):
        return _must_be_well(start)
    return start.lasts(instant.delay_at_end if start.is_concluding() else instant.delay) or _must_be_well(start)


def _has_come(start: Start, instant: Instant) -> bool:
    if start.is_concluding():
        return True
    if instant.when == "store":
        return start.is_making_store()
    if instant.when == "epoch":
        return start.num_epochs() >= instant.count
    if instant.when == "trial":
        return start.num_trials() >= instant.count
    return True


def _must_be_well(start: Start) -> bool:
    """Nothing, of a start that ended by itself and well; so it is no longer there to be struck."""
    if start.exit_code:
        raise BrokenStartError(f"a start that nobody struck ended with exit code {start.exit_code}:\n{start.said}")
    return False


def _let_end(start: Start) -> None:
    start.wait()
    _must_be_well(start)
