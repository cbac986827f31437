"""How long a step takes here: a few real steps of a network on this machine, timed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from imgcls.config.keys import Experiment
from imgcls.data.augment import Augment, Normalise
from imgcls.data.image_set import DecodedImages, Hashes
from imgcls.data.loader import Loader
from imgcls.data.train_side import decode_side
from imgcls.metrics import ACCURACY
from imgcls.models.registry import build_model, network_parts, resolve_model
from imgcls.training.device import prepare_device, settings_kept
from imgcls.training.loop import Task, TrainState, predict
from imgcls.training.loss import Loss
from imgcls.training.pace import MOST_PIXELS, quick_batch, timed_steps

LEAST_STEPS, MOST_STEPS, MOST_SECONDS = 4, 32, 0.6
"""Number of steps that are timed, more of small images, whose steps are short and easily disturbed; the first does not
count. After so many seconds no further one begins."""


@dataclass(frozen=True)
class Pace:
    """The pace of a network on this machine.

    Attributes:
        train: seconds for one image of a training step.
        val: seconds for one image of validation.
        device: where, as the record has it.
        slower: number of CPU threads -> how many times longer all of it takes than with the fastest number.
    """

    train: float
    val: float
    device: str
    slower: Mapping[int, float] = field(default_factory=dict)

    def epoch(self, num_train: int, num_val: int) -> float:
        """Seconds of an epoch, validation included."""
        return num_train * self.train + num_val * self.val

    def at(self, side: int, measured: int) -> "Pace":
        """About the pace at another side of the images, in pixels: time grows with the area."""
        factor = (side / measured) ** 2
        return replace(self, train=self.train * factor, val=self.val * factor)


def measured_pace(experiment: Experiment, num_classes: int, channels: int, threads: Sequence[int] = ()) -> Pace:
    """Measures the pace with real steps (loader, augmentation, network, optimizer) on images of random pixels.

    Args:
        experiment: whose network it is.
        num_classes: of the images.
        channels: of the images.
        threads: numbers of CPU threads that are compared; by default the one that the experiment's device has.

    Raises:
        InputError: the network does not take images of this size.
    """
    data, config = experiment.data, experiment.train.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    with settings_kept():
        device = prepare_device(config)
        where, side = device.torch_device, decode_side(data.image_size, experiment.augment, None)
        if where.type == "cpu":
            config = config.model_copy(update={"batch_size": quick_batch(config.batch_size, data.image_size)})
        num_steps = _num_steps(config.batch_size, data.image_size)
        images = _noise(num_steps * config.batch_size, channels, side, num_classes)
        seen = _noise(config.batch_size, channels, data.image_size, num_classes)
        network = resolve_model(experiment.model, channels, data.image_size)
        model = build_model(network, num_classes, channels, data.image_size, seed=0, with_weights=False)
        parts = network_parts(network, model)
        task = Task(
            config=config, metric=ACCURACY.on_val, train=Loader(images, config.batch_size, where),
            val=Loader(seen, config.batch_size, where), augment=Augment(experiment.augment, data.image_size),
            normalise=Normalise((0.5,) * channels, (0.25,) * channels, where), num_classes=num_classes,
            loss=Loss(), device=device,
        )  # fmt: skip
        state, numbers = TrainState.start(model, config, device, parts), threads or [device.threads]
        steps = timed_steps(task, state, numbers, most_steps=num_steps - 1, most_seconds=MOST_SECONDS)
        fastest = {number: min(each) for number, each in steps.items()}  # which other programs slowed down least
        step = min(fastest.values())
        torch.set_num_threads(min(fastest, key=lambda number: fastest[number]))
        begun = time.perf_counter()
        predict(state.model, task.val, task.normalise, device)
        ended = time.perf_counter()
        slower = {number: seconds / step for number, seconds in fastest.items()}
        return Pace(step / config.batch_size, (ended - begun) / config.batch_size, str(device), slower)


def _num_steps(batch_size: int, side: int) -> int:
    return max(LEAST_STEPS, min(MOST_STEPS, LEAST_STEPS * MOST_PIXELS // (batch_size * side**2)))


def _noise(num: int, channels: int, side: int, num_classes: int) -> DecodedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (num, channels, side, side), np.uint8)
    labels = np.arange(num, dtype=np.int64) % num_classes
    return DecodedImages(tuple(map(str, range(num))), labels, Hashes.zeros(num), pixels, np.arange(num))
