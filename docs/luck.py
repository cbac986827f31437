"""What luck alone looks like: a sweep on labels that mean nothing, its winner confirmed, then judged.

    python docs/luck.py [PICTURE] [--trials 30] [--top 3] [--seeds 10]

The digits of scikit-learn, 170 of each class, get their own labels in shuffled order, so nothing can be learnt and
chance is 0.1. The sweep runs in a folder of its own. Prints what it found as JSON, and draws it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

from imgcls.config.load import load_experiment
from imgcls.evaluation.judge import evaluate
from imgcls.reporting.drawing import save_png
from imgcls.search.sweep import Sweep
from imgcls.tracking.store import Tracker

IMAGES_PER_CLASS = 170
CHANCE = 0.1

EXPERIMENT = """
name = "noise"

[data]
source = "folder"
path = "images"
image_size = 8
channels = 1

[model]
depth = 8
width = 4

[augment]
horizontal_flip = false

[train]
epochs = 4
batch_size = 128
threads = 1
device = "cpu"

[search]
workers = 1
pruner = "none"
sampler = "random"

[search.space]
"train.lr" = { low = 1e-3, high = 1e-1, log = true }
"train.warmup_epochs" = { low = 0, high = 2 }
"model.depth" = [8, 14]
"""


def write_images(folder: Path) -> None:
    """Balanced digits whose labels are shuffled: equally many images of each class, and no class means anything."""
    digits = load_digits()
    draws = np.random.default_rng(0)
    rows = np.concatenate([np.flatnonzero(digits.target == k)[:IMAGES_PER_CLASS] for k in range(10)])
    labels = draws.permutation(np.repeat(np.arange(10), IMAGES_PER_CLASS))
    for row, label in zip(rows, labels, strict=True):
        path = folder / str(label) / f"{row:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(digits.images[row] * (255 / 16)).astype(np.uint8)).save(path)


def search(root: Path, trials: int, top: int, seeds: int) -> dict[str, object]:
    """Sweeps, confirms and judges in `root`; everything found, as plain values."""
    write_images(root / "images")
    path = root / "experiments" / "noise.toml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT)
    again = [f"search.confirm.top={top}", f"search.confirm.seeds={seeds}"]
    experiment = load_experiment(path, [f"search.trials={trials}", *again])
    tracker = Tracker(root)
    found = Sweep(experiment, tracker).run()
    assert found.confirmation is not None
    judged = evaluate(found.run_id, tracker)
    values = found.confirmation.winner.values
    return {
        "trials": found.leaderboard["val/accuracy"].tolist(),
        "best_trial": found.best_value,
        "confirmed": list(values),
        "confirmed_mean": statistics.fmean(values),
        "optimism": found.confirmation.optimism,
        "test": judged.test["accuracy"],
        "test_low": judged.test.interval("accuracy").low,
        "test_high": judged.test.interval("accuracy").high,
        "report": judged.report,
    }


def draw(found: dict[str, object]) -> Figure:
    """The scores beside chance."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    trials, confirmed = found["trials"], found["confirmed"]
    axes.plot(trials, [3] * len(trials), "o", color="#0072B2", alpha=0.5, label=None)
    axes.plot(found["best_trial"], 3, "*", color="#D55E00", markersize=14)
    axes.annotate("what a sweep reports", (found["best_trial"], 3), (0, 12), textcoords="offset points", ha="center")
    axes.plot(confirmed, [2] * len(confirmed), "o", color="#0072B2", alpha=0.5)
    axes.plot(found["confirmed_mean"], 2, "D", color="#D55E00", markersize=8)
    test, low, high = found["test"], found["test_low"], found["test_high"]
    axes.errorbar(test, 1, xerr=[[test - low], [high - test]], fmt="s", color="#D55E00", capsize=5, markersize=8)
    axes.axvline(CHANCE, color="#666666", linestyle="--", linewidth=1)
    axes.annotate(" chance", (CHANCE, 0.45), color="#666666", fontsize=9)
    axes.set_yticks(
        [1, 2, 3],
        [
            "test, 95% interval",
            f"best configuration,\n{len(confirmed)} fresh seeds, mean",
            f"{len(trials)} trials on val",
        ],
    )
    axes.set(ylim=(0.4, 3.7), xlabel="accuracy on labels that mean nothing")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return figure


def main() -> None:
    """Runs in a temporary folder, and leaves the picture alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path, default=Path("luck.png"))
    parser.add_argument("--trials", type=int, default=30, help="trials of the sweep")
    parser.add_argument("--top", type=int, default=3, help="configurations that are trained again")
    parser.add_argument("--seeds", type=int, default=10, help="times that each of them is trained again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = search(Path(folder), options.trials, options.top, options.seeds)
    options.picture.write_bytes(save_png(draw(found)))
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
