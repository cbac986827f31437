"""The loss of a step, in which labels may be smoothed, mixed and weighed at once, and its sum over an epoch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from imgcls.errors import TrainingError

LOSS_DEFINITION = 2
"""Definition of the loss, recorded as `imgcls.loss`. In definition 1 a class weight also multiplied that class's share
of every smoothed or mixed target, so that a rare class was right for every image."""


def loss_sum(logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """The loss of a batch: sum over its images of their weighted cross-entropy, in nats.

    The target is smoothed first. Then the image counts with the weight of its own class; where two images are mixed,
    with their two weights in the same mixture.

    Args:
        logits: float (B, K); they are taken as float32.
        targets: int64 (B,), classes; or float32 (B, K), mixtures of classes, rows that sum to 1.
        class_weights: float32 (K,), or None for equal ones.
        smoothing: share of each target that is spread evenly over the classes.

    Returns:
        A scalar; divided by B it is what a step descends.
    """
    logits, is_mixed = logits.float(), targets.ndim == 2
    if class_weights is None or not (smoothing or is_mixed):
        # Here torch's own weights are those of the images. Its "mean" would divide by the weights of the batch.
        return F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=smoothing, reduction="sum")
    losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    # No matrix product: autocast would round it to bfloat16.
    weights = (targets * class_weights).sum(dim=1) if is_mixed else class_weights[targets]
    return (weights * losses).sum()


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
