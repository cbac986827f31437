"""The tables that searches are replayed on: every epoch of many configurations, each trained with several seeds.

    python -m benchmarks.replay.tables digits|fashion|solar [--most-seconds 3600]

Each run is kept in benchmarks/replay/TABLE.json.gz as soon as it ends, so the same command goes on where it stopped.
The seconds are those of a single thread on the CPU, so other work on the machine makes little difference to them. Of
the digits 337 images are for training: with all of them several configurations have no error on val, and no search can
tell them apart. The space of the solar cells was widened after a first look, for the same reason: with rates from 3e-4
to 3e-2, width 16 and 20 epochs, all 48 configurations ended between 0.81 and 0.84, and two seeds hardly agreed on their
order (rank correlation 0.2).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from scipy.stats import qmc

from imgcls.config.keys import Experiment
from imgcls.project import Project
from imgcls.runs.prepare import Prepared, prepare
from imgcls.training.loop import Task, TrainState, fit

FOLDER = Path(__file__).parent
PROJECT = Project(FOLDER.parents[1])

Space = Mapping[str, Any]
"""Key -> a list of values, or {low, high, log}, as in `[search.space]`."""


@dataclass(frozen=True)
class Table:
    """What is recorded of one data set.

    Attributes:
        base: the experiment that all configurations change.
        space: the keys that they change, within wide ranges, as somebody would who knows little of the data.
        num_configurations: spread over the space by Sobol's sequence.
        num_seeds: trainings of each configuration.
        num_images: of the data set that train and val share; None takes all.
    """

    name: str
    base: Mapping[str, Any]
    space: Space
    num_configurations: int
    num_seeds: int
    num_images: int | None = None

    @cached_property
    def configurations(self) -> list[dict[str, Any]]:
        """The values of each configuration; the first ones stay the same if there are to be more."""
        points = qmc.Sobol(len(self.space), seed=16).random_base2(math.ceil(math.log2(self.num_configurations)))
        return [
            {
                key: value_at(options, float(share))
                for (key, options), share in zip(self.space.items(), point, strict=True)
            }
            for point in points[: self.num_configurations]
        ]

    @property
    def path(self) -> Path:
        """Where its runs are kept."""
        return FOLDER / f"{self.name}.json.gz"

    def experiment(self, values: Mapping[str, Any], seed: int, *, searched: bool = False) -> Experiment:
        """The experiment of one run, with the search space if that is asked for."""
        search = {"search.space": self.space} if searched else {}
        return Experiment(name=self.name).replace({**self.base, **values, **search, "train.seed": seed})

    def read(self) -> dict[str, Any]:
        """What was recorded until now.

        Raises:
            ValueError: of another experiment, or in another search space.
        """
        given: dict[str, Any] = json.loads(json.dumps({"base": dict(self.base), "space": dict(self.space)}))
        if not self.path.exists():
            return {"table": self.name, **given, "runs": []}
        read: dict[str, Any] = json.loads(gzip.decompress(self.path.read_bytes()))
        if {key: read[key] for key in given} != given:
            raise ValueError(f"{self.path} was recorded with another base or search space; delete it to record again")
        return read


def value_at(options: Any, share: float) -> Any:
    """The value at this share, in [0, 1), of the range of a key."""
    if isinstance(options, list):
        return options[int(share * len(options))]
    low, high = options["low"], options["high"]
    if options.get("log"):
        return float(f"{low * (high / low) ** share:.4g}")
    if isinstance(low, int):
        return low + int(share * (high - low + 1))
    return float(f"{low + share * (high - low):.4g}")


_COMMON = {"train.threads": 1, "train.device": "cpu", "train.batch_size": 64}


def _space(depths: list[int], augmentation: Space, *, lr: tuple[float, float] = (3e-4, 3e-2)) -> Space:
    """The space of a table: wide ranges, its own depths and augmentation. The order of keys counts."""
    return {
        "train.lr": {"low": lr[0], "high": lr[1], "log": True},
        "train.warmup_epochs": {"low": 0, "high": 4},
        "model.depth": depths,
        "train.weight_decay": {"low": 1e-3, "high": 0.3, "log": True},
        **augmentation,
    }


TABLES = {
    table.name: table
    for table in (
        Table(
            "digits",
            {
                **_COMMON, "data.source": "digits", "data.image_size": 16, "data.val_fraction": 0.75,
                "model.name": "resnet", "model.width": 16, "augment.horizontal_flip": False,
                "augment.random_resized_crop": [0.8, 1.0], "train.epochs": 12,
            },
            _space([8, 14, 20], {"augment.rotation": {"low": 0.0, "high": 30.0}}),
            num_configurations=96, num_seeds=5,
        ),
        Table(
            "fashion",
            {
                **_COMMON, "data.source": "fashion-mnist", "data.image_size": 20, "data.val_fraction": 0.2,
                "model.name": "resnet", "model.width": 8, "augment.random_resized_crop": [0.8, 1.0],
                "train.epochs": 10,
            },
            _space([8, 14], {"augment.cutout": {"low": 0.0, "high": 0.5}}),
            num_configurations=48, num_seeds=3, num_images=5000,
        ),
        Table(
            "solar",
            {
                **_COMMON, "data.source": "elpv", "data.image_size": 64, "model.name": "resnet", "model.width": 8,
                "model.stem": "standard", "augment.random_resized_crop": [0.9, 1.0], "augment.vertical_flip": True,
                "augment.quarter_turns": True, "train.batch_size": 32, "train.epochs": 12,
                "train.label_smoothing": 0.0,
            },
            _space([10, 18], {"augment.mixup": {"low": 0.0, "high": 0.4}}, lr=(1e-5, 1e-1)),
            num_configurations=48, num_seeds=3,
        ),
    )
}  # fmt: skip


def record(table: Table, most_seconds: float) -> None:
    """Records what is missing, until the time is over: all configurations with the first seed, then with the next."""
    recorded, begun = table.read(), time.monotonic()
    done = {(run["configuration"], run["seed"]) for run in recorded["runs"]}
    wanted = [(number, seed) for seed, number in product(range(table.num_seeds), range(table.num_configurations))]
    missing = [each for each in wanted if each not in done]
    for count, (number, seed) in enumerate(missing, 1):
        if time.monotonic() - begun > most_seconds:
            break
        values = table.configurations[number]
        epochs = list(epochs_of(*_prepared(table, values, seed).begin()))
        recorded["runs"].append({
            "configuration": number, "values": values, "seed": seed,
            **{name: [epoch[name] for epoch in epochs] for name in ("accuracy", "loss", "seconds")},
            "date": datetime.now(UTC).date().isoformat(),
        })  # fmt: skip
        write_table(table.path, recorded)
        each = (time.monotonic() - begun) / count
        print(
            f"{table.name} {number} seed {seed}: best {max(epoch['accuracy'] for epoch in epochs):.4f}, "
            f"{sum(epoch['seconds'] for epoch in epochs):.0f} s; {len(missing) - count} runs are left, "
            f"about {each * (len(missing) - count) / 60:.0f} min",
            flush=True,
        )


def epochs_of(task: Task, state: TrainState) -> Iterator[dict[str, float]]:
    """Trains and yields val accuracy, val loss and seconds of each epoch; what is done between them does not count.

    A training that fails, as one whose loss is not finite, ends there: a search sees a failed trial.
    """
    from imgcls.errors import TrainingError

    begun = time.process_time()
    try:
        for result in fit(task, state):
            now = time.process_time()
            yield {
                "accuracy": round(result.val["val/accuracy"], 5),
                "loss": round(result.val["val/loss"], 5),
                "seconds": round(now - begun, 3),
            }
            begun = now
    except TrainingError as error:
        print(error, flush=True)


def _prepared(table: Table, values: Mapping[str, Any], seed: int) -> Prepared:
    prepared = prepare(table.experiment(values, seed), PROJECT)
    if table.num_images is None:
        return prepared
    # The splits are in the order of their content, so the first rows are a random choice.
    share = table.num_images / (len(prepared.dataset.train) + len(prepared.dataset.val))
    splits = prepared.dataset.train, prepared.dataset.val
    train, val = (split.rows(range(round(share * len(split)))) for split in splits)
    return replace(prepared, dataset=replace(prepared.dataset, train=train, val=val))


def write_table(path: Path, recorded: Mapping[str, Any]) -> None:
    """Writes a table aside, and puts it in its place."""
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_bytes(gzip.compress(json.dumps(recorded, separators=(",", ":")).encode(), mtime=0))
    aside.replace(path)


def main() -> None:
    """Records a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--most-seconds", type=float, default=math.inf, help="begin no further run after so many")
    arguments = parser.parse_args()
    record(TABLES[arguments.table], arguments.most_seconds)


if __name__ == "__main__":
    main()
