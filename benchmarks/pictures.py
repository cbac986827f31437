"""Real images on disk: photographs that scikit-learn ships, solar cells of elpv, Fashion-MNIST as PNG."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.config.load import load_experiment
from imgcls.data.image_set import SourceImages
from imgcls.data.sources import open_source
from imgcls.data.splits import load_dataset
from imgcls.project import Project

JPEG_QUALITY = 90
LARGE = (4000, 3000)
"""Width and height of 12 megapixels."""

Rows = dict[str, NDArray[np.int64]]
"""Split -> rows of a table."""


def write_photos(folder: Path, num_train: int, num_val: int, *, large: bool) -> None:
    """Writes JPEG photographs in two classes below `train/` and `val/`.

    Each is cut out of one of two photographs by its own draw: of about 400x500 pixels, or tiled (neighbours mirrored,
    so that there are no edges) to 12 megapixels.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    jobs: list[tuple[Path, NDArray[np.uint8], int]] = []
    for split, count in (("train", num_train), ("val", num_val)):
        for number in range(count):
            label = number % 2
            path = folder / split / ("china", "flower")[label] / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            jobs.append((path, photographs[label], len(jobs)))

    def write(job: tuple[Path, NDArray[np.uint8], int]) -> None:
        path, photograph, seed = job
        draw = _tiled if large else _cut
        draw(photograph, np.random.default_rng(seed)).save(path, quality=JPEG_QUALITY)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, jobs))


def _cut(photograph: NDArray[np.uint8], draws: np.random.Generator) -> Image.Image:
    height, width = photograph.shape[:2]
    side_y, side_x = (int(n * draws.uniform(0.6, 1.0)) for n in (height, width))
    y, x = draws.integers(height - side_y + 1), draws.integers(width - side_x + 1)
    piece = photograph[y : y + side_y, x : x + side_x]
    size = (int(draws.integers(380, 421)), int(draws.integers(480, 521)))
    return Image.fromarray(piece).resize(size, Image.Resampling.BICUBIC)


def _tiled(photograph: NDArray[np.uint8], draws: np.random.Generator) -> Image.Image:
    block = np.concatenate((photograph, photograph[:, ::-1]), axis=1)
    block = np.concatenate((block, block[::-1]), axis=0)
    width, height = LARGE
    wall = np.tile(block, (-(-height // block.shape[0]) + 1, -(-width // block.shape[1]) + 1, 1))
    y, x = draws.integers(wall.shape[0] - height + 1), draws.integers(wall.shape[1] - width + 1)
    return Image.fromarray(wall[y : y + height, x : x + width])


def write_solar_cells(folder: Path, num_train: int, repository: Path) -> None:
    """Copies the cells of the package, as they are, into class folders below `train/` and `val/`.

    Args:
        folder: gets them.
        num_train: 0 for the very split of the experiment; else a stratified choice, and half as many for val.
        repository: the project that holds `experiments/solar_cells_scratch.toml`.
    """
    source = open_source(DataConfig(source="elpv"), repository / "data")
    table = source.everything
    assert table is not None
    rows = _stratified(table, num_train) if num_train else _carved_as_by_default(table, repository)
    for split, chosen in rows.items():
        for row in chosen:
            to = folder / split / source.class_names[table.labels[row]] / Path(table.keys[row]).name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(table.path(int(row)), to)


def _carved_as_by_default(table: SourceImages, repository: Path) -> Rows:
    experiment = load_experiment(repository / "experiments" / "solar_cells_scratch.toml")
    dataset = load_dataset(experiment.data, AugmentConfig(), Project(repository))
    row_of = {key: row for row, key in enumerate(table.keys)}
    return {
        split: np.array([row_of[key] for key in images.keys])
        for split, images in (("train", dataset.train), ("val", dataset.val))
    }


def _stratified(table: SourceImages, num_train: int) -> Rows:
    """Shares of each class as in the whole; val is half of train."""
    order = np.random.default_rng(0).permutation(len(table))
    train, val = [], []
    for label in np.unique(table.labels):
        of_class = order[table.labels[order] == label]
        wanted = round(num_train * len(of_class) / len(table))
        train.append(of_class[:wanted])
        val.append(of_class[wanted : wanted + max(1, wanted // 2)])
    return {"train": np.concatenate(train), "val": np.concatenate(val)}


def write_fashion_mnist(folder: Path, num_train: int, num_val: int, repository: Path) -> None:
    """Writes the first train images of Fashion-MNIST as PNG into class folders below `train/` and `val/`."""
    source = open_source(DataConfig(source="fashion-mnist"), repository / "data")
    table = source.given["train"]
    for row in range(num_train + num_val):
        name = source.class_names[table.labels[row]].replace("/", " or ")
        path = folder / ("train" if row < num_train else "val") / name / f"{row:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.read(row).save(path)


def write_noise(folder: Path, num_images: int, side: int, *, val_share: float = 0.1) -> None:
    """Writes small PNG of smooth noise, no two alike, in two classes below `train/` and `val/`."""
    draws = np.random.default_rng(0)
    num_val = max(2, round(num_images * val_share))
    for number in range(num_images + num_val):
        split = "train" if number < num_images else "val"
        path = folder / split / ("a", "b")[number % 2] / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draws.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, compress_level=1)
