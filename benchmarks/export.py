"""Every family of networks exported: `python -m benchmarks.export --path FOLDER [NAME ...]`.

Trains each network for a few epochs on a folder of images, exports the run in both formats, and prints a line of a
table for each: the largest difference from the run's own predictions of val, the size of the file, and how many squares
are predicted in a second, in batches of 32 on one thread, by the network in torch and by the file. docs/exporting.md
has the table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine
from imgcls.config.load import load_experiment
from imgcls.inference.export import export_run, inference_graph
from imgcls.inference.exported_model import load_exported
from imgcls.inference.find_model import find_run_model
from imgcls.inference.run_model import RunModel
from imgcls.metrics import ACCURACY
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from imgcls.runs.train import train_run
from imgcls.tracking.store import Tracker

FAMILIES: dict[str, tuple[str, ...]] = {
    "resnet": ("model.name=resnet",),
    "resnet32": ("model.name=resnet32",),
    "random-encoder, patch 16": (
        "model.name=random-encoder", "model.patch=16", "model.width=16", "data.image_size=64",
    ),
    "random-encoder, patch 64": (
        "model.name=random-encoder", "model.patch=64", "model.width=16", "data.image_size=64",
    ),
    "mobilenet_v3_small": ("model.name=torchvision:mobilenet_v3_small",),
    "tf_efficientnet_lite0": ("model.name=timm:tf_efficientnet_lite0", "model.weights=package:efficientnet-lite0"),
    "vit_tiny_patch16_224": ("model.name=timm:vit_tiny_patch16_224", "data.image_size=224"),
}  # fmt: skip
"""Name in the table -> settings."""

BATCH, ROUNDS = 32, 7


def main() -> None:
    """Trains, exports and prints a table as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export")
    parser.add_argument("names", nargs="*", default=list(FAMILIES), help="which networks; all by default")
    parser.add_argument(
        "--path", type=Path, required=True, help="a folder of images with train/ and val/, or of classes"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as data.image_size=64")
    arguments = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n\n{_line(*TITLES)}{_line(*['---'] * len(TITLES))}")
    for name in arguments.names:
        settings = ["data.image_size=96", *FAMILIES[name], *arguments.set]
        with tempfile.TemporaryDirectory() as folder:
            _exported(name, _trained(Path(folder), arguments.path, settings), Path(folder))


TITLES = (
    "network",
    "val accuracy",
    "format",
    "squares",
    "whole images",
    "other class",
    "MB",
    "torch images/s",
    "file images/s",
)


def _trained(folder: Path, images: Path, settings: list[str]) -> RunModel:
    (folder / "experiments").mkdir()
    file = folder / "experiments" / "export.toml"
    file.write_text(
        'name = "export"\n\n[data]\nsource = "folder"\n\n[train]\nepochs = 3\nwarmup_epochs = 0\nthreads = 1\n'
    )
    experiment = load_experiment(file, (f"data.path={images.resolve()}", *settings))
    tracker = Tracker(folder)
    run = train_run(prepare(experiment, Project(folder)), tracker, kind="train", name="export")
    return find_run_model(run.run_id, tracker)


def _exported(name: str, model: RunModel, folder: Path) -> None:
    torch.set_num_threads(1)
    side, graph = model.preprocessing.image_size, inference_graph(model)
    shape = BATCH, side, side, model.preprocessing.channels
    squares = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    under_torch = _images_per_second(lambda: graph(torch.from_numpy(squares)))
    for ending in ("onnx", "pt2"):
        done = export_run(model, Tracker(folder), folder / f"model.{ending}")
        file, proof = load_exported(done.path, is_trusted=True), done.proof
        of_file = _images_per_second(lambda file=file: file.whole(squares))  # type: ignore[misc]
        cells = (
            name, f"{model.record.best(ACCURACY.on_val):.2f}", ending,
            f"{proof.squares.largest:.1e}", f"{proof.whole.largest:.1e}",
            f"{proof.squares.num_other_class} and {proof.whole.num_other_class} of {proof.squares.num_images}",
            f"{done.num_bytes / 1e6:.1f}", f"{under_torch:.0f}", f"{of_file:.0f}",
        )  # fmt: skip
        sys.stdout.write(_line(*cells))
        sys.stdout.flush()


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _images_per_second(predict: Callable[[], object]) -> float:
    """The median of some rounds, after one that does not count."""
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + ROUNDS):
            begun = time.perf_counter()
            predict()
            seconds.append(time.perf_counter() - begun)
    return BATCH / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
