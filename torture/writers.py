"""Many workers that write short trials to one store at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torture.evidence import Verdict, check_totals, gather
from torture.rounds import BrokenStartError
from torture.victim import WRITERS, Start, Victim


def run_writers(folder: Path, num_workers: int, num_trials: int, tell: Callable[[str], None]) -> Verdict:
    """Runs a sweep of the shortest trials there are, and judges what it left.

    Args:
        folder: for the project; it must not exist.
        num_workers: side by side.
        num_trials: in all.
        tell: told how far it is.

    Raises:
        BrokenStartError: the sweep failed.
    """
    options = ("--workers", str(num_workers), "--trials", str(num_trials))
    start = Victim.make(folder, WRITERS, options).start()
    share = max(1, num_trials // 10)
    for goal in range(share, num_trials + 1, share):
        if start.wait_for(_has_trials(goal)):
            left = start.seconds / goal * (num_trials - goal)
            tell(f"{goal} of {num_trials} trials, {left:.0f} s left")
    if start.wait():
        raise BrokenStartError(f"the sweep ended with exit code {start.exit_code}:\n{start.said}")
    verdict = check_totals(gather(folder / "project"), num_trials)
    if "locked" in start.said:
        verdict.differences.append("a database was locked:\n" + start.said)
    return verdict


def _has_trials(goal: int) -> Callable[[Start], bool]:
    return lambda start: start.num_trials() >= goal
