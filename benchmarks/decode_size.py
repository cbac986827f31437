"""Does the size at which images are kept cost accuracy? `python -m benchmarks.decode_size [EXPERIMENT] [--seeds 5]`.

Trains an experiment with the squares that the cache keeps, of `image_size / sqrt(smallest crop)`, and with squares of
the images' own size, from which each crop is then taken as if there were no cache. Prints each seed's best
val/accuracy, the two means and the 95% interval of their difference, paired by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.needs import require
from imgcls.config.keys import Experiment
from imgcls.config.load import load_experiment
from imgcls.data import train_side
from imgcls.project import Project, find_experiment
from imgcls.runs.prepare import cached_dataset, prepare
from imgcls.statistics.intervals import mean_interval
from imgcls.training.loop import fit


def main() -> None:
    """Trains and prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_size")
    parser.add_argument("experiment", nargs="?", default="solar_cells_scratch")
    parser.add_argument("--native-side", type=int, default=300, help="side of the images themselves, in pixels")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as train.epochs=10")
    arguments = parser.parse_args()
    path, project = find_experiment(arguments.experiment, Path.cwd())
    experiment = load_experiment(path, arguments.set)
    if experiment.data.source != "folder":
        require([experiment.data.source], project.root)
    rule = train_side.decode_side(experiment.data.image_size, experiment.augment, None)
    found = {"kept": rule, "native": arguments.native_side}
    scores: dict[str, list[float]] = {name: [] for name in found}
    for seed in range(1, arguments.seeds + 1):
        for name, side in found.items():
            scores[name].append(_best_accuracy(experiment.replace({"train.seed": seed}), project, side))
            sys.stderr.write(f"seed {seed}, squares of {side} pixels: {scores[name][-1]:.4f}\n")
    differences = [kept - native for kept, native in zip(scores["kept"], scores["native"], strict=True)]
    interval = mean_interval(differences)
    ends = None if interval is None else [interval.low, interval.high]
    means = {name: statistics.fmean(values) for name, values in scores.items()}
    result = {"sides": found, "val/accuracy": scores, "means": means, "difference": ends}
    sys.stdout.write(json.dumps(result) + "\n")


def _best_accuracy(experiment: Experiment, project: Project, side: int) -> float:
    rule = train_side.decode_side
    train_side.decode_side = lambda *_: side
    try:
        cached_dataset.cache_clear()
        prepared = prepare(experiment, project)
    finally:
        train_side.decode_side = rule
    assert prepared.dataset.train.stored.shape[-1] == side
    task, state = prepared.begin()
    return max(result.val_accuracy for result in fit(task, state))


if __name__ == "__main__":
    main()
