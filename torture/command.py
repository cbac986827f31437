"""Kills a digits sweep at random instants, starts it again each time, and compares it with one that nobody touched.

    python -m torture [--kills N] [--workers N] [--pruner NAME] [--folds N] [--seed N] [--lanes N] [--keep FOLDER]
    python -m torture --writers 8 --trials 200

Progress goes to stderr: the seed, each blow, the time left. The last line on stdout counts what was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torture.evidence import Verdict
from torture.rounds import BrokenStartError, Reference, Round, run_reference, run_round
from torture.victim import EXPERIMENTS, end_all, in_folds, kill_all, with_settings
from torture.writers import run_writers

MOST_KILLS_A_ROUND = 20
"""About what a sweep of 8 trials takes until it has ended."""


def main() -> None:
    """Tortures, and prints the verdict; exit code 1 where anything was lost."""
    arguments, began = _arguments(), time.monotonic()
    leave_when_asked()
    folder = Path(arguments.keep or tempfile.mkdtemp(prefix="imgcls-torture-"))
    try:
        line, verdict = _judged(arguments, folder)
    except BrokenStartError as error:
        sys.exit(f"seed {arguments.seed}, everything is left in {folder}: {error}")
    except SystemExit:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        end_all()
    if verdict.differences:
        _say(f"everything is left in {folder}")
    elif not arguments.keep:
        shutil.rmtree(folder)
    _say(f"{(time.monotonic() - began) / 60:.1f} min in all")
    for difference in verdict.differences:
        print(difference)
    print(line)
    sys.exit(bool(verdict.differences))


def leave_when_asked() -> None:
    """Has Ctrl-C and SIGTERM kill all sweeps and end the program."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: _break_off())


def _break_off() -> None:
    kill_all()  # or the rounds would wait for them
    sys.exit("broken off")


def _judged(arguments: argparse.Namespace, folder: Path) -> tuple[str, Verdict]:
    if arguments.writers:
        verdict = run_writers(folder / "writers", arguments.writers, arguments.trials, _say)
        return f"{arguments.trials} trials by {arguments.writers} workers, {_counts(verdict, 'exact')}", verdict
    num_kills, verdict = _torture(arguments, folder)
    word = "identical" if arguments.workers == 1 else "exact"
    return f"{num_kills} kills, {_counts(verdict, word)}", verdict


def _counts(verdict: Verdict, word: str) -> str:
    word = f"not {word}" if verdict.differences else word
    return f"{verdict.lost} lost, {verdict.doubled} doubled, {verdict.orphans} orphans, {word}"


def _torture(arguments: argparse.Namespace, folder: Path) -> tuple[int, Verdict]:
    """Rounds side by side, until all kills are done."""
    _say(f"seed {arguments.seed}: {arguments.kills} kills, first a sweep that nobody touches")
    experiment = EXPERIMENTS[arguments.pruner]
    experiment = in_folds(experiment, arguments.folds) if arguments.folds else experiment
    experiment = with_settings(experiment, arguments.settings)
    reference = run_reference(folder / "reference", experiment)
    if not any(trial.outcome == "pruned" for trial in reference.evidence.trials):
        raise BrokenStartError("no trial of the untouched sweep was pruned, so pruning would not be tried")
    progress = _Progress(arguments.kills)
    options = () if arguments.workers == 1 else ("--workers", str(arguments.workers))
    verdict, number = Verdict(), 0
    while left := arguments.kills - progress.num_kills:
        lanes = min(arguments.lanes, left)
        budgets = [min(MOST_KILLS_A_ROUND, left // lanes + (lane < left % lanes)) for lane in range(lanes)]
        with ThreadPoolExecutor(lanes) as pool:
            rounds = [
                pool.submit(_round, folder, arguments.seed, number + lane, budget, reference, progress, options)
                for lane, budget in enumerate(budgets)
            ]
            verdict = sum((done.result().verdict for done in rounds), verdict)
        number += lanes
        if verdict.differences:
            break
    return progress.num_kills, verdict


def _round(
    folder: Path, seed: int, number: int, budget: int, reference: Reference, progress: _Progress,
    options: tuple[str, ...],
) -> Round:  # fmt: skip
    done = run_round(
        folder / f"round-{number}", f"{seed}-{number}", budget, reference,
        lambda blow: progress.on_kill(f"round {number}: {blow}"), options,
    )  # fmt: skip
    faults = f"{len(done.verdict.differences)} differences" if done.verdict.differences else "nothing lost"
    _say(f"round {number} ended after {done.num_kills} kills: {faults}")
    return done


class _Progress:
    """A line a kill, with the time left."""

    def __init__(self, total: int) -> None:
        self.num_kills = 0
        self._total = total
        self._began = time.monotonic()

    def on_kill(self, blow: str) -> None:
        self.num_kills += 1
        left = (time.monotonic() - self._began) / self.num_kills * (self._total - self.num_kills)
        _say(f"kill {self.num_kills:>3} of {self._total}, {blow}; {left / 60:.0f} min left")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="in all")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of the sweep; with 2 only totals compare")
    parser.add_argument("--pruner", choices=EXPERIMENTS, default="median", help="of the sweep")
    parser.add_argument("--folds", type=int, default=0, metavar="N", help="of each trial; 0: one val")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
        help="key that every trial has besides, in TOML's words; may be repeated",
    )  # fmt: skip
    parser.add_argument("--lanes", type=int, default=2, metavar="N", help="sweeps tortured side by side")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), metavar="N")
    parser.add_argument("--keep", default="", metavar="FOLDER", help="leave everything here, to look at")
    parser.add_argument("--writers", type=int, default=0, metavar="N", help="no kills: so many workers, short trials")
    parser.add_argument("--trials", type=int, default=200, metavar="N", help="for --writers")
    return parser.parse_args()
