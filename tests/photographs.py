"""Photographs of many kinds, and a finished run on them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.data.make import picture

QUICK = (
    'data.source="folder"', 'data.path="images"', "data.image_size=16", "train.epochs=2", "train.warmup_epochs=0",
    "train.batch_size=8",
)  # fmt: skip


def save_photograph(folder, seed):
    """A photograph of one of seven kinds, of its own shape, as `seed` says; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = picture(seed, (70 + 13 * (seed % 5), 60 + 17 * (seed % 7)))
    image, path = Image.fromarray(pixels), folder / f"{seed:03d}"
    turned = Image.Exif()
    turned[0x0112] = 3 + seed % 6
    kinds = {
        ".jpg": lambda path: image.save(path, quality=90),
        ".turned.jpg": lambda path: image.save(path, exif=turned),
        ".cmyk.jpg": lambda path: image.convert("CMYK").save(path),
        ".grey.png": lambda path: image.convert("L").save(path),
        ".deep.png": lambda path: Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path),
        ".clear.png": lambda path: Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(path),
        ".wide.webp": lambda path: image.resize((400, 20)).save(path, lossless=True),
    }
    suffix = list(kinds)[seed % len(kinds)]
    path = path.with_name(path.name + suffix)
    kinds[suffix](path)
    return path


@dataclass(frozen=True)
class Shop:
    """A project with a finished run on photographs.

    Attributes:
        project: at its root are `images/train`, `images/val` and `images/test`.
        run_id: of the run.
    """

    project: object
    run_id: str

    @property
    def record(self):
        return self.project.tracker.get(self.run_id)

    @property
    def images(self):
        return self.project.root / "images"

    def project_image(self, name):
        from imgcls.data.decode import read_image

        return read_image(self.images / name)

    def model(self):
        from imgcls.inference.find_model import find_run_model

        return find_run_model(self.run_id, self.project.tracker)


def write_photographs(images):
    for split, seeds in (("train", range(40)), ("val", range(100, 121)), ("test", range(200, 216))):
        for seed in seeds:
            save_photograph(images / split / ("coat", "shoe, left")[seed % 2], seed)
