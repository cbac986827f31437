"""How often the 95 % intervals hold the truth: `python -m benchmarks.coverage [--quick] [--json] [--output FOLDER]`.

Each cell draws many samples from a population whose scores are known, and counts how often the interval of each score,
as imgcls prints it, holds the population's. Progress goes to stderr and the table to stdout; with `--json` the last
line is one JSON object. `--output` writes `COVERAGE.md` and `COVERAGE.json` into a folder.

Two classes: scores are normal with equal variances (binormal), and logits are their true log odds, times
`--temperature`. Their truth is in closed form, the loss by quadrature. Five classes: five normal features, of which
that of the true class is raised; the truth is that of a million images. The class of each image is drawn, and a sample
that lacks a class is drawn again. Images in groups: each group has an accuracy of its own from Beta(1.6, 0.4), mean
0.8; within a group images are independent.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from imgcls import metrics
from imgcls.rng import derive_seed
from imgcls.statistics.intervals import SHARES, Interval, mean_interval
from imgcls.statistics.paired import mcnemar, paired_interval
from imgcls.statistics.predictions import Predictions

NUM_SIMULATIONS = {"full": 2000, "quick": 500}
NUM_IMAGES = (60, 300, 656, 2000)
POSITIVES = (0.05, 0.2, 0.5)
AUROCS = (0.86, 0.98)
SHARES_OF_FIVE = ((0.2, 0.2, 0.2, 0.2, 0.2), (0.6, 0.2, 0.1, 0.05, 0.05))
RAISED = (1.5, 2.5)
"""By how many standard deviations the feature of the true class is raised, for five classes."""

GROUPS = ((20, 15), (10, 12), (60, 5))
"""(groups, images in each)."""

SEEDS = ((60, 2), (60, 5), (656, 2), (656, 5))
"""(val images, seeds)."""

SEED_DEVIATION = 0.03
"""Standard deviation of the accuracy over seeds; its mean is 0.8."""

LARGE = 1_000_000
"""Images that stand for a population without a closed form."""

LEAST_SHOWN = 0.5
"""Share of samples with an interval below which a cell counts as having none."""

Sample = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Logits (N, K) and labels (N,)."""

Draw = Callable[[np.random.Generator], Iterator[tuple[str, Interval | bool | None]]]
"""One sample: for each score its interval, or whether a test is right, or None where nothing is shown."""


@dataclass(frozen=True)
class Cell:
    """A population and a size of sample.

    Attributes:
        name: of the cell.
        kind: `images`, `groups` or `seeds`.
        draw: one sample.
        truth: of each score whose interval is drawn.
        redrawn: share of samples that lack a class and are drawn again.
    """

    name: str
    kind: str
    draw: Draw
    truth: dict[str, float]
    redrawn: float = 0.0


def main() -> None:
    """Simulates, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage")
    parser.add_argument("--quick", action="store_true", help="500 samples a cell instead of 2,000; under five minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--simulations", type=int, default=0, help="samples a cell, instead")
    parser.add_argument("--temperature", type=float, default=1.0, help="1: calibrated logits; 2: overconfident ones")
    parser.add_argument("--output", type=Path, help="folder for COVERAGE.md and COVERAGE.json")
    arguments = parser.parse_args()
    simulations = arguments.simulations or NUM_SIMULATIONS["quick" if arguments.quick else "full"]
    results = measure(simulations, arguments.temperature, tell=lambda line: print(line, file=sys.stderr, flush=True))
    print(markdown(results))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "COVERAGE.md").write_text(markdown(results) + "\n")
        (arguments.output / "COVERAGE.json").write_text(json.dumps(results, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(results))


def measure(
    simulations: int, temperature: float = 1.0, *, only: str = "", tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Simulates every cell.

    Args:
        simulations: samples of each cell.
        temperature: factor of the logits of two classes.
        only: takes the cells of this kind; all by default.
        tell: gets a line for each cell.
    """
    started = time.monotonic()
    found = {}
    for cell in cells(temperature, only):
        found[cell.name] = simulate(cell, simulations)
        tell(f"{time.monotonic() - started:5.0f} s  {cell.name}: {_in_words(found[cell.name])}")
    # Means over few seeds are wider on purpose: their spread is taken to be half a step at least.
    judged = {name: cell for name, cell in found.items() if cell["kind"] != "seeds"} or found
    shown = [value for cell in judged.values() for value in cell["coverage"].values()]
    return {
        "min_coverage": min(shown),
        "max_coverage": max(shown),
        "simulations": simulations,
        "without_interval": [f"{name}: {score}" for name, cell in found.items() for score in cell["without_interval"]],
        "cells": found,
        "temperature": temperature,
        "seconds": round(time.monotonic() - started),
    }


def simulate(cell: Cell, simulations: int) -> dict[str, Any]:
    """Draws the samples of a cell; the same ones each time."""
    rng = np.random.default_rng(derive_seed(0, "coverage", cell.name))
    held: dict[str, list[bool]] = {}
    for _ in range(simulations):
        for score, shown in cell.draw(rng):
            outcomes = held.setdefault(score, [])
            if isinstance(shown, Interval):
                outcomes.append(shown.low <= cell.truth[score] <= shown.high)
            elif shown is not None:
                outcomes.append(shown)
    often = {score: outcomes for score, outcomes in held.items() if len(outcomes) >= LEAST_SHOWN * simulations}
    return {
        "kind": cell.kind,
        "coverage": {score: float(np.mean(outcomes)) for score, outcomes in often.items()},
        "shown": {score: len(outcomes) / simulations for score, outcomes in held.items()},
        "without_interval": [score for score in held if score not in often],
        "redrawn": cell.redrawn,
    }


def cells(temperature: float, only: str = "") -> Iterator[Cell]:
    """All of them, or those of one kind: `images`, `groups` or `seeds`."""
    if only in ("", "images"):
        for num_images in NUM_IMAGES:
            yield from (of_two_classes(num_images, *of, temperature) for of in product(POSITIVES, AUROCS))
            yield from (of_five_classes(num_images, *of) for of in product(SHARES_OF_FIVE, RAISED))
    if only in ("", "groups"):
        for num_groups, size in GROUPS:
            yield of_groups(num_groups, size)
            yield from (of_pairs(num_groups, size, related=related) for related in (True, False))
    if only in ("", "seeds"):
        yield from (of_seeds(*of) for of in SEEDS)


# --- images alone -----------------------------------------------------------------------------------------------


def of_two_classes(num_images: int, share: float, auroc: float, temperature: float = 1.0) -> Cell:
    """Two classes, of which the positive one has this share; logits are the true log odds, times the temperature."""
    distance = math.sqrt(2) * norm.ppf(auroc)
    prior = math.log(share / (1 - share))

    def population(num: int, rng: np.random.Generator) -> Sample:
        labels = (rng.random(num) < share).astype(np.int64)
        log_odds = temperature * (distance * (rng.standard_normal(num) + (labels - 0.5) * distance) + prior)
        return np.stack([np.zeros(num), log_odds], axis=1), labels

    redrawn = share**num_images + (1 - share) ** num_images
    truth = _truth_of_two(distance, share, auroc, temperature)
    name = f"2 classes, {num_images} images, {share:.0%} positive, AUROC {auroc}"
    return Cell(name, "images", _scored(population, num_images, 2), truth, redrawn)


def _truth_of_two(distance: float, share: float, auroc: float, temperature: float) -> dict[str, float]:
    prior = math.log(share / (1 - share))
    threshold = -prior / distance  # of the score, where the log odds are 0
    found, false = norm.sf(threshold - distance / 2), norm.sf(threshold + distance / 2)
    right_positive, right_negative = share * found, (1 - share) * (1 - false)
    called = right_positive + (1 - share) * false
    grid = np.linspace(-10, 10, 40_001)
    density = norm.pdf(grid) * (grid[1] - grid[0])

    def mean_loss(sign: int) -> float:
        log_odds = temperature * (distance * (grid + sign * distance / 2) + prior)
        return float(density @ np.logaddexp(0, -sign * log_odds))

    f1_of_positives = 2 * right_positive / (share + called)
    f1_of_negatives = 2 * right_negative / (1 - share + 1 - called)
    return {
        "accuracy": right_positive + right_negative,
        "balanced_accuracy": (found + 1 - false) / 2,
        "macro_f1": (f1_of_positives + f1_of_negatives) / 2,
        "auroc": auroc,
        "loss": share * mean_loss(1) + (1 - share) * mean_loss(-1),
    }


def of_five_classes(num_images: int, shares: tuple[float, ...], raised: float) -> Cell:
    """Five classes; the feature of the true one is raised."""

    def population(num: int, rng: np.random.Generator) -> Sample:
        return _five(num, shares, raised, rng)

    truth = _truth_of_five(shares, raised)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(num_images, shares, 100_000)
    name = (
        f"5 classes of {'/'.join(f'{share:.0%}'[:-1] for share in shares)} %, {num_images} images, raised by {raised}"
    )
    return Cell(name, "images", _scored(population, num_images, 5), truth, float((counts.min(axis=1) == 0).mean()))


def _five(num: int, shares: tuple[float, ...], raised: float, rng: np.random.Generator) -> Sample:
    labels = rng.choice(len(shares), num, p=shares)
    features = rng.standard_normal((num, len(shares)))
    features[np.arange(num), labels] += raised
    return raised * features + np.log(shares), labels


@lru_cache
def _truth_of_five(shares: tuple[float, ...], raised: float) -> dict[str, float]:
    rng = np.random.default_rng(derive_seed(0, "population", shares, raised))
    return _truth_of_large(*_five(LARGE, shares, raised, rng))


def _scored(population: Callable[[int, np.random.Generator], Sample], num_images: int, num_classes: int) -> Draw:
    def draw(rng: np.random.Generator) -> Iterator[tuple[str, Interval | bool | None]]:
        logits, labels = population(num_images, rng)
        while len(np.unique(labels)) < num_classes:
            logits, labels = population(num_images, rng)
        yield from _intervals(logits, labels)

    return draw


def _intervals(
    logits: NDArray[np.float64], labels: NDArray[np.int64], groups: tuple[str, ...] = ()
) -> Iterator[tuple[str, Interval | None]]:
    found = metrics.score(Predictions(logits, labels, groups)).intervals
    for score in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss"):
        yield score, found.get(score)


def _truth_of_large(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    log_probs, predictions = log_softmax(logits, axis=1), logits.argmax(axis=1)
    num_classes = logits.shape[1]
    ranked = range(1, 2) if num_classes == 2 else range(num_classes)
    return {
        "accuracy": float((predictions == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predictions)),
        "macro_f1": float(f1_score(labels, predictions, average="macro")),
        "auroc": float(np.mean([roc_auc_score(labels == label, log_probs[:, label]) for label in ranked])),
        "loss": float(-log_probs[np.arange(len(labels)), labels].mean()),
    }


# --- groups -----------------------------------------------------------------------------------------------------


def _accuracies(num_groups: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of each image's group."""
    return np.repeat(rng.beta(1.6, 0.4, num_groups), size)


def _names(num_groups: int, size: int) -> tuple[str, ...]:
    return tuple(f"group {number}" for number in range(num_groups) for _ in range(size))


def of_groups(num_groups: int, size: int) -> Cell:
    """Images of two classes in groups that differ in their accuracy."""

    def population(num: int, rng: np.random.Generator) -> Sample:
        is_right = rng.random(num * size) < _accuracies(num, size, rng)
        labels = rng.integers(2, size=num * size)
        margins = np.abs(rng.normal(0, 2, num * size)) * np.where(is_right, 1, -0.5)
        return np.stack([np.zeros(num * size), np.where(labels == 1, 1, -1) * margins], axis=1), labels

    def draw(rng: np.random.Generator) -> Iterator[tuple[str, Interval | bool | None]]:
        yield from _intervals(*population(num_groups, rng), _names(num_groups, size))

    large = population(LARGE // size, np.random.default_rng(derive_seed(0, "population", "groups", size)))
    truth = _truth_of_large(*large) | {"accuracy": 0.8, "balanced_accuracy": 0.8, "macro_f1": 0.8}
    return Cell(f"{num_groups} groups of {size} images", "groups", draw, truth)


def of_pairs(num_groups: int, size: int, *, related: bool) -> Cell:
    """Two equally good classifiers, which find the same groups hard or not."""

    def draw(rng: np.random.Generator) -> Iterator[tuple[str, Interval | bool | None]]:
        first = _accuracies(num_groups, size, rng)
        second = first if related else _accuracies(num_groups, size, rng)
        hits = [rng.random(len(first)) < accuracies for accuracies in (first, second)]
        yield "difference", paired_interval(*hits, _names(num_groups, size))
        yield "test", mcnemar(*hits, _names(num_groups, size)).p_value > 0.05

    words = "the same" if related else "different"
    return Cell(
        f"2 classifiers with {words} hard groups, {num_groups} of {size} images", "groups", draw, {"difference": 0.0}
    )


# --- seeds ------------------------------------------------------------------------------------------------------


def of_seeds(num_images: int, num_seeds: int) -> Cell:
    """Accuracies of several seeds on the same val images."""

    def draw(rng: np.random.Generator) -> Iterator[tuple[str, Interval | bool | None]]:
        drawn = rng.normal(0.8, SEED_DEVIATION, num_seeds)
        values = np.clip(np.round(drawn * num_images), 0, num_images) / num_images
        yield "mean", mean_interval(values.tolist(), step=1 / num_images, bounds=SHARES)

    return Cell(f"{num_seeds} seeds on {num_images} val images", "seeds", draw, {"mean": 0.8})


# --- in words ---------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The results as tables, in percent."""
    blocks = [
        f"{results['simulations']:,} samples a cell. The 95 % intervals held the truth in "
        f"{100 * results['min_coverage']:.1f} to {100 * results['max_coverage']:.1f} % of them, seeds aside."
    ]
    for kind in ("images", "groups", "seeds"):
        rows = {name: cell for name, cell in results["cells"].items() if cell["kind"] == kind}
        scores = list(dict.fromkeys(score for cell in rows.values() for score in cell["shown"]))
        if not rows:
            continue
        header = ["sample", *(score.replace("_", " ") for score in scores)] + (
            ["drawn again"] if kind == "images" else []
        )
        lines = [header, ["---"] * len(header)]
        for name, cell in rows.items():
            shown = [_percent(cell, score) for score in scores]
            lines.append([name, *shown, *([f"{100 * cell['redrawn']:.1f}"] if kind == "images" else [])])
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)


def _percent(cell: dict[str, Any], score: str) -> str:
    if score not in cell["shown"]:
        return ""
    return f"{100 * cell['coverage'][score]:.1f}" if score in cell["coverage"] else "none"


def _in_words(cell: dict[str, Any]) -> str:
    return ", ".join(f"{score} {_percent(cell, score)}" for score in cell["shown"])


if __name__ == "__main__":
    main()
