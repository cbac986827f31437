"""What a run carries from step to step on its device: the loss so far, and the average of its weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from imgcls.errors import TrainingError


class LossSum:
    """The loss of an epoch's steps, summed where it arises: an accelerator is never waited for.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        wide = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
        self._sum = torch.zeros((), dtype=wide, device=device)
        self._num_finite = torch.zeros((), dtype=torch.int64, device=device)

    def start(self, value: float = 0.0, steps: int = 0) -> None:
        """Begins an epoch, or takes one up after so many steps."""
        self._sum.fill_(value)
        self._num_finite.fill_(steps)

    def add(self, loss_sum: Tensor) -> None:
        """Adds one step's loss, a scalar in nats times images."""
        self._sum += loss_sum.detach()
        self._num_finite += torch.isfinite(self._sum)  # once lost, the sum stays lost

    def value(self, epoch: int) -> float:
        """The sum; this waits for the device.

        Args:
            epoch: under way, counted from 0; for the message.

        Raises:
            TrainingError: the loss of a step was not finite; says which.
        """
        return finite(float(self._sum), "the loss", epoch + 1, int(self._num_finite) + 1)


class WeightAverage:
    """An exponential moving average of a model's parameters and buffers.

    Its decay rises to `decay` as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage: the first steps,
    taken from weights that know nothing yet, are soon forgotten. torch's AveragedModel would ask the device for n in
    every step, and wait for the answer.

    Args:
        model: what is averaged; its present state is where the average begins.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int) -> None:
        """Moves towards a model.

        Args:
            model: the one that is trained.
            num_updates: n, the updates before this one.
        """
        share = 1 - min(self._decay, (1 + num_updates) / (10 + num_updates)) if num_updates else 1.0
        ours, theirs = self.model.state_dict(), model.state_dict()
        smooth = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in smooth], [theirs[name] for name in smooth], share)
        for name in ours.keys() - set(smooth):  # batch norm's count of batches
            ours[name].copy_(theirs[name])


def finite(loss: float, name: str, epoch: int, step: int) -> float:
    """The loss, unless it is infinite or not a number.

    Raises:
        TrainingError: naming epoch and step, both counted from 1.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"{name} is {loss} at epoch {epoch}, step {step}; lower train.lr, or lengthen train.warmup_epochs"
        )
    return loss
