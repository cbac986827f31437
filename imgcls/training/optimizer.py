"""The optimizer of every run: torch's fused AdamW or SGD, whose kernels can leave a step out."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from imgcls.config.train_keys import TrainConfig
from imgcls.models.parts import NetworkParts

LR_SCALE = "lr_scale"
"""Name of a parameter group's share of the schedule's learning rate, in (0, 1]."""


def make_optimizer(
    model: nn.Module, config: TrainConfig, lost: Tensor | None, parts: NetworkParts | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a run: AdamW, or SGD with Nesterov momentum, over the parameters that are trained.

    Norms and biases do not decay; they are the parameters of fewer than two dimensions. While `lost`, a float32 scalar
    on the model's device, is 1, a step changes no parameter and no state. The device reads it, so nobody waits.

    Args:
        model: whose parameters that have no gradient are left out.
        config: `[train]`.
        lost: see `LossSum`.
        parts: of the model; by default all parameters have the same learning rate.
    """
    groups = parameter_groups(model, config, parts)
    optimizer: torch.optim.SGD | torch.optim.AdamW
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=True)
        _start_momentum(optimizer)
    else:
        optimizer = torch.optim.AdamW(groups, config.lr, fused=True)
    optimizer.found_inf = lost  # type: ignore[union-attr]  # torch.amp.GradScaler sets it for the same purpose
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the optimizer's learning rates for a step: `lr` for the head, and for each group its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SCALE, 1.0)  # checkpoints of earlier versions lack it


def parameter_groups(model: nn.Module, config: TrainConfig, parts: NetworkParts | None) -> list[dict[str, Any]]:
    """The optimizer's groups of parameters that have the same learning rate and the same decay.

    The learning rate of a block is `backbone_lr_scale * layer_decay ** distance` times the head's, as in BEiT (Bao et
    al. 2022, arXiv 2106.08254) and in `timm.optim.param_groups_layer_decay`.
    """
    distances = {} if parts is None else parts.distances
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = name not in distances
            share = 1.0 if is_head else config.backbone_lr_scale * config.layer_decay ** distances[name]
            groups[share, parameter.ndim >= 2].append(parameter)
    return [
        {"params": groups[share, decays], "weight_decay": config.weight_decay if decays else 0.0, LR_SCALE: share}
        for share, decays in sorted(groups, reverse=True)
    ]


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Starts momentum at 0 instead of at the first gradient, which gives the same steps.

    torch would take the first gradient even in a step that is left out, and fails where some parameters of a group
    have their first gradient later than others, as after a thaw.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
