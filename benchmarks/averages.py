"""What do averages of one model bring on val? Three data sets, five seeds each, and every average of the same runs.

    python -m benchmarks.averages --folder FOLDER [--json]

Neither `train.average_epochs` nor `data.test_views` changes a step of the training. So each run is trained once, and
its last epochs are averaged and shown several views afterwards. FOLDER lies outside the repository. It is a project of
its own, whose store keeps every run, and the command goes on where it stopped. It writes benchmarks/AVERAGES.json, and
prints the table of docs/averages.md, or with --json the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from benchmarks.machine import describe_machine
from imgcls.config.key_types import TestViews
from imgcls.config.keys import DataConfig
from imgcls.config.load import load_experiment
from imgcls.data.sources.packaged import FASHION_CLASSES, FashionMnist
from imgcls.metrics import METRICS
from imgcls.project import Project
from imgcls.record import Artifact, Tag
from imgcls.reporting.tables import markdown_table
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import Prepared, prepare
from imgcls.runs.train import train_run
from imgcls.statistics.intervals import NO_INTERVAL, interval_over_seeds
from imgcls.statistics.predictions import Predictions
from imgcls.tracking.store import Tracker
from imgcls.training.averages import EpochAverage
from imgcls.training.checkpoint import load_checkpoint
from imgcls.training.loop import Task, predict_val

RESULTS = Path(__file__).with_name("AVERAGES.json")

SEEDS = (1, 2, 3, 4, 5)
"""Each is `train.seed` and `data.seed`, so val differs too."""

NUM_CLOTHES = 6000
"""Images of Fashion-MNIST's train split that are used, the first ones; a quarter of them is val."""

EXPERIMENTS = {
    "digits": """
data = { source = "digits", image_size = 16 }
model = { depth = 8, width = 16 }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = false, rotation = 10.0 }
train = { epochs = 12, batch_size = 64, lr = 1e-2, warmup_epochs = 2, threads = 1, device = "cpu" }
""",
    "fashion_mnist_6000": """
data = { source = "folder", path = "images", image_size = 28, channels = 1, test_fraction = 0.0, val_fraction = 0.25 }
model = { depth = 8, width = 8, stem = "small" }
augment = { horizontal_flip = true }
train = { epochs = 8, batch_size = 64, lr = 1e-2, warmup_epochs = 1, threads = 1, device = "cpu" }
""",
    "solar_cells": """
data = { source = "elpv", image_size = 64 }
model = { depth = 10, width = 16, stem = "standard" }
augment = { horizontal_flip = true, vertical_flip = true, quarter_turns = true }
train = { epochs = 12, batch_size = 32, lr = 4e-3, warmup_epochs = 1, threads = 1, device = "cpu" }
""",
}
"""Name -> the experiment's keys; small networks, so that a run takes less than a minute."""

SCORES = ("accuracy", "loss")
"""Scores on val that are compared."""


@dataclass(frozen=True)
class Average:
    """An average of a run, which is scored after its last epoch.

    Attributes:
        words: what it is.
        num_epochs: `train.average_epochs`.
        views: `data.test_views`.
        has_new_statistics: whether batch norm's statistics are computed again by a pass over train, not averaged.
    """

    words: str
    num_epochs: int = 1
    views: TestViews = "one"
    has_new_statistics: bool = False


AVERAGES = (
    Average("none"),
    Average("3 epochs", num_epochs=3),
    Average("5 epochs", num_epochs=5),
    Average("5 epochs, statistics computed again", num_epochs=5, has_new_statistics=True),
    Average("flips", views="flips"),
    Average("orientations", views="orientations"),
    Average("5 epochs and flips", num_epochs=5, views="flips"),
    Average("5 epochs and orientations", num_epochs=5, views="orientations"),
)
"""The first is what the others are compared with."""


def main() -> None:
    """Trains what is missing, scores every average, writes and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    results = {"machine": describe_machine(), "seeds": SEEDS, "averages": [*measure(folder)]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results) if arguments.json else table(results["averages"]))


def measure(folder: Path) -> Iterator[dict[str, Any]]:
    """The scores of every average on every data set, and how they differ from those without average."""
    _write_project(folder)
    tracker = Tracker(folder)
    tracker.close_orphans()
    for name in EXPERIMENTS:
        of_seeds = [_of_seed(folder, tracker, name, seed) for seed in SEEDS]
        for average in AVERAGES:
            yield _summary(name, average, of_seeds)


def _of_seed(folder: Path, tracker: Tracker, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Words of an average -> its scores, of one run, which is trained if it is not there yet."""
    scores = folder / "scores" / f"{name}_{seed}.json"
    if not scores.exists():
        prepared, record = _trained(folder, tracker, name, seed)
        scores.parent.mkdir(exist_ok=True)
        found = {average.words: _scores(prepared, record, tracker, average) for average in AVERAGES}
        scores.write_text(json.dumps(found))
    of_seed: dict[str, dict[str, float]] = json.loads(scores.read_text())
    return of_seed


def _trained(folder: Path, tracker: Tracker, name: str, seed: int) -> tuple[Prepared, RunRecord]:
    path = folder / "experiments" / f"{name}.toml"
    epochs = load_experiment(path).train.epochs
    most = max(average.num_epochs for average in AVERAGES)
    settings = f"train.seed={seed}", f"data.seed={seed}", f"train.save_from_epoch={epochs - most + 1}"
    prepared = prepare(load_experiment(path, (*settings, "report.figures=none")), Project(folder))
    tags = {Tag.KIND: "train", Tag.OUTCOME: "completed"}
    done = [run for run in tracker.find(tags, experiment=name) if run.params["train.seed"] == str(seed)]
    if done:
        return prepared, done[0]
    finished = train_run(prepared, tracker, kind="train", name=f"{name} {seed}")
    return prepared, tracker.get(finished.run_id)


def _scores(prepared: Prepared, record: RunRecord, tracker: Tracker, average: Average) -> dict[str, float]:
    """The scores on val of the last epoch under an average."""
    last = prepared.experiment.train.epochs
    model = prepared.device.place(prepared.model(with_weights=False))
    mean = EpochAverage(model, average.num_epochs)
    for epoch in range(last - average.num_epochs + 1, last + 1):
        with tracker.fetch(record.run_id, Artifact.EPOCH.format(epoch)) as path:
            model.load_state_dict(load_checkpoint(path)["model"])
        mean.add(model, epoch)
    task = replace(prepared.task_on_images(), test_views=average.views)
    if average.has_new_statistics:
        _compute_statistics(task, mean.model, last)
    of = Predictions(predict_val(task, mean.model).numpy(), task.val.labels.numpy())
    return {metric.name: metric.compute(of) for metric in METRICS if metric.name in SCORES}


def _compute_statistics(task: Task, model: nn.Module, epoch: int) -> None:
    """Computes batch norm's statistics again, from one more epoch's train images."""
    batches = enumerate(task.train.shuffled(task.config.seed, epoch))
    with torch.no_grad():
        update_bn((task.augmented(batch, epoch, step)[0] for step, batch in batches), model)


def _summary(name: str, average: Average, of_seeds: list[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Means over the seeds, and 95 % intervals of the paired differences over them."""
    summary: dict[str, Any] = {"data": name, "average": average.words, "seeds": len(of_seeds)}
    for score in SCORES:
        found = [of_seed[average.words][score] for of_seed in of_seeds]
        changes = [value - of_seed[AVERAGES[0].words][score] for value, of_seed in zip(found, of_seeds, strict=True)]
        interval = interval_over_seeds(changes, is_share=False) or NO_INTERVAL
        summary |= {score: float(np.mean(found))}
        summary |= {f"{score}_change": [float(np.mean(changes)), interval.low, interval.high]}
    return summary


def table(results: list[dict[str, Any]]) -> str:
    """The table of docs/averages.md: a row for each data set and average."""
    titles = ("data", "average", "val/accuracy", "its change", "val/loss", "its change")
    return markdown_table(titles, [_row(result) for result in results])


def _row(of: Mapping[str, Any]) -> tuple[str, ...]:
    def change(score: str) -> str:
        mean, low, high = of[f"{score}_change"]
        return "" if of["average"] == AVERAGES[0].words else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"

    words = [text for score in SCORES for text in (f"{of[score]:.4f}", change(score))]
    return of["data"], of["average"], *words


def _write_project(folder: Path) -> None:
    (folder / "experiments").mkdir(parents=True, exist_ok=True)
    for name, keys in EXPERIMENTS.items():
        (folder / "experiments" / f"{name}.toml").write_text(f'name = "{name}"\n{keys}')
    if not (folder / "images").is_dir():
        _write_clothes(folder / "images")


def _write_clothes(folder: Path) -> None:
    """Writes the first `NUM_CLOTHES` of Fashion-MNIST's train split as a PNG each, in a folder for each class."""
    train = FashionMnist().open(DataConfig(source="fashion-mnist"), folder / "downloaded").given["train"]
    for row, label in enumerate(train.labels[:NUM_CLOTHES].tolist()):
        path = folder / FASHION_CLASSES[label].replace("/", " or ") / f"{row:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        train.read(row).save(path)


if __name__ == "__main__":
    main()
