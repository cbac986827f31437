"""The usual loop: ImageFolder, transforms image by image, DataLoader, tqdm, `loss.item()` each step.

As tutorials write it. Counted are train images over the wall time of the train epoch, from `iter(loader)` to the last
step; its workers start again in each epoch, which is DataLoader's default.
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as TF
from tqdm import tqdm

from benchmarks.contestant import Epoch
from benchmarks.works import Work


class Usual:
    """Trains a work as tutorials do."""

    def __init__(self, work: Work, num_workers: int) -> None:
        self._work = work
        self._num_workers = num_workers

    def first(self) -> Epoch:
        """Opens the folder, makes the net and trains the first epoch."""
        begun = time.perf_counter()
        train = self._work.experiment.train
        self._loader = train_loader(self._work, self._num_workers)
        self._net = self._work.net()
        self._criterion = nn.CrossEntropyLoss(label_smoothing=train.label_smoothing)
        self._optimizer = torch.optim.AdamW(self._net.parameters(), lr=train.lr, weight_decay=train.weight_decay)
        return self._train(begun)

    def epoch(self) -> Epoch:
        """Another epoch."""
        return self._train(time.perf_counter())

    def _train(self, begun: float) -> Epoch:
        images, _ = train_one_epoch(self._net, self._loader, self._criterion, self._optimizer)
        return Epoch(images, time.perf_counter() - begun)


def train_loader(work: Work, num_workers: int) -> DataLoader[Any]:
    """Shuffled batches of the train folder."""
    dataset = ImageFolder(str(work.folder / "train"), train_transform(work))
    return DataLoader(dataset, batch_size=work.experiment.train.batch_size, shuffle=True, num_workers=num_workers)


def val_loader(work: Work, num_workers: int) -> DataLoader[Any]:
    """Batches of the val folder in order."""
    dataset = ImageFolder(str(work.folder / "val"), val_transform(work))
    return DataLoader(dataset, batch_size=work.experiment.train.eval_batch_size, num_workers=num_workers)


def train_one_epoch(
    net: nn.Module,
    loader: DataLoader[Any],
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> tuple[int, float]:
    """Trains once through the loader.

    Returns:
        Images, and their mean loss.
    """
    net.train()
    images, loss_sum = 0, 0.0
    bar = tqdm(loader)
    for inputs, labels in bar:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        loss_sum += loss.item() * len(inputs)
        images += len(inputs)
        bar.set_postfix(loss=loss_sum / images)
    return images, loss_sum / images


def train_transform(work: Work) -> transforms.Compose:
    """What the experiment's `[augment]` table asks for, in torchvision's words."""
    augment, side = work.experiment.augment, work.experiment.data.image_size
    steps: list[Any] = [transforms.Grayscale()] if work.channels == 1 else []
    if augment.random_resized_crop == (1.0, 1.0):
        steps.append(transforms.Resize((side, side)))
    else:
        steps.append(transforms.RandomResizedCrop(side, scale=augment.random_resized_crop, ratio=augment.aspect_ratio))
    if augment.horizontal_flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augment.vertical_flip:
        steps.append(transforms.RandomVerticalFlip())
    if augment.quarter_turns:
        steps.append(random_quarter_turn)
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(*work.statistics)])


def val_transform(work: Work) -> transforms.Compose:
    """Squashed to the square that ours sees too."""
    side = work.experiment.data.image_size
    steps: list[Any] = [transforms.Grayscale()] if work.channels == 1 else []
    steps += [transforms.Resize((side, side)), transforms.ToTensor(), transforms.Normalize(*work.statistics)]
    return transforms.Compose(steps)


def random_quarter_turn(image: Image.Image) -> Image.Image:
    """Turns by 0, 90, 180 or 270 degrees."""
    turned: Image.Image = TF.rotate(image, 90 * random.randrange(4))
    return turned
