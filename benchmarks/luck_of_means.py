"""How lucky is a mean that was the highest of several? A simulation of sweeps and their confirmations.

    python -m benchmarks.luck_of_means [--simulations 20000]

A sweep has T trials whose true accuracies (the mean over all seeds and all images) are drawn from a normal
distribution of standard deviation `SPREAD`. Every configuration has a luck of its own on these val images, which stays
the same for each of its seeds, and each training has its seed's luck. The best trial is chosen; then the best C
configurations are trained again with S fresh seeds, and the highest mean is chosen. Each row tells how much higher than
its configuration's true accuracy the chosen number is, on average, in points of accuracy.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ACCURACY = 0.85
"""Around which the configurations lie."""

SPREAD = 0.005
"""Standard deviation of the configurations' true accuracies."""

SEED_STD = 0.008
"""Standard deviation of the accuracy over training seeds."""

OF_THE_IMAGES = 0.3
"""Share of the variance of an accuracy on N images that two configurations of a sweep do not have in common."""

TRIALS = (20, 40)
NUM_VAL = (300, 2000)
CONFIRMATIONS = ((3, 3), (3, 5), (5, 5), (3, 10))
"""(configurations, seeds)."""


@dataclass(frozen=True)
class Luck:
    """Mean excess of what is chosen over the truth of its configuration, each in points of accuracy.

    Attributes:
        trial: of the best trial's score.
        seeds: of the highest mean, as far as seeds make it: what more seeds would take away.
        images: of the highest mean, as far as the val images make it: what no seed takes away.
        error: standard error of `seeds` over the simulations.
    """

    trial: float
    seeds: float
    images: float
    error: float


def simulate(
    num_trials: int, num_val: int, configurations: int, seeds: int, *, simulations: int, spread: float = SPREAD,
    seed: int = 0,
) -> Luck:  # fmt: skip
    """Simulates sweeps and their confirmations.

    Args:
        num_trials: of each sweep.
        num_val: images that choose.
        configurations: that are trained again.
        seeds: fresh seeds for each.
        simulations: sweeps.
        spread: standard deviation of the configurations' true accuracies.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    image_std = math.sqrt(OF_THE_IMAGES * ACCURACY * (1 - ACCURACY) / num_val)
    shape = (simulations, num_trials)
    truth = rng.normal(ACCURACY, spread, shape)
    on_val = truth + rng.normal(0, image_std, shape)
    scores = on_val + rng.normal(0, SEED_STD, shape)
    best = scores.argmax(axis=1)
    confirmed = np.argsort(-scores, axis=1)[:, :configurations]
    expected = np.take_along_axis(on_val, confirmed, axis=1)
    means = expected + rng.normal(0, SEED_STD / math.sqrt(seeds), expected.shape)
    winner = means.argmax(axis=1)
    by_seeds = _at(means - expected, winner)
    by_images = _at(np.take_along_axis(on_val - truth, confirmed, axis=1), winner)
    return Luck(
        trial=100 * float(_at(scores - truth, best).mean()),
        seeds=100 * float(by_seeds.mean()),
        images=100 * float(by_images.mean()),
        error=100 * float(by_seeds.std() / math.sqrt(simulations)),
    )


def table(simulations: int) -> Iterator[str]:
    """The table of docs/selection.md, line by line."""
    yield "| trials | val images | confirmed, seeds | best trial | highest mean: by seeds | highest mean: by images |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for num_trials in TRIALS:
        for num_val in NUM_VAL:
            for configurations, seeds in CONFIRMATIONS:
                luck = simulate(num_trials, num_val, configurations, seeds, simulations=simulations)
                cells = f"{luck.trial:.2f}", f"{luck.seeds:.2f}", f"{luck.images:.2f}"
                yield f"| {num_trials} | {num_val:,} | {configurations}, {seeds} | {' | '.join(cells)} |"


def _at(values: NDArray[np.float64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    chosen: NDArray[np.float64] = np.take_along_axis(values, columns[:, None], axis=1)[:, 0]
    return chosen


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=20_000, help="sweeps in each row")
    for line in table(parser.parse_args().simulations):
        print(line, flush=True)


if __name__ == "__main__":
    main()
