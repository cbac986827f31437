"""The four works: the same images, net, augmentation and batch for everyone who takes part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.forms import Form
from imgcls.config.keys import Experiment
from imgcls.config.load import load_experiment
from imgcls.models.registry import build_model, resolve_model
from imgcls.rng import derive_seed

REPOSITORY = Path(__file__).resolve().parent.parent
ENDLESS = 100_000
"""Epochs of an experiment that is trained an epoch at a time until nobody asks for more."""


@dataclass(frozen=True)
class Work:
    """One training to be done.

    Attributes:
        name: of the work.
        folder: holds `train/` and `val/`, each with one folder per class.
        experiment: how ours does it; whoever else does it reads its settings.
        root: the project's root of ours, with a store of its own where one is needed.
    """

    name: str
    folder: Path
    experiment: Experiment
    root: Path

    @property
    def channels(self) -> int:
        """1 or 3."""
        assert self.experiment.data.channels != "auto"
        return self.experiment.data.channels

    @property
    def num_classes(self) -> int:
        """Classes, one a folder."""
        return sum(path.is_dir() for path in (self.folder / "train").iterdir())

    @property
    def num_train(self) -> int:
        """Train images."""
        return sum(path.is_file() for path in (self.folder / "train").rglob("*"))

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation as people write them down: ImageNet's for colour, a half for grey."""
        if self.channels == 3:
            return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return (0.5,), (0.5,)

    def net(self) -> nn.Module:
        """The net with its starting weights, placed nowhere yet."""
        size, model = self.experiment.data.image_size, self.experiment.model
        return build_model(
            resolve_model(model, self.channels, size),
            num_classes=self.num_classes,
            channels=self.channels,
            image_size=size,
            seed=derive_seed(self.experiment.train.seed, "weights"),
        )

    def on(self, device: str) -> Work:
        """The same work on another device."""
        train = self.experiment.train.model_copy(update={"device": device})
        return replace(self, experiment=self.experiment.model_copy(update={"train": train}))

    def describe(self) -> str:
        """The settings in one line."""
        model, train, data = self.experiment.model, self.experiment.train, self.experiment.data
        colours = "grey" if self.channels == 1 else "RGB"
        return (
            f"{self.num_train:,} images, {data.image_size} px {colours}, ResNet of depth {model.depth} and width "
            f"{model.width} ({model.stem} stem), batches of {train.batch_size}"
        )


def make_work(name: str, form: Form, into: Path) -> Work:
    """Writes a work's images below `into` and describes it."""
    # Here, because whoever only trains a work needs none of what writes it.
    from benchmarks.pictures import write_fashion_mnist, write_photos, write_solar_cells

    folder, root = into / name / "images", into / name / "project"
    root.mkdir(parents=True)
    writers: dict[str, Callable[[], None]] = {
        "photos": lambda: write_photos(folder, form.photos, 32, large=False),
        "large_photos": lambda: write_photos(folder, form.large_photos, 4, large=True),
        "solar_cells": lambda: write_solar_cells(folder, form.solar_cells, REPOSITORY),
        "fashion_mnist": lambda: write_fashion_mnist(folder, form.fashion_mnist, 500, REPOSITORY),
    }
    writers[name]()
    return Work(name, folder, _endless(_settings(name, folder)), root)


def make_solar_cells(num_train: int, into: Path) -> Work:
    """The solar cells alone, with the number of epochs of their experiment from random weights."""
    from benchmarks.pictures import write_solar_cells

    folder, root = into / "images", into / "project"
    root.mkdir(parents=True)
    write_solar_cells(folder, num_train, REPOSITORY)
    return Work("solar_cells", folder, _settings("solar_cells", folder), root)


def _endless(experiment: Experiment) -> Experiment:
    """Many epochs at a gentle rate: it is speed that is measured, and nets that diverge stop."""
    return experiment.replace({"train.epochs": ENDLESS, "train.lr": 1e-3})


def _settings(name: str, folder: Path) -> Experiment:
    """The experiment of a work, reading its folder."""
    given: dict[str, Any] = {
        "data.source": "folder",
        "data.path": str(folder),
        "data.allow_leaks": True,  # cut out of two photographs, images are alike
        "train.device": "cpu",
    }
    files = {"solar_cells": "solar_cells_scratch", "fashion_mnist": "fashion_mnist"}
    if name in files:
        experiment = load_experiment(REPOSITORY / "experiments" / f"{files[name]}.toml")
        return experiment.replace(given | {"data.channels": 1})
    photographs = load_experiment(REPOSITORY / "experiments" / "my_folder.toml")
    widths, batches = {"photos": 64, "large_photos": 16}, {"photos": 64, "large_photos": 32}
    return photographs.replace(
        given
        | {
            "name": name,
            "data.channels": 3,
            "data.image_size": 64,
            "model.depth": 18,
            "model.width": widths[name],
            "model.stem": "standard",
            "train.batch_size": batches[name],
        }
    )
