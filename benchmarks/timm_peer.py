"""timm's own loader and train step, as its train.py puts them together.

`create_loader` with its defaults but for what makes the work the same: crop and flips as in the work, no colour
jitter, and train.py's four workers, which persist. Its transforms know no quarter turns, so for solar cells it does a
little less than the others; its loader drops the last, smaller batch. Counted are the images that it trained on.
"""

from __future__ import annotations

import time

import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter

from benchmarks.contestant import Epoch
from benchmarks.works import Work

NUM_WORKERS = 4
"""The default of train.py's --workers."""


class TimmPeer:
    """Trains a work with timm's parts."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def first(self) -> Epoch:
        """Opens the folder, makes loader and net, and trains the first epoch."""
        begun = time.perf_counter()
        train = self._work.experiment.train
        self._loader = self._make_loader()
        self._net = self._work.net()
        self._loss = (
            LabelSmoothingCrossEntropy(train.label_smoothing) if train.label_smoothing else torch.nn.CrossEntropyLoss()
        )
        self._optimizer = create_optimizer_v2(self._net, opt="adamw", lr=train.lr, weight_decay=train.weight_decay)
        return self._train(begun)

    def epoch(self) -> Epoch:
        """Another epoch."""
        return self._train(time.perf_counter())

    def _make_loader(self) -> torch.utils.data.DataLoader[object]:
        work, augment = self._work, self._work.experiment.augment
        mode = "L" if work.channels == 1 else "RGB"
        dataset = create_dataset("", root=str(work.folder), split="train", is_training=True, input_img_mode=mode)
        side = work.experiment.data.image_size
        mean, std = work.statistics
        loader: torch.utils.data.DataLoader[object] = create_loader(
            dataset,
            input_size=(work.channels, side, side),
            batch_size=min(work.experiment.train.batch_size, len(dataset)),
            is_training=True,
            scale=augment.random_resized_crop,
            ratio=augment.aspect_ratio,
            hflip=0.5 if augment.horizontal_flip else 0.0,
            vflip=0.5 if augment.vertical_flip else 0.0,
            color_jitter=0.0,
            mean=mean,
            std=std,
            num_workers=NUM_WORKERS,
            device=torch.device("cpu"),
        )
        return loader

    def _train(self, begun: float) -> Epoch:
        """The step of train.py's `train_one_epoch`, which has no name in the package."""
        self._net.train()
        losses, images = AverageMeter(), 0
        self._optimizer.zero_grad()
        for inputs, labels in self._loader:
            loss = self._loss(self._net(inputs), labels)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
            losses.update(loss.item(), len(inputs))
            images += len(inputs)
        return Epoch(images, time.perf_counter() - begun)
