"""Data sets that packages bring with their images."""

import gzip
import importlib.util
import zlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgcls.config.keys import DataConfig
from imgcls.data.decode import read_image
from imgcls.data.image_set import SourceImages, Split, array_table
from imgcls.data.sources.source import ImageSource, Source
from imgcls.data.sources.torchvision import Torchvision
from imgcls.errors import DataError


class Elpv(ImageSource):
    """Packaged in elpv-dataset: 2,624 solar cells, 300x300 grey (Deitsch et al. 2019, arXiv 1807.02894)."""

    name = "elpv"
    uses_path = False
    native_side = 300

    def open(self, config: DataConfig, path: Path) -> Source:  # noqa: ARG002
        """Lists the cells; a defect that is at least as probable as not is one."""
        spec = importlib.util.find_spec("elpv_dataset")
        if spec is None or not spec.submodule_search_locations:
            raise DataError('data.source = "elpv" needs the extra "solar": pip install elpv-dataset')
        folder = Path(spec.submodule_search_locations[0]) / "data"
        lines = (folder / "labels.csv").read_text().split("\n")
        rows = [line.split() for line in lines if line.strip()]  # path, probability of a defect, kind of module
        paths = [folder / row[0] for row in rows]
        labels = np.array([float(row[1]) >= 0.5 for row in rows], np.int64)
        stamp = f"elpv-{version('elpv-dataset')}"
        keys = tuple(row[0] for row in rows)
        table = SourceImages(keys, labels, lambda i: read_image(paths[i]), stamp, origin=str(folder))
        return Source(("functional", "defective"), {}, table, channels=1, native_side=self.native_side)


class Digits(ImageSource):
    """Packaged with scikit-learn: the UCI digits, 1,797 real 8x8 scans with 17 grey levels."""

    name = "digits"
    uses_path = False
    native_side = 8

    def open(self, config: DataConfig, path: Path) -> Source:  # noqa: ARG002
        """Lists the scans."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        table = array_table(images, bunch.target, "digits")
        return Source(tuple(str(i) for i in range(10)), {}, table, channels=1, native_side=self.native_side)


FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the four files."""


class FashionMnist(ImageSource):
    """Packaged by Debian, else downloaded: 70,000 clothes, 28x28 grey (Xiao et al. 2017, arXiv 1708.07747)."""

    name = "fashion-mnist"
    native_side = 28

    def open(self, config: DataConfig, path: Path) -> Source:
        """Lists the pictures; torchvision downloads them to `path` where Debian's package is not installed."""
        if not FASHION_FOLDER.is_dir():
            return Torchvision().open(config.model_copy(update={"source": "torchvision:FashionMNIST"}), path)
        given: dict[Split, SourceImages] = {}
        stems: dict[Split, str] = {"train": "train", "test": "t10k"}
        for split, stem in stems.items():
            images = _read_idx(FASHION_FOLDER / f"{stem}-images-idx3-ubyte.gz")
            labels = _read_idx(FASHION_FOLDER / f"{stem}-labels-idx1-ubyte.gz")
            given[split] = array_table(images, labels, f"fashion-mnist-{split}", prefix=f"{split}/")
        return Source(FASHION_CLASSES, given, None, channels=1, native_side=self.native_side)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """A gzipped IDX file of bytes (yann.lecun.com/exdb/mnist), in the shape that its header names."""
    try:
        with gzip.open(path) as file:
            content = file.read()
        num_dimensions = content[3]
        shape = np.frombuffer(content, ">u4", count=num_dimensions, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path}: {error}; install the package dataset-fashion-mnist again") from error
