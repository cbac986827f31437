"""Batch norm by the statistics of the whole batch where several processes have a part of it each.

torch's SyncBatchNorm refuses the CPU. Here every call of `batch_norm` in a block is replaced, whichever layer makes it,
so the network keeps its layers and its checkpoints.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from imgcls.errors import ConfigError
from imgcls.training.freezing import STATISTICS
from imgcls.training.parallel import Ranks


def norms_of_whole_batch(ranks: Ranks) -> AbstractContextManager[object]:
    """A block in which batch norm in training uses the whole batch, of which each process has a part.

    The running statistics are those that one process would keep, and equal in all processes.
    """
    return nullcontext() if ranks.size == 1 else BatchNormOfWhole(ranks)


def check_norms(model: nn.Module) -> None:
    """Refuses layers that keep statistics of a batch in another way than batch norm, which could not be summed.

    Raises:
        ConfigError: naming the layer.
    """
    for name, module in model.named_modules():
        keeps = STATISTICS & dict(module.named_buffers(recurse=False)).keys()
        if keeps and not isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"the layer {name} ({type(module).__name__}) keeps statistics of its batch, and several processes can "
                "share those of batch norm only; train in one process, without torchrun, or choose another model.name"
            )


class BatchNormOfWhole(TorchFunctionMode):
    """A block in which `batch_norm` in training uses the statistics of the parts of all processes together."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self, images: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        """`torch.nn.functional.batch_norm`, which see for the arguments."""
        if not training:
            return F.batch_norm(images, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, var, num = _statistics(images.detach(), self._ranks)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (num / (num - 1))).to(running_var.dtype), momentum)  # the unbiased variance
        outputs: Tensor = _Normalised.apply(images, weight, bias, mean, var, num, eps, self._ranks)
        return outputs


def _statistics(images: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over the whole batch, (C,) each, and the number of values, a scalar.

    Mean and variance of the parts are put together as by Chan et al. 1979, which cancels nothing.

    Raises:
        ValueError: the whole batch has one value of each channel, which has no variance.
    """
    num = images.numel() // images.shape[1]
    wide = _wide(images)
    if num:
        var, mean = torch.var_mean(wide, _all_but_channels(images), correction=0)
    else:
        var, mean = wide.new_zeros(2, images.shape[1])
    of_parts = ranks.each(torch.cat((mean, var, mean.new_full((1,), num))))
    means, variances, nums = of_parts[:, : len(mean)], of_parts[:, len(mean) : -1], of_parts[:, -1:]
    total = nums.sum()
    # Reading the total makes a host wait for its accelerator. A part with two values need not ask.
    if num <= 1:
        _refuse_single_value(images, total)
    whole_mean = (nums * means).sum(dim=0) / total
    return whole_mean, (nums * (variances + (means - whole_mean) ** 2)).sum(dim=0) / total, total


def _refuse_single_value(images: Tensor, total: Tensor) -> None:
    """In all processes, the error that torch's batch norm raises in one."""
    if int(total) == 1:
        size = torch.Size((1, *images.shape[1:]))
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")


class _Normalised(torch.autograd.Function):
    """Normalises by mean and variance of the whole batch, and knows in its gradient that they depend on it."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, num: Tensor,
        eps: float, ranks: Ranks,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(images, weight, mean, var, num)
        ctx.eps, ctx.ranks = eps, ranks
        return F.batch_norm(images, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, var, num = ctx.saved_tensors
        shape = (1, -1, *[1] * (images.ndim - 2))
        scale = (var + ctx.eps).rsqrt()
        normed = (_wide(images) - mean.view(shape)).mul_(scale.view(shape))
        wide = _wide(grad)
        of_bias = wide.sum(dim=_all_but_channels(grad))
        of_weight = (wide * normed).sum(dim=_all_but_channels(grad))
        # Of the parameters this is the part's own gradient; those of all parts are summed with the other parameters'.
        mean_grad, mean_product = (ctx.ranks.total(torch.cat((of_bias, of_weight))) / num).chunk(2)
        of_images = wide - mean_grad.view(shape) - normed.mul_(mean_product.view(shape))
        of_images *= (scale if weight is None else scale * weight).view(shape)
        wants_weight, wants_bias = ctx.needs_input_grad[1:3]
        parameters = of_weight if wants_weight else None, of_bias if wants_bias else None
        return of_images.to(images.dtype), *parameters, None, None, None, None, None


def _all_but_channels(images: Tensor) -> list[int]:
    return [0, *range(2, images.ndim)]


def _wide(images: Tensor) -> Tensor:
    return images if images.dtype == torch.float64 else images.float()
