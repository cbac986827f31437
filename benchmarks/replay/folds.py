"""What a search gains by folds: replayed searches that score by one val, or by five folds, in the same seconds.

    python -m benchmarks.replay.folds [--repeats 400]

Each search draws configurations at random in a small folder of `benchmarks.replay.fold_table`, without drawing one
twice, and ends when its seconds are over. One val is one of the five folds, drawn too. What a search hands over is what
imgcls would: on one val the best epoch of the best trial, in folds the last epoch, by the accuracy on the images of all
folds. Pruners are those of the package. All methods see the same draws. The accuracy is that on the images held back.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from benchmarks.replay.fold_table import DIGITS, NUM_CONFIGURATIONS, NUM_FOLDS, Recorded, read
from imgcls.search.budget import RESERVE
from imgcls.search.halving import FACTOR_OF_FOLDS, Rungs
from imgcls.search.pruners import make_pruner
from imgcls.search.space import pruner_warmup_of

REPEATS = 400

TRAININGS = (10, 20, 40)
"""Seconds of so many mean trainings on one val are given to each search."""

EPOCHS = int(DIGITS.base["train.epochs"])


@dataclass(frozen=True)
class Steps:
    """A configuration as a search comes to know it, step by step; a step is an epoch, or a fold.

    Attributes:
        reported: value that the pruner is told after each step.
        ranked: value that ranks the trial after each step: the best so far, or the mean so far.
        seconds: of each step.
        score: of the whole, by which the winner is chosen.
        alone: accuracy of what is handed over on the images held back: of one model, or the mean over the folds'.
        together: accuracy of the folds' models together; on one val that of the one model.
    """

    reported: list[float]
    ranked: list[float]
    seconds: list[float]
    score: float
    alone: float
    together: float


def on_one_val(run: Recorded, fold: int) -> Steps:
    """A configuration trained on all folds but one, which is its val."""
    val, best = run["val"][fold], run["best"][fold]
    so_far = [max(val[: epoch + 1]) for epoch in range(len(val))]
    return Steps(val, so_far, run["seconds"][fold], max(val, default=0.0), best, best)


def in_folds(run: Recorded, *, is_paired: bool = False) -> Steps:
    """A configuration trained in folds; `is_paired`: the pruner is told the score of each fold, not the mean so far."""
    ends = [val[-1] for val in takewhile(lambda val: len(val) == EPOCHS, run["val"])]
    means = [float(np.mean(ends[: number + 1])) for number in range(len(ends))]
    score = float(np.dot(ends, run["sizes"][: len(ends)]) / sum(run["sizes"])) if len(ends) == NUM_FOLDS else 0.0
    seconds = [sum(of_fold) for of_fold in run["seconds"]]
    return Steps(ends if is_paired else means, means, seconds, score, float(np.mean(run["last"])), run["together"])


@dataclass
class Search:
    """A search under way: its trials in the order of their draws, until its seconds are over.

    Attributes:
        drawn: configurations in the order in which they are drawn.
        num_steps: of a whole trial.
        seconds: that it has left.
        done: steps that each trial has done, from the first trial on.
        spent: seconds of those steps.
    """

    drawn: Sequence[Steps]
    num_steps: int
    seconds: float
    done: list[int] = field(default_factory=list)
    spent: float = 0.0

    def step(self, trial: int) -> bool:
        """Trains a trial for one step; False where it failed there, or the time was over."""
        steps, number = self.drawn[trial], self.done[trial]
        took = steps.seconds[number] if number < len(steps.seconds) else 0.0
        self.seconds, self.spent = self.seconds - took, self.spent + took
        if self.seconds < 0 or number >= len(steps.reported):
            return False
        self.done[trial] += 1
        return True

    @property
    def can_draw(self) -> bool:
        """Whether there is time, and a configuration that was not drawn."""
        return self.seconds > 0 and len(self.done) < len(self.drawn)

    def winner(self) -> Steps | None:
        """The best of the trials that were trained to their end; the first of equal ones."""
        whole = [steps for steps, done in zip(self.drawn, self.done, strict=False) if done == self.num_steps]
        return max(whole, key=lambda steps: steps.score, default=None)


def one_by_one(search: Search, pruner: str, *, folds: int) -> None:
    """Trial after trial, each to its end unless the pruner stops it."""
    own = {"search.pruner": pruner, "data.folds": folds}
    experiment = DIGITS.experiment({}, 0, searched=True).replace(own)
    study = optuna.create_study(
        direction="maximize",
        sampler=RandomSampler(seed=0),
        pruner=make_pruner(experiment, pruner_warmup_of(experiment)),
    )
    while search.can_draw:
        number, trial = len(search.done), study.ask()
        search.done.append(0)
        for step in range(1, search.num_steps + 1):
            if not search.step(number):
                study.tell(trial, state=TrialState.FAIL)
                break
            trial.report(search.drawn[number].reported[step - 1], step=step)
            if step < search.num_steps and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, search.drawn[number].score)


def halving(search: Search, rungs: Rungs) -> None:
    """Trials pause at the rungs, and are promoted, as in a sweep of imgcls with one worker."""
    ended = set[int]()
    while search.seconds > 0:
        best = {number: search.drawn[number].ranked[:done] for number, done in enumerate(search.done) if done}
        waiting = [number for number in best if number not in ended]
        number = rungs.promoted(best, is_all_drawn=not search.can_draw, paused=waiting)
        if waiting and _has_to_finish(search, best[rungs.reserve(best, waiting)[0]]):
            number = rungs.reserve(best, waiting)[0]
        if number is None and not search.can_draw:
            return
        if number is None:
            number = len(search.done)
            search.done.append(0)
        until = rungs.next_after(search.done[number]) or search.num_steps
        while search.done[number] < until and search.step(number):
            pass
        if search.done[number] != until or until == search.num_steps:
            ended.add(number)


def _has_to_finish(search: Search, best: Sequence[float]) -> bool:
    """Whether the time left is needed to train a first trial to its end, as a sweep with a budget does."""
    if search.winner() is not None:
        return False
    each = search.spent / sum(search.done)
    return search.seconds <= RESERVE * each * (search.num_steps - len(best)) + each


METHODS = (
    "one val", "one val, halving", "one val, then its winner in five folds", "five folds, none", "five folds, wilcoxon",
    "five folds, median", "five folds, halving",
)  # fmt: skip


def replayed(method: str, runs: Sequence[Recorded], fold: int, seconds: float) -> Steps | None:
    """What a search hands over: `runs` in the order of their draws; None where no trial was trained to its end."""
    kind, _, how = method.partition(", ")
    if kind == "one val":
        rest = np.mean([sum(map(sum, run["seconds"])) for run in runs]) if how.startswith("then") else 0.0
        search = Search([on_one_val(run, fold) for run in runs], EPOCHS, seconds - float(rest))
        warmup = pruner_warmup_of(DIGITS.experiment({}, 0, searched=True))
        if how == "halving":
            halving(search, Rungs.of(warmup, EPOCHS))
        else:
            one_by_one(search, "none", folds=0)
        found = search.winner()
        if found is None or not how.startswith("then"):
            return found
        return in_folds(next(run for run, steps in zip(runs, search.drawn, strict=True) if steps is found))
    search = Search([in_folds(run, is_paired=how == "wilcoxon") for run in runs], NUM_FOLDS, seconds)
    if how == "halving":
        halving(search, Rungs.of(1, NUM_FOLDS, FACTOR_OF_FOLDS))
    else:
        one_by_one(search, how, folds=NUM_FOLDS)
    return search.winner()


def folders() -> list[list[Recorded]]:
    """The runs of each folder that is recorded whole."""
    runs = read()["runs"]
    of_folder = [[run for run in runs if run["folder"] == number] for number in sorted({run["folder"] for run in runs})]
    return [sorted(of, key=lambda run: run["configuration"]) for of in of_folder if len(of) == NUM_CONFIGURATIONS]


def accuracies(trainings: int, repeats: int) -> dict[str, NDArray[np.float64]]:
    """What each method hands over after the seconds of so many trainings: float64 (repeats, 2), alone and together."""
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    recorded = folders()
    for seed in range(repeats):
        draws = np.random.default_rng(seed)
        here = recorded[seed % len(recorded)]
        runs = [here[number] for number in draws.permutation(len(here))]
        fold = int(draws.integers(NUM_FOLDS))
        seconds = trainings * float(np.mean([sum(map(sum, run["seconds"])) / NUM_FOLDS for run in here]))
        for method in METHODS:
            steps = replayed(method, runs, fold, seconds)
            found[method].append((math.nan, math.nan) if steps is None else (steps.alone, steps.together))
    return {method: np.array(values) for method, values in found.items()}


def lines(repeats: int) -> Iterator[str]:
    """A table in Markdown: accuracy of what is handed over, and its difference to one val with its 95 % interval."""
    yield f"| search | {' | '.join(f'{number} trainings' for number in TRAININGS)} |"
    yield f"|---|{'---|' * len(TRAININGS)}"
    by_trainings = [accuracies(number, repeats) for number in TRAININGS]
    for method in METHODS:
        yield f"| {method} | {' | '.join(_cell(found, method) for found in by_trainings)} |"


def _cell(found: dict[str, NDArray[np.float64]], method: str) -> str:
    alone, together = 100 * np.nanmean(found[method], axis=0)
    lacking = float(np.isnan(found[method][:, 0]).mean())
    words = f"{together:.1f}" if alone == together else f"{together:.1f} ({alone:.1f} alone)"
    difference = 100 * (found[method][:, 1] - found["one val"][:, 1])
    difference = difference[~np.isnan(difference)]
    if method != "one val" and len(difference):
        half = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5
        words += f", {difference.mean():+.1f} ± {half:.1f}"
    return words + (f"; nothing in {100 * lacking:.1f} % of the searches" if lacking else "")


def main() -> None:
    """Replays, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"searches of each method; {REPEATS}")
    repeats = parser.parse_args().repeats
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sys.stderr.write(f"{len(folders())} folders, {NUM_CONFIGURATIONS} configurations each\n")
    for line in lines(repeats):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
