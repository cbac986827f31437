"""Real image files, and the settings that read them."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import sources
from imgcls.data.image_set import DecodedImages, Hashes
from imgcls.data.splits import load_dataset
from imgcls.project import Project

NO_CROP = AugmentConfig()


def noise(seed, size=(12, 10)):
    """uint8 (height, width, 3): no two seeds alike."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def picture(seed, size=(96, 72)):
    """uint8 (height, width, 3), with patches of light and shade as photographs have them."""
    coarse = Image.fromarray(noise(seed, (7, 6)))
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_class(folder, seeds, suffix=".png"):
    """One image file a seed."""
    return [write(folder / f"{seed:04d}{suffix}", noise(seed)) for seed in seeds]


def write_classes(root, sizes):
    """A folder of class folders; `sizes`: class name -> number of images."""
    start = 0
    for name, size in sizes.items():
        write_class(root / name, range(start, start + size))
        start += size
    return root


def load(root, augment=NO_CROP, **settings):
    """`load_dataset` on a folder, at 8 pixels."""
    config = DataConfig(**({"source": "folder", "path": str(root), "image_size": 8} | settings))
    return load_dataset(config, augment, Project(Path("/")))


def open_source(config, root):
    """The source as `load_dataset` opens it in the project at `root`."""
    return sources.open_source(config, Project(root).images(config))


def decoded_images(pixels, labels, keys=None, at=None):
    """A set of images whose hashes say nothing; `pixels`: uint8 (M, C, side, side)."""
    keys = tuple(map(str, range(len(labels)))) if keys is None else keys
    return DecodedImages(keys, labels, Hashes.zeros(len(labels)), pixels, np.arange(len(labels)) if at is None else at)


def digests(rows):
    return [row.tobytes() for row in rows]


def cached_files(folder):
    return [Path(parent) / name for parent, _, files in os.walk(folder) for name in files]
