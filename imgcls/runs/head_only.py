"""`train.head_only`: the head of a network is trained on features of its frozen backbone, which are computed once."""

from __future__ import annotations

import copy
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imgcls.config.keys import Experiment
from imgcls.config.toml import as_options
from imgcls.data.augment import Normalise
from imgcls.data.feature_cache import FeatureRows, kept_features
from imgcls.data.image_set import DecodedImages
from imgcls.data.loader import Loader, send
from imgcls.data.orientations import AsTheyAre, StoredOrientations, orientations_to_store, oriented
from imgcls.data.splits import Dataset
from imgcls.errors import ConfigError, Interrupted
from imgcls.models.head import Head, backbone_digest, head_shape
from imgcls.models.parts import head_features
from imgcls.models.registry import resolve_model
from imgcls.progress import Progress
from imgcls.signals import stop_requested
from imgcls.text import counted
from imgcls.training.device import Device
from imgcls.training.loop import Task
from imgcls.training.pace import quick_batch

T = TypeVar("T")
log = logging.getLogger(__name__)

FORMAT = "2"
"""Version in the key of every entry of features: raise it when their numbers change."""

OF_FEATURES = ("horizontal_flip", "vertical_flip", "quarter_turns", "mixup")
"""Keys of `[augment]` that go with features: the views that they give are few, or they act on features."""

WITHOUT_EFFECT = ("aspect_ratio",)
"""Keys of `[augment]` that change nothing where the others that are on go with features."""


def check_head_only(experiment: Experiment, channels: int) -> None:
    """Refuses, where the head alone is to be trained, what makes that impossible; `channels` is C of the images.

    Raises:
        ConfigError: an augmentation whose views cannot be stored, random weights, or a network without such a head;
            naming the override that mends it.
    """
    if not experiment.train.head_only:
        return
    _refuse_other_augmentation(experiment)
    size = experiment.data.image_size
    head_shape(resolve_model(experiment.model, channels, size), channels, size)


def kept_off(experiment: Experiment) -> dict[str, Any]:
    """Keys of `[augment]` that are on and whose views cannot be stored -> the values that turn them off."""
    return {
        f"augment.{key}": field.default
        for key, field in type(experiment.augment).model_fields.items()
        if key not in OF_FEATURES + WITHOUT_EFFECT and getattr(experiment.augment, key) != field.default
    }


def _refuse_other_augmentation(experiment: Experiment) -> None:
    if remedy := kept_off(experiment):
        params = experiment.params()
        given = ", ".join(f"{key} = {params[key]}" for key in remedy)
        raise ConfigError(
            f"{given}: train.head_only = true computes the features of each image once, so only flips, quarter turns "
            f"and mixup can augment; add {as_options(remedy)}, or train the whole network with "
            f"{as_options({'train.head_only': False})}",
            remedy,
        )


def head_of(network: nn.Module, experiment: Experiment, channels: int) -> Head:
    """The head of a network that was built from a resolved experiment; `channels` is C of its images."""
    shape = head_shape(experiment.model, channels, experiment.data.image_size)
    return Head(network, shape, experiment.model.dropout)


def on_features(task: Task, head: Head, experiment: Experiment, dataset: Dataset) -> Task:
    """The task of training a head on the stored features of the images of a task.

    A step draws the view of each image as the augmentation would, by the same draws, and takes its features. val is
    scored on the features of the views of `data.test_views`.

    Args:
        task: of training the whole network on images.
        head: what is trained; its network gives the features.
        experiment: resolved.
        dataset: the images of the task.

    Raises:
        Interrupted: a stop was requested while features were computed.
    """
    views, num_test_views = orientations_to_store(experiment.augment, experiment.data.test_views)
    stored, at = _stored_features(task, head, experiment, dataset, views)
    train, val, where = dataset.train, dataset.val, task.device.torch_device
    of_train = FeatureRows(stored, at[: len(train)], train.labels)
    seen = stored[:, 0] if num_test_views == 1 else stored[:, :num_test_views]
    of_val = FeatureRows(seen, at[len(train) :], val.labels)
    is_balanced = experiment.train.sampling == "balanced"
    return replace(
        task,
        train=Loader(of_train, experiment.train.batch_size, where, is_balanced=is_balanced),
        val=Loader(of_val, experiment.train.eval_batch_size, where),
        augment=StoredOrientations(experiment.augment, views),
        normalise=AsTheyAre(),
        test_views="one",  # a row of val's features is all of its views
    )


def _stored_features(
    task: Task, head: Head, experiment: Experiment, dataset: Dataset, views: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of all different images of train and val, float32 (M, V, F), and the rows of train's, then of val's.

    They are in the order of the digests, so neither the split nor the folds matter.
    """
    both = np.concatenate((dataset.train.digests, dataset.val.digests))
    digests, first, at = np.unique(both, axis=0, return_index=True, return_inverse=True)
    data = experiment.data
    parts = (
        FORMAT, *(f"{package} {version(package)}" for package in _packages(experiment.model.name)),
        task.device.place_name, experiment.train.precision, str(_batch_size(task, data.image_size)),
        experiment.model.name, backbone_digest(head),
        str((dataset.squares, data.image_size, data.channels, data.fit, data.mean, data.std)),
        str(views.int().tolist()), hashlib.sha256(digests.tobytes()).hexdigest(),
    )  # fmt: skip
    name = f"features-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}"
    about = (
        f"features of {counted(len(digests), 'image')} of {data.path or data.source} in {counted(len(views), 'view')}, "
        f"{experiment.model.name} at {data.image_size} x {data.image_size}"
    )
    shape = len(digests), len(views), head.shape.num_features
    stored = kept_features(name, about, shape, lambda: _features(task, head, views, dataset, first))
    return stored, at.reshape(-1)


def _packages(model_name: str) -> list[str]:
    """Packages whose other version may give other features."""
    library, colon, _ = model_name.partition(":")
    return ["torch", library] if colon else ["torch"]


def _features(
    task: Task, head: Head, views: Tensor, dataset: Dataset, rows: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Features of each view of the images in some rows of train and val, float32 (B, V, F), a batch at a time."""
    network, device = task.device.place(head.network).eval(), task.device
    size = _batch_size(task, dataset.val.stored.shape[-1])

    def of_batch(network: nn.Module, start: int) -> NDArray[np.float32]:
        images = send(_images(dataset.train, dataset.val, rows[start : start + size]), device.torch_device)
        with torch.inference_mode(), device.forward_context():
            each = [_of_view(network, head, task.normalise, oriented(images, view)) for view in views]
            found: NDArray[np.float32] = torch.stack(each, dim=1).cpu().numpy()
        return found

    with Progress(len(rows) * len(views), "features of the frozen backbone", "views") as bar:
        for block in _side_by_side(network, device, of_batch, range(0, len(rows), size)):
            yield block
            bar.update(len(block) * len(views))
            if by := stop_requested():
                raise Interrupted(f"stopped by {by} while the features of the images were computed")


def _side_by_side(
    network: nn.Module, device: Device, of_batch: Callable[[nn.Module, int], T], starts: Sequence[int]
) -> Iterator[T]:
    """What a function makes of batches by a network, in their order.

    On a CPU, each of the run's threads computes a batch of its own. Many networks give other bits where threads share a
    batch, so features would depend on the number of threads of whichever run computed them.
    """
    if device.torch_device.type != "cpu":
        yield from (of_batch(network, start) for start in starts)
        return
    own = threading.local()

    def begin() -> None:
        torch.set_num_threads(1)
        own.network = _with_shared_weights(network)

    try:
        with ThreadPoolExecutor(device.threads, initializer=begin) as pool:
            for first in range(0, len(starts), device.threads):
                yield from pool.map(lambda start: of_batch(own.network, start), starts[first : first + device.threads])
    finally:
        torch.set_num_threads(device.threads)


def _with_shared_weights(network: nn.Module) -> nn.Module:
    """A copy with hooks of its own, for another thread, whose parameters and buffers are the network's."""
    return copy.deepcopy(network, {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())})


def _batch_size(task: Task, side: int) -> int:
    """Images of a batch. On a CPU small ones are faster, and take a fraction of the memory."""
    most = task.config.eval_batch_size
    return quick_batch(most, side) if task.device.torch_device.type == "cpu" else most


def _of_view(network: nn.Module, head: Head, normalise: Normalise, images: Tensor) -> Tensor:
    return head_features(network, [head.shape.name], normalise(images.contiguous())).float()


def _images(train: DecodedImages, val: DecodedImages, rows: NDArray[np.int64]) -> Tensor:
    """uint8 (B, C, S, S): images in rows that count those of train first, then those of val."""
    is_of_val = rows >= len(train)
    images = np.empty((len(rows), *val.stored.shape[1:]), np.uint8)
    images[~is_of_val] = train.stored[train.at[rows[~is_of_val]]]
    images[is_of_val] = val.stored[val.at[rows[is_of_val] - len(train)]]
    return torch.from_numpy(images)
