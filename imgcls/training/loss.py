"""The loss that is optimised, in which labels may be smoothed, mixed and weighed at once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from imgcls.config.keys import AugmentConfig, TrainConfig

LOSS_DEFINITION = 2
"""Definition of the loss, recorded as `imgcls.loss`. In definition 1 a class weight also multiplied that class's share
of every smoothed or mixed target, so that a rare class was right for every image."""


def loss_sum(logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """Sum over images of their weighted cross-entropy, in nats.

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


def is_other_than_before(train: TrainConfig, augment: AugmentConfig) -> bool:
    """Whether definition 1 gives these settings another loss than this one."""
    softened = train.label_smoothing or augment.mixup or augment.cutmix
    return train.class_weights != "none" and bool(softened)
