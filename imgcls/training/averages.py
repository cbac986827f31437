"""What a run sums up on its device from step to step: the loss so far, and the average of its weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imgcls.errors import TrainingError


class LossSum:
    """The loss of an epoch's steps, summed on the device, so that nobody waits for an accelerator.

    Args:
        device: where the losses are.

    Attributes:
        lost: on CUDA, a float32 scalar there: 1 once the loss of a step was not finite, else 0. On other devices None,
            because `add` looks at each loss: on the CPU that costs nothing, and Metal's AdamW cannot skip a step.
    """

    def __init__(self, device: torch.device) -> None:
        wide = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
        self._sum = torch.zeros((), dtype=wide, device=device)
        self._num_finite = torch.zeros((), dtype=torch.int64, device=device)
        self.lost = torch.zeros((), device=device) if device.type == "cuda" else None

    def start(self, value: float = 0.0, steps: int = 0) -> None:
        """Begins an epoch, or goes on with one after so many steps, whose finite losses have this sum."""
        self._sum.fill_(value)
        self._num_finite.fill_(steps)
        if self.lost is not None:
            self.lost.zero_()

    def add(self, loss_sum: Tensor, epoch: int) -> None:
        """Adds the loss of one step, a scalar in nats times images.

        Raises:
            TrainingError: the loss is not finite. On CUDA only `value` raises.
        """
        self._sum += loss_sum.detach()
        self._num_finite += self._sum.isfinite()  # a sum that is not finite never becomes finite again
        if self.lost is None:
            self.value(epoch)
        else:
            self.lost.copy_(~self._sum.isfinite())

    def value(self, epoch: int) -> float:
        """The sum; this waits for the device.

        Args:
            epoch: under way, counted from 0; for the message.

        Raises:
            TrainingError: the loss of a step was not finite; names epoch and step.
        """
        return finite(float(self._sum), "the loss", epoch + 1, int(self._num_finite) + 1)


class WeightAverage:
    """An exponential moving average of a model's parameters and buffers.

    Its decay rises to `decay` as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage, so that the first,
    untrained weights are soon forgotten. torch's AveragedModel would ask the device for n in every step, and wait.

    Args:
        model: what is averaged; the average begins with its present state.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int, lost: Tensor | None = None) -> None:
        """Moves the average towards a model.

        Args:
            model: the one that is trained.
            num_updates: n, the updates before this one.
            lost: see `LossSum`; where it is 1 the average stays as it is.
        """
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates)) if num_updates else 0.0
        ours, theirs = self.model.state_dict(), model.state_dict()
        if lost is not None:
            theirs = {name: torch.where(lost > 0, ours[name], theirs[name]) for name in ours}
        smooth = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([ours[name] for name in smooth], [theirs[name] for name in smooth], num_updates)
        for name in ours.keys() - set(smooth):  # batch norm's count of batches
            ours[name].copy_(theirs[name])


def finite(value: float, name: str, epoch: int, step: int) -> float:
    """The value, unless it is infinite or not a number.

    Raises:
        TrainingError: naming epoch and step, both counted from 1.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} at epoch {epoch}, step {step}; lower train.lr, or lengthen train.warmup_epochs"
        )
    return value
