"""What helps where classes are uneven? Digits with a long tail, five ways to train on them, the same seeds for each.

    python -m benchmarks.long_tail train --form FORM --folder FOLDER    trains the runs; goes on where it stopped
    python -m benchmarks.long_tail table --form FORM --folder FOLDER    scores them, and writes and prints the results

FOLDER lies outside the repository: a project of its own for each form, whose store keeps every run and its
predictions. The results are written to benchmarks/LONG_TAIL.json, and the tables of docs/imbalance.md are printed.

Train and val are those of scikit-learn's digits; their test split stays sealed. Of train, an exponential profile is
kept (Cui et al. 2019, arXiv 1901.05555): the classes' numbers fall by equal factors, from all images of the most
frequent class to one in `RATIO` of the rarest. Val is as it was, so each class is about as frequent there. The seed
draws which classes are rare, which images are kept, and the training.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import f1_score

from benchmarks.machine import describe_machine
from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.config.load import load_experiment
from imgcls.data.image_set import DecodedImages
from imgcls.data.splits import load_dataset
from imgcls.project import Project
from imgcls.record import Tag
from imgcls.reporting.tables import markdown_table
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import prepare
from imgcls.runs.train import train_run
from imgcls.runs.val_predictions import as_logits, recorded_predictions
from imgcls.statistics.intervals import NO_INTERVAL, interval_over_seeds
from imgcls.statistics.predictions import Predictions
from imgcls.tracking.store import Tracker

RESULTS = Path(__file__).with_name("LONG_TAIL.json")

SEEDS = (1, 2, 3, 4, 5, 6)

NUM_RARE = 3
"""Number of the rarest classes whose recall is also reported by itself."""

SMALL_NETWORK = """
data = { image_size = 16, channels = 1 }
model = { name = "resnet", depth = 8, width = 16 }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = false, rotation = 10.0 }
train = { epochs = 40, batch_size = 32, lr = 1e-2, warmup_epochs = 2, score_epoch = 40, device = "cpu", threads = 1 }
search = { metric = "val/balanced_accuracy" }
report = { figures = "none" }
"""

FROZEN_FEATURES = """
data = { image_size = 64, channels = 3 }
model = { name = "timm:tf_efficientnet_lite0", weights = "package:efficientnet-lite0" }
augment = { horizontal_flip = false }
search = { metric = "val/balanced_accuracy" }
report = { figures = "none" }

[train]
head_only = true
epochs = 60
batch_size = 32
lr = 3e-3
score_epoch = 60
device = "cpu"
threads = 1
"""

FORMS = {"small network": SMALL_NETWORK, "frozen features": FROZEN_FEATURES}
"""Form -> its experiment."""

RATIO = 50
"""Train images of the most frequent class / of the rarest."""

WAYS: Mapping[str, tuple[str, ...]] = {
    "as they are": (),
    "class weights": ("train.class_weights=auto",),
    "balanced sampling": ("train.sampling=balanced",),
    "logit-adjusted loss": ("train.loss=logit_adjusted",),
    "focal loss": ("train.loss=focal",),
}
"""Way -> what it sets."""

BASE, USUAL = "as they are", "class weights"
"""The ways with which the others are compared: the table has the change from the first."""


def train(folder: Path, form: str) -> None:
    """Trains every run that the folder's store does not hold yet."""
    _write_project(folder, FORMS[form])
    tracker = Tracker(folder)
    tracker.close_orphans()
    for seed in SEEDS:
        write_long_tail(folder / "images" / str(seed), seed)
        for way, settings in WAYS.items():
            if (way, seed) not in _runs(tracker):
                overrides = (*settings, f"train.seed={seed}", f'data.path="images/{seed}"')
                prepared = prepare(load_experiment(_file(folder, way), overrides), Project(folder))
                train_run(prepared, tracker, kind="train", name=f"{way} {seed}")


def write_long_tail(folder: Path, seed: int) -> None:
    """Writes the images of a long-tailed train split and of val as a PNG each, in a folder for each class."""
    if folder.is_dir():
        return
    data = DataConfig(source="digits", image_size=8, val_fraction=0.3)
    dataset = load_dataset(data, AugmentConfig(), Project(folder))
    rows = long_tail(dataset.train.labels, np.random.default_rng(seed))
    for split, images in (("train", dataset.train.rows(rows)), ("val", dataset.val)):
        _write(folder / split, images)


def long_tail(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of the images that an exponential profile keeps; the classes' order in it is drawn."""
    nums = np.bincount(labels)
    kept = profile(int(nums.min()), len(nums))
    return np.concatenate([
        rng.choice(np.flatnonzero(labels == label), num, replace=False)
        for label, num in zip(rng.permutation(len(nums)), kept, strict=True)
    ])  # fmt: skip


def profile(most: int, num_classes: int) -> list[int]:
    """Images of each class, the most frequent first: equal factors from one class to the next."""
    return np.rint(most * float(RATIO) ** (-np.arange(num_classes) / (num_classes - 1))).astype(int).tolist()


def _write(folder: Path, images: DecodedImages) -> None:
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        path = folder / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0]).save(path)


def scored(val: Predictions, num_train: NDArray[np.int64]) -> dict[str, float]:
    """Scores on val, as if each class were as frequent, and as if classes were as frequent as in train.

    Args:
        val: logits and labels.
        num_train: int64 (K,), train images of each class.
    """
    losses, classes = -val.log_probs(val.labels), range(len(num_train))
    recalls = np.array([val.hits[val.labels == label].mean() for label in classes])
    of_class = np.array([losses[val.labels == label].mean() for label in classes])
    share = num_train / num_train.sum()
    weights = (share / np.bincount(val.labels))[val.labels]
    return {
        "balanced_accuracy": float(recalls.mean()),
        "rare_recall": float(recalls[np.argsort(num_train)[:NUM_RARE]].mean()),
        "accuracy_as_train": float(recalls @ share),
        "macro_f1_as_train": float(f1_score(val.labels, val.classes, average="macro", sample_weight=weights)),
        "loss_balanced": float(of_class.mean()),
        "loss_as_train": float(of_class @ share),
    }


CHANGES = ("balanced_accuracy", "accuracy_as_train", "macro_f1_as_train")
"""Scores whose change from `BASE`, and from `USUAL`, has an interval."""


def table(folder: Path, form: str) -> None:
    """Scores every run, writes the results, and prints the table."""
    runs, tracker = _runs(Tracker(folder)), Tracker(folder)
    val = {key: as_logits(recorded_predictions(run, tracker)) for key, run in runs.items()}
    scores = {way: [scored(val[way, seed], _num_train(folder, seed)) for seed in SEEDS] for way in WAYS}
    results = {
        "seeds": SEEDS, "train": sorted(_num_train(folder, SEEDS[0]).tolist(), reverse=True),
        "val": len(val[BASE, SEEDS[0]].labels), "machine": describe_machine(),
        "ways": [_summary(way, scores) for way in WAYS],
    }  # fmt: skip
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(before | {form: results}, indent=1) + "\n")
    print(as_table(results))


def _summary(way: str, scores: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Means over the seeds, and what changed with its 95 % interval over them, paired by seed."""
    summary: dict[str, Any] = {"way": way, "settings": WAYS[way]}
    summary |= {key: float(np.mean([of[key] for of in scores[way]])) for key in scores[way][0]}
    for key, other in itertools.product(CHANGES, [other for other in (BASE, USUAL) if other != way]):
        changes = [of[key] - base[key] for of, base in zip(scores[way], scores[other], strict=True)]
        interval = interval_over_seeds(changes, is_share=True, of_differences=True) or NO_INTERVAL
        summary[f"{key} against {other}"] = [float(np.mean(changes)), interval.low, interval.high]
    return summary


def as_table(results: Mapping[str, Any]) -> str:
    """The table of docs/imbalance.md: a row for each way."""
    titles = (
        "train images", "balanced accuracy", "its change", f"recall of the {NUM_RARE} rarest",
        "accuracy, classes as in train", "its change", "macro-F1, classes as in train", "its change",
    )  # fmt: skip
    return markdown_table(titles, [_row(way) for way in results["ways"]])


def _row(of: Mapping[str, Any]) -> tuple[str, ...]:
    def change(key: str) -> str:
        if of["way"] == BASE:
            return ""
        mean, low, high = of[f"{key} against {BASE}"]
        return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"

    first, *others = [(f"{of[key]:.3f}", change(key)) for key in CHANGES]
    return of["way"], *first, f"{of['rare_recall']:.3f}", *itertools.chain(*others)


def _runs(tracker: Tracker) -> dict[tuple[str, int], RunRecord]:
    """The completed run of each way and seed."""
    found = {way: tracker.find({Tag.KIND: "train", Tag.OUTCOME: "completed"}, experiment=_name(way)) for way in WAYS}
    return {(way, int(run.params["train.seed"])): run for way, runs in found.items() for run in runs}


def _num_train(folder: Path, seed: int) -> NDArray[np.int64]:
    classes = sorted((folder / "images" / str(seed) / "train").iterdir())
    return np.array([len(list(one.iterdir())) for one in classes])


def _name(way: str) -> str:
    return way.replace(" ", "_")


def _file(folder: Path, way: str) -> Path:
    return folder / "experiments" / f"{_name(way)}.toml"


def _write_project(folder: Path, experiment: str) -> None:
    (folder / "experiments").mkdir(parents=True, exist_ok=True)
    for way in WAYS:
        _file(folder, way).write_text(f'name = "{_name(way)}"\n{experiment}')


def main() -> None:
    """Does what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = {verb.__name__: verb for verb in (train, table)}
    parser.add_argument("what", choices=verbs)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--form", choices=FORMS, required=True, help="what is trained")
    arguments = parser.parse_args()
    verbs[arguments.what](arguments.folder.resolve(), arguments.form)


if __name__ == "__main__":
    main()
