"""The average of a model's weights, which is scored in the place of the model."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


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
