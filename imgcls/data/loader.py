"""Deterministic uint8 batches on the device, from any step of any epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from imgcls.data.labelled import LabelledImages
from imgcls.rng import generator

RESIDENT_BYTES = 4 * 2**30
"""Images of up to this size live on an accelerator whole; larger sets travel a batch at a time."""


@dataclass(frozen=True)
class Batch:
    """Images uint8 (B, C, H, W) and labels int64 (B,), on the device."""

    images: Tensor
    labels: Tensor


class Loader:
    """Batches of one split.

    Args:
        images: the split.
        batch_size: images per batch; the last one may be smaller.
        device: where batches go.
    """

    def __init__(self, images: LabelledImages, batch_size: int, device: torch.device) -> None:
        with warnings.catch_warnings():
            # The memory map is read-only and stays so: batches are gathered into new tensors.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self._images = torch.from_numpy(images.stored)
        self._labels, self._at = torch.from_numpy(images.labels), torch.from_numpy(images.at)
        self._device = device
        self._batch_size = batch_size
        if device.type != "cpu" and self._images[:1].numel() * len(images) <= RESIDENT_BYTES:
            self._images, self._labels = self._images[self._at].to(device), self._labels.to(device)
            self._at = torch.arange(len(images), device=device)

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

    def shuffled(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch in that epoch's order, from `start_step` on."""
        order = torch.randperm(self.num_images, generator=generator(seed, epoch, 0, "order"))
        for step in range(start_step, self.steps_per_epoch):
            last = step == self.steps_per_epoch - 1
            stop = self.num_images if last else (step + 1) * self._batch_size
            yield self._gather(order[step * self._batch_size : stop])

    def in_order(self) -> Iterator[Batch]:
        """Every image once, in the order of the split."""
        for start in range(0, self.num_images, self._batch_size):
            yield self._gather(torch.arange(start, min(start + self._batch_size, self.num_images)))

    def _gather(self, rows: Tensor) -> Batch:
        rows = rows.to(self._at.device)
        return Batch(self._images[self._at[rows]].to(self._device), self._labels[rows].to(self._device))
