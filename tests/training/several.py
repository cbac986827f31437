"""Trains tasks of the loop in this process, or in each of those that were started together."""

import math
from dataclasses import asdict, replace

import numpy as np
import torch

from imgcls.config.keys import AugmentConfig
from imgcls.data.augment import Normalise
from imgcls.errors import TrainingError
from imgcls.models.parts import NetworkParts, blocks_in_order
from imgcls.models.resnet import resnet
from imgcls.training.loop import TrainState, fit
from imgcls.training.loss import Loss
from imgcls.training.parallel import joined
from tests.training.test_loop import EVERYTHING, PLAIN, after, load_digits, task_of

MIXED = AugmentConfig(horizontal_flip=False, random_resized_crop=(0.6, 1.0), cutout=0.3, mixup=0.4, cutmix=1.0)
ODD = {"num_train": 147, "batch_size": 49}
"""Batches that two processes cannot halve."""
REST = {"num_train": 66, "batch_size": 32}
"""Batches of 32, 32 and 2 images: one of three processes has none of the last."""
SMALL = {"num_train": 101, "batch_size": 20}

VARIANTS = {
    "float32": (MIXED, {"num_train": 145, "batch_size": 29, "ema_decay": 0.9, "lr": 1e-3}),
    "mixed": (MIXED, {**ODD, "ema_decay": 0.9, "label_smoothing": 0.1}),
    "weighed": (EVERYTHING, {**REST, "ema_decay": 0.9, "loss": "focal"}),
    "adjusted": (EVERYTHING, {**REST, "loss": "logit_adjusted"}),
    "sgd": (PLAIN, {**SMALL, "optimizer": "sgd", "lr": 0.03, "average_epochs": 2, "freeze_epochs": 1}),
    "balanced": (PLAIN, {**SMALL, "sampling": "balanced", "layer_decay": 0.5}),
    "stopped": (PLAIN, SMALL),
    "not finite": (PLAIN, SMALL),
}
WEIGHED = "float32", "mixed", "weighed"


class Poisoned(Normalise):
    """Gives numbers in the first two steps only."""

    num_calls = 0

    def __call__(self, images):
        self.num_calls += 1
        return super().__call__(images) * (1 if self.num_calls < 3 else math.nan)


def main(folder):
    """Writes FOLDER/NAME-RANK.pt for each of `VARIANTS`: what came of it."""
    digits = load_digits()
    with joined() as ranks:
        for name in VARIANTS:
            if name != "float32":
                compute_in_double()
            torch.save(trained(name, digits), folder / f"{name}-{ranks.rank}.pt")


def compute_in_double():
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double


def trained(name, digits):
    """The weights, scores and logits after training, or the error that ended it."""
    task = task_for(name, digits)
    state, is_last = start(task), task.device.ranks.rank == task.device.ranks.size - 1
    if name == "not finite" and is_last:
        task = replace(task, normalise=Poisoned(digits.mean, digits.std, task.device.torch_device))
    stops = (after(4) if is_last else lambda: False) if name == "stopped" else lambda: False
    try:
        results, steps = list(fit(task, state, stops)), state.step
        if name == "stopped":
            results += fit(task, state)
    except TrainingError as error:
        return {"error": str(error)}
    return {
        "weights": state.scored_model.state_dict(), "logits": state.val_logits, "steps": steps,
        "history": [{name: value for name, value in asdict(result).items() if name != "ended"} for result in results],
    }  # fmt: skip


def task_for(name, digits):
    augment, train = VARIANTS[name]
    epochs = 1 if name == "float32" else 3
    task = task_of(digits, augment, **{"epochs": epochs, "eval_batch_size": 25, "warmup_epochs": 0, **train})
    config = task.config.model_copy(update={"class_weights": "auto" if name in WEIGHED else "none"})
    num_images = np.bincount(digits.train.labels[: train["num_train"]], minlength=10)
    loss = Loss.of(config, num_images, task.device.torch_device)
    if loss.shift is not None:
        loss = replace(loss, shift=loss.shift.float())  # which is double by now
    return replace(task, config=config, loss=loss)


def start(task):
    torch.manual_seed(0)
    model = resnet(depth=8, width=8, stem="small", num_classes=10, channels=1, dropout=0.0)
    parts = NetworkParts.of_blocks(model, ["fc"], blocks_in_order(model, ["fc"]))
    return TrainState.start(model, task.config, task.device, parts)
