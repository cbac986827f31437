"""The loss of a step, in which labels may be smoothed, mixed and weighed at once, and its sum over an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from imgcls.config.train_keys import TrainConfig
from imgcls.errors import TrainingError

LOSS_DEFINITION = 2
"""Definition of the loss, recorded as `imgcls.loss`. In definition 1 a class weight also multiplied that class's share
of every smoothed or mixed target, so that a rare class was right for every image."""


@dataclass(frozen=True)
class Loss:
    """The loss that training descends, which compares logits with targets.

    First the target is smoothed. Then the image counts with the weight of its own class; where two images are mixed,
    with their two weights in the same mixture. The loss of a target is linear in it: that of a mixture of two classes
    is the same mixture of their losses.

    Attributes:
        smoothing: share of each target that is spread over the classes: evenly, or as exp(shift) is where there is one.
        class_weights: float32 (K,), or None for equal ones.
        gamma: a class's loss is multiplied by (1 - p)^gamma, p being its probability (focal loss, Lin et al. 2017,
            arXiv 1708.02002, without alpha). 0: the cross-entropy.
        shift: float32 (K,), added to the logits beforehand: tau * log of each class's share of train (logit adjustment,
            Menon et al. 2021, arXiv 2007.07314, equation 10). None: nothing is added.
    """

    smoothing: float = 0.0
    class_weights: Tensor | None = None
    gamma: float = 0.0
    shift: Tensor | None = None

    @classmethod
    def of(cls, config: TrainConfig, num_images: NDArray[np.int64], device: torch.device) -> Loss:
        """The loss that a `[train]` table asks for, where train has so many images of each class, int64 (K,)."""

        def on_device(values: NDArray[np.float64]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        is_weighed, is_adjusted = config.class_weights == "auto", config.loss == "logit_adjusted"
        return cls(
            smoothing=config.label_smoothing,
            class_weights=on_device(num_images.sum() / (len(num_images) * num_images)) if is_weighed else None,
            gamma=config.focal_gamma if config.loss == "focal" else 0.0,
            shift=on_device(config.logit_adjustment * np.log(num_images / num_images.sum())) if is_adjusted else None,
        )

    def sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch: the sum over its images, in nats.

        Args:
            logits: float (B, K); they are taken as float32.
            targets: int64 (B,), classes; or float32 (B, K), mixtures of classes, rows that sum to 1.

        Returns:
            A scalar; divided by B it is what a step descends.
        """
        logits, is_mixed = logits.float(), targets.ndim == 2
        is_plain = not self.gamma and self.shift is None
        if is_plain and (self.class_weights is None or not (self.smoothing or is_mixed)):
            # Here torch's own weights are those of the images. Its "mean" would divide by the weights of the batch.
            return F.cross_entropy(
                logits, targets, weight=self.class_weights, label_smoothing=self.smoothing, reduction="sum"
            )
        if is_plain:
            losses = F.cross_entropy(logits, targets, label_smoothing=self.smoothing, reduction="none")
        else:
            losses = (self._smoothed(targets, logits.shape[1]) * self._of_each_class(logits)).sum(dim=1)
        if self.class_weights is None:
            return losses.sum()
        # No matrix product: autocast would round it to bfloat16.
        weights = (targets * self.class_weights).sum(dim=1) if is_mixed else self.class_weights[targets]
        return (weights * losses).sum()

    def _of_each_class(self, logits: Tensor) -> Tensor:
        """float32 (B, K): the loss of each image if that class were right."""
        log_probs = F.log_softmax(logits if self.shift is None else logits + self.shift, dim=1)
        if not self.gamma:
            return -log_probs
        # Where p is 1, a gamma below 1 has an infinite slope; the least float in its place has the slope 0.
        wrong = (-torch.expm1(log_probs)).clamp(min=torch.finfo(torch.float32).tiny)
        return -log_probs * wrong**self.gamma

    def _smoothed(self, targets: Tensor, num_classes: int) -> Tensor:
        """float32 (B, K): targets with a share of each spread over the classes.

        With a shift, an even share would make rare classes right for every image: taken back by the shift, the same
        share counts for more the rarer the class is. In proportion to exp(shift) it is even once it is taken back.
        """
        if targets.ndim == 1:
            targets = F.one_hot(targets, num_classes).float()
        spread = targets.new_full((), 1 / num_classes) if self.shift is None else F.softmax(self.shift, dim=0)
        return torch.lerp(targets, spread.expand_as(targets), self.smoothing)


class LossSum:
    """The training loss, summed over the steps of an epoch on the device, so that nobody waits for an accelerator.

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
        """The sum of the losses of the epoch under way, counted from 0; this waits for the device.

        Raises:
            TrainingError: the loss of a step was not finite; names epoch and step.
        """
        return finite(float(self._sum), "the loss", epoch + 1, int(self._num_finite) + 1)


def finite(value: float, name: str, epoch: int, step: int) -> float:
    """Refuses a loss or a score that is infinite or not a number; otherwise gives it back.

    Raises:
        TrainingError: naming epoch and step, both counted from 1.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} at epoch {epoch}, step {step}; lower train.lr, or lengthen train.warmup_epochs"
        )
    return value
