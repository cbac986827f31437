"""The optimizer of every run: torch's fused AdamW, whose kernel can leave a step out."""

import torch
from torch import Tensor, nn

from imgcls.config.train_keys import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig, lost: Tensor | None) -> torch.optim.AdamW:
    """The optimizer of a run: AdamW over the parameters that are trained.

    Norms and biases do not decay; they are the parameters of fewer than two dimensions. While `lost`, a float32 scalar
    on the model's device, is 1, a step changes no parameter and no state. The device reads it, so nobody waits.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], config.lr, fused=True)
    optimizer.found_inf = lost  # type: ignore[attr-defined]  # torch.amp.GradScaler sets it for the same purpose
    return optimizer
