"""Deterministic uint8 batches on the device, from any step of any epoch, wherever the images are.

They come from memory on the device, from a memory map, or, where the cache had no room, from processes that decode
ahead. Which of the three is a matter of speed alone: the batches are the same.
"""

import math
import mmap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.data.decode_on_demand import PixelsOnDemand
from imgcls.data.decode_workers import ahead
from imgcls.data.feature_cache import FeatureRows
from imgcls.data.image_set import DecodedImages
from imgcls.data.order import balanced_order, natural_order, rows_of_classes
from imgcls.data.part import Part

RESIDENT_BYTES = 4 * 2**30
"""Bytes of images that live on an accelerator as a whole; larger sets travel a batch at a time."""

MAPPED_BYTES = 2**28
"""Bytes of a memory map that stay mapped. Pages of a larger map go back to the kernel, which keeps them as long as it
can: mapped, they count as the process's own memory, and a whole data set of them would look like a leak."""

ROWS_MAPPED = 256
"""Number of images of a larger map that are read before its pages go back; Linux maps up to 1 MiB around each."""


@dataclass(frozen=True)
class Batch:
    """A batch of the loader, on the device.

    Attributes:
        images: uint8 (B, C, H, W); where features stand for images, float32 (B, V, F) or (B, F).
        labels: int64 (B,).
        part: of a batch that several processes share, of which these are the images at hand; None of a whole batch.
    """

    images: Tensor
    labels: Tensor
    part: Part | None = None

    @property
    def num_images(self) -> int:
        """Images of the whole batch."""
        return len(self.labels) if self.part is None else self.part.num_images


class Loader:
    """The loader of one split: its batches on a device; the last batch of a pass may be smaller.

    Args:
        images: of the split, or features that stand for them.
        batch_size: images of a batch.
        device: where the batches are wanted.
        is_balanced: whether each class comes as often in an epoch's order; see `balanced_order`.
    """

    def __init__(
        self, images: DecodedImages | FeatureRows, batch_size: int, device: torch.device, *, is_balanced: bool = False
    ) -> None:
        self._device = device
        self._batch_size = batch_size
        stored = images.stored
        self._squares = stored if isinstance(stored, PixelsOnDemand) else _as_tensor(stored)
        self._map = None if isinstance(stored, PixelsOnDemand) else _large_map(stored)
        self._at = torch.from_numpy(images.at)
        self._labels = torch.from_numpy(images.labels)
        self._of_classes = rows_of_classes(images.labels) if is_balanced else None
        num_bytes = len(images) * math.prod(stored.shape[1:]) * stored.dtype.itemsize
        if device.type != "cpu" and num_bytes <= RESIDENT_BYTES:
            self._squares, self._at, self._map = self._resident(), torch.arange(len(images)), None
            self._labels = self._labels.to(device)

    @property
    def num_images(self) -> int:
        """Images in the split."""
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """int64 (N,) on the CPU, in the order of `in_order`."""
        return self._labels.cpu()

    @property
    def steps_per_epoch(self) -> int:
        """Batches that `shuffled` gives in one epoch."""
        # A last batch of one image cannot be normalised by its own statistics, so it joins the one before.
        full, rest = divmod(self.num_images, self._batch_size)
        return max(1, full + (rest > 1))

    @property
    def num_batches(self) -> int:
        """Batches that `in_order` gives."""
        return math.ceil(self.num_images / self._batch_size)

    def shuffled(
        self, seed: int, epoch: int, start_step: int = 0, part_of: Callable[[int, int], Part] | None = None
    ) -> Iterator[Batch]:
        """The batches of one epoch in that epoch's order, from `start_step` on.

        `part_of` gives the part that is wanted of a step's batch: (step, number of images) -> part.
        """
        if self._of_classes is None:
            order = natural_order(self.num_images, seed, epoch)
        else:
            order = balanced_order(self._of_classes, seed, epoch)
        last = self.steps_per_epoch - 1
        batches = [
            order[step * self._batch_size : None if step == last else (step + 1) * self._batch_size]
            for step in range(start_step, last + 1)
        ]
        if part_of is None:
            return self._batches(batches)
        parts = [part_of(step, len(rows)) for step, rows in enumerate(batches, start_step)]
        return self._batches([rows[part.at_hand] for rows, part in zip(batches, parts, strict=True)], parts)

    def in_order(self, first: int = 0, every: int = 1) -> Iterator[Batch]:
        """Every image once, in the order of the split; or, from batch `first` on, one batch out of `every` so many."""
        starts = range(0, self.num_images, self._batch_size)[first::every]
        return self._batches([torch.arange(i, min(i + self._batch_size, self.num_images)) for i in starts])

    def _resident(self) -> Tensor:
        """The whole split on the device, as a `Batch` of all of it has it."""
        squares = self._squares
        dtype = torch.uint8 if isinstance(squares, PixelsOnDemand) else squares.dtype
        images = torch.empty((len(self._at), *squares.shape[1:]), dtype=dtype, device=self._device)
        for start, batch in zip(range(0, len(images), self._batch_size), self.in_order(), strict=True):
            images[start : start + self._batch_size] = batch.images
        return images

    def _batches(self, selections: list[Tensor], parts: Sequence[Part | None] | None = None) -> Iterator[Batch]:
        parts = parts or [None] * len(selections)
        for rows, images, part in zip(selections, self._images(selections), parts, strict=True):
            labels = self._labels[send(rows, self._labels.device)]
            yield Batch(send(images, self._device), send(labels, self._device), part)

    def _images(self, selections: list[Tensor]) -> Iterator[Tensor]:
        """Images, or features in their place, of each selection of rows; see `Batch`."""
        squares, num_rows = self._squares, 0
        if isinstance(squares, PixelsOnDemand):
            wanted = [self._at[rows].numpy() for rows in selections]
            yield from ahead(lambda rows: torch.from_numpy(squares[rows]), wanted, torch.get_num_threads())
            return
        for rows in selections:
            # Rows as blocks of bytes: a fifteenth of what indexing takes, which goes element by element.
            yield squares.index_select(0, send(self._at[rows], squares.device))
            num_rows += len(rows)
            if self._map is not None and num_rows >= ROWS_MAPPED:
                num_rows = 0
                self._map.madvise(mmap.MADV_DONTNEED)


def _as_tensor(mapped: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    with warnings.catch_warnings():
        # The memory map is read-only and stays so: batches are gathered into new tensors.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped)


def _large_map(stored: NDArray[np.uint8] | NDArray[np.float32]) -> mmap.mmap | None:
    base = stored.base
    return base if isinstance(base, mmap.mmap) and stored.nbytes > MAPPED_BYTES else None


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The loader's way to the device: sends a tensor without waiting for what the device is doing.

    A copy to CUDA from ordinary memory waits for all work before it; from pinned memory it takes its turn.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # What `expand` gives has several elements in one place, which pinned memory refuses.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
