"""The limit: what the net itself allows, with nothing around it.

Batches are float32, normalised and in memory beforehand, in the layout of the net; a step is forward, cross-entropy,
backward and a fused AdamW. No data, no augmentation, no look at the loss.

The limit is what torch itself gives. The moved limit is the same step, channels-last, with what imgcls changes on a
processor: glibc keeps freed memory, and gradients of weights on small maps are matrix products. Ours can pass the
first, and the second is the mark to come near to.
"""

from __future__ import annotations

import os
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contestant import Epoch
from benchmarks.works import Work
from imgcls.data import decode_cache
from imgcls.data.splits import load_dataset
from imgcls.project import Project
from imgcls.training.device import Device, prepare_device


class Limit:
    """The bare step, in one of two layouts, as torch runs it or moved."""

    def __init__(self, work: Work, *, channels_last: bool, moved: bool) -> None:
        os.environ["IMGCLS_CACHE"] = str(work.root / "cache of the limit")
        self._work = work
        self._moved = moved
        self._layout = torch.channels_last if channels_last else torch.contiguous_format

    def first(self) -> Epoch:
        """Fills the memory, which is not counted, and takes the steps of an epoch."""
        experiment = self._work.experiment
        self._device = self._prepared()
        net = self._work.net()
        placed = self._device.place(net) if self._moved else net.to(self._device.torch_device)
        self._net = placed.to(memory_format=self._layout).train()
        self._optimizer = torch.optim.AdamW(
            self._net.parameters(), lr=experiment.train.lr, weight_decay=experiment.train.weight_decay, fused=True
        )
        self._batches = self._in_memory()
        return self.epoch()

    def epoch(self) -> Epoch:
        """As many whole batches as train has."""
        smoothing = self._work.experiment.train.label_smoothing
        images = 0
        begun = time.perf_counter()
        for batch, labels in self._batches:
            with self._device.forward_context():
                logits = self._net(batch)
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            images += len(batch)
        if self._device.torch_device.type == "cuda":
            torch.cuda.synchronize()
        return Epoch(images, time.perf_counter() - begun)

    def _prepared(self) -> Device:
        config = self._work.experiment.train
        if self._moved:
            device = prepare_device(config)
            torch.set_deterministic_debug_mode("default")  # a limit asks for no more than the step
            return device
        if config.threads not in ("auto", 0):
            torch.set_num_threads(config.threads)
        on_gpu = torch.cuda.is_available()
        return Device(torch.device("cuda" if on_gpu else "cpu"), on_gpu, torch.get_num_threads(), "")

    def _in_memory(self) -> list[tuple[Tensor, Tensor]]:
        experiment, where = self._work.experiment, self._device.torch_device
        dataset = load_dataset(experiment.data, experiment.augment, Project(self._work.root))
        train = decode_cache.resized(dataset.train, experiment.data.image_size)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        pixels, labels = torch.from_numpy(train.pixels)[order], torch.from_numpy(train.labels)[order]
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
        size = min(experiment.train.batch_size, len(train))
        batches = []
        for start in range(0, len(train) - size + 1, size):
            batch = (pixels[start : start + size].float() / 255 - mean) / std
            batches.append((batch.to(where, memory_format=self._layout), labels[start : start + size].to(where)))
        return batches
