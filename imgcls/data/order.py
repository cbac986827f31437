"""The order of an epoch's train images: each of them once, or each class as often; a function of seed and epoch."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.rng import generator


def natural_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch in which every image comes once: int64 (N,), rows of the images."""
    return torch.randperm(num_images, generator=generator(seed, epoch, 0, "order"))


def balanced_order(of_classes: list[Tensor], seed: int, epoch: int) -> Tensor:
    """The order of an epoch in which every class comes as often: int64 (N,), rows of the images.

    An epoch has N images, and each of K classes N / K of them; where K does not divide N, the classes that get one
    more are drawn for each epoch. A class's images come as often as one another, but for one time: they are gone
    through again and again, each time in another order, until there are enough. Of a class that has more images than
    it gets places, each epoch takes others.

    Args:
        of_classes: as `rows_of_classes` gives them.
        seed: `train.seed`.
        epoch: from 0.
    """
    draws = generator(seed, epoch, 0, "balanced order")
    num_classes, num_images = len(of_classes), sum(map(len, of_classes))
    places = torch.full((num_classes,), num_images // num_classes)
    places[torch.randperm(num_classes, generator=draws)[: num_images % num_classes]] += 1
    drawn = torch.cat([_gone_through(rows, num, draws) for rows, num in zip(of_classes, places.tolist(), strict=True)])
    return drawn[torch.randperm(num_images, generator=draws)]


def rows_of_classes(labels: NDArray[np.int64]) -> list[Tensor]:
    """The rows of each class's images in the order of the classes, int64 each; classes without images are left out."""
    ends = np.unique_counts(labels).counts.cumsum()
    return [torch.from_numpy(rows) for rows in np.split(np.argsort(labels, kind="stable"), ends[:-1])]


def _gone_through(rows: Tensor, num: int, draws: torch.Generator) -> Tensor:
    """So many of a class's rows: all of them in a drawn order, then again in another one, until there are enough."""
    times = math.ceil(num / len(rows))
    orders = torch.rand(times, len(rows), generator=draws).argsort(dim=1, stable=True)
    return rows[orders.flatten()[:num]]
