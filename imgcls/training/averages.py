"""Averages of a model's weights, over steps or over epochs, one of which is scored in the place of the model."""

import copy
from collections.abc import Mapping

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


class EpochAverage:
    """The mean of a model's parameters and buffers at the ends of its last epochs: a soup of a run's checkpoints.

    Izmailov et al. 2018 (arXiv 1803.05407) average along a run, Wortsman et al. 2022 (arXiv 2203.05482) over runs.
    Batch norm's running mean and variance are averaged as the weights are; docs/averages.md shows what that costs.

    Args:
        model: what is averaged, which must not be scored before the first `add`.
        num_epochs: N, at least 2. Until there are N, the mean is that of all.

    Attributes:
        model: with the mean.
        ends: completed epochs -> the state of the model at that time, of the last N; on the model's device.
    """

    def __init__(self, model: nn.Module, num_epochs: int) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.ends: dict[int, dict[str, Tensor]] = {}
        self._num_epochs = num_epochs

    def add(self, model: nn.Module, epoch: int) -> None:
        """Takes over the state of a model at the end of an epoch, counted from 1, in place of an earlier one of it."""
        self.restore({**self.ends, epoch: {name: tensor.clone() for name, tensor in model.state_dict().items()}})

    @torch.no_grad()
    def restore(self, ends: Mapping[int, dict[str, Tensor]]) -> None:
        """Takes over states at the ends of epochs, as `ends` has them; without any, the mean stays as it is."""
        last = max(ends, default=0)
        self.ends = {epoch: ends[epoch] for epoch in sorted(ends) if epoch > last - self._num_epochs}
        for name, ours in self.model.state_dict().items() if ends else ():
            each = [state[name] for state in self.ends.values()]
            # Batch norm's count of batches is that of the last epoch.
            ours.copy_(torch.stack(each).mean(dim=0) if ours.is_floating_point() else each[-1])
