"""What training in folds is compared by: small folders of digits, every configuration trained on each of their folds.

    python -m benchmarks.replay.fold_table [--most-seconds 3600]

A folder has 300 of the digits' train and val images, drawn by content and dealt to five folds by the package's own
code. All other images of train and val are held back: no training and no choice sees them, and the accuracy on them is
the truth. Test stays sealed. The configurations and the epochs are those of the table `digits`. Each configuration of a
folder is kept in benchmarks/replay/folds.json.gz as soon as it ends, so the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.tables import FOLDER, PROJECT, TABLES, epochs_of, write_table
from imgcls.data.folds import deal_folds
from imgcls.data.image_set import DecodedImages
from imgcls.data.loader import Loader
from imgcls.data.splits import carve
from imgcls.runs.prepare import Prepared, prepare
from imgcls.statistics.temperature import probabilities
from imgcls.training.loop import predict

PATH = FOLDER / "folds.json.gz"
DIGITS = TABLES["digits"]

NUM_IMAGES, NUM_FOLDS, NUM_FOLDERS, NUM_CONFIGURATIONS = 300, 5, 5, 48

OWN = {"data.folds": NUM_FOLDS, "data.image_size": 8}
"""What differs from the table `digits`: the digits as they are, not enlarged, since so many trainings take long."""

Recorded = dict[str, Any]


class Folder(NamedTuple):
    """A small folder: the experiment on its images in folds, and the images that are held back."""

    prepared: Prepared
    held_back: DecodedImages


def folder(number: int, values: dict[str, Any]) -> Folder:
    """A small folder with a configuration that is to be trained on it."""
    prepared = prepare(DIGITS.experiment(values, 0).replace(OWN), PROJECT)
    whole = prepared.dataset
    is_small = carve(whole.train.digests, whole.train.labels, NUM_IMAGES / len(whole.train), f"small folder {number}")
    rows, others = np.flatnonzero(is_small), np.flatnonzero(~is_small)
    train = whole.train.rows(rows)
    folds = deal_folds(train, NUM_FOLDS, number, whole.class_names)
    dataset = replace(whole, train=train, val=whole.val.rows(rows), folds=folds)
    return Folder(replace(prepared, dataset=dataset), whole.val.rows(others))


class Fold(NamedTuple):
    """A fold as it was trained.

    Attributes:
        val: accuracy on its own val after each epoch.
        seconds: of each epoch, val included.
        best: accuracy, on the images held back, of the epoch that is best on its own val.
        last: and of the last epoch; NaN where the training failed before it.
        probs: float64 (N, K), of the images held back, after the last epoch.
    """

    val: list[float]
    seconds: list[float]
    best: float
    last: float
    probs: NDArray[np.float64]


def train_fold(of: Folder, number: int) -> Fold:
    """Trains the model of a fold."""
    prepared = of.prepared.of_fold(number)
    task, state = prepared.begin()
    loader = Loader(of.held_back, prepared.experiment.train.eval_batch_size, prepared.device.torch_device)
    val, seconds, best = list[float](), list[float](), state.model.state_dict()
    for epoch in epochs_of(task, state):
        val.append(epoch["accuracy"])
        seconds.append(epoch["seconds"])
        if state.best(task.metric) is state.history[-1]:
            best = deepcopy(state.model.state_dict())

    def on_held_back() -> NDArray[np.float64]:
        return probabilities(predict(state.model, loader, task.normalise, task.device).numpy())

    at_last = on_held_back()
    state.model.load_state_dict(best)
    is_whole = len(val) == task.config.epochs
    last = accuracy(at_last, of.held_back) if is_whole else math.nan
    return Fold(val, seconds, accuracy(on_held_back(), of.held_back), last, at_last)


def accuracy(probs: NDArray[np.float64], images: DecodedImages) -> float:
    """Share of the images whose class (N, K) says."""
    return round(float((probs.argmax(axis=1) == images.labels).mean()), 5)


def train_all(of: Folder) -> Recorded:
    """Trains all folds; `together` is the accuracy, on the images held back, of their models together at the end."""
    folds = [train_fold(of, number) for number in range(1, NUM_FOLDS + 1)]
    return {
        **{name: [getattr(fold, name) for fold in folds] for name in ("val", "seconds", "best", "last")},
        "sizes": np.bincount(of.prepared.dataset.folds)[1:].tolist(),
        "together": accuracy(np.mean([fold.probs for fold in folds], axis=0), of.held_back),
    }


def read() -> Recorded:
    """What was recorded until now."""
    if not PATH.exists():
        return {"table": "folds", "runs": []}
    read: Recorded = json.loads(gzip.decompress(PATH.read_bytes()))
    return read


def record(most_seconds: float) -> None:
    """Records what is missing, until the time is over: all configurations of the first folder, then of the next."""
    recorded, begun = read(), time.monotonic()
    done = {(run["folder"], run["configuration"]) for run in recorded["runs"]}
    missing = [each for each in product(range(NUM_FOLDERS), range(NUM_CONFIGURATIONS)) if each not in done]
    for count, (number, configuration) in enumerate(missing, 1):
        if time.monotonic() - begun > most_seconds:
            break
        of = train_all(folder(number, DIGITS.configurations[configuration]))
        recorded["runs"].append({"folder": number, "configuration": configuration, **of})
        write_table(PATH, recorded)
        left = (time.monotonic() - begun) / count * (len(missing) - count)
        seconds = sum(map(sum, of["seconds"]))
        print(
            f"folder {number}, configuration {configuration}: together {of['together']:.4f}, "
            f"{seconds:.1f} s; {len(missing) - count} are left, about {left / 60:.0f} min",
            flush=True,
        )


def main() -> None:
    """Records the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most-seconds", type=float, default=math.inf, help="begin no further one after so many")
    record(parser.parse_args().most_seconds)


if __name__ == "__main__":
    main()
