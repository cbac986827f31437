"""Convolutions whose weight gradient is one matrix product, where oneDNN is slow at it.

On processors with AVX2, oneDNN takes up to thirteen times as long for it as such a product where maps are small and
channels many, as in the last stages of a ResNet: 61 ms against 15 for 512 channels on 2 x 2 pixels in batches of 64, 91
against 61 for 512 on 7 x 7 in batches of 32. A whole step of ResNet-18 at 64 pixels is 1.19 times as fast by it, of
ResNet-50 at 224 pixels 1.16 (2 cores of an AMD EPYC, torch 2.15, 2026-11-23). The sums are the same, added in another
order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

CHANNELS_PER_PIXEL = 32
"""Of input and output for each pixel of the output map's side, from which on the product is faster: seen for 16 to 512
channels, sides of 1 to 28, batches of 32 and 128, and kernels of 1 and 3."""

LARGEST_SIDE = 8
"""Of the output map, in pixels: the product unfolds its input, which then takes as many times the memory as the kernel
has pixels."""


def speed_up(model: nn.Module) -> None:
    """Has a channels-last model on a processor with AVX2 take the faster way; on others, which were not seen, not.

    The model keeps its parameters, their names, and what it computes.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return
    for module in model.modules():
        # Exactly this class: others, such as timm's, pad or scale as they like.
        if type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1) and _pads_with_zeros(module):
            module.__class__ = Conv2d


def _pads_with_zeros(module: nn.Conv2d) -> bool:
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


class Conv2d(nn.Conv2d):
    """torch's, but for how the gradient of its weights is computed."""

    padding: tuple[int, int]

    def forward(self, images: Tensor) -> Tensor:
        """Output (B, O, h, w) of images (B, C, H, W)."""
        faster = torch.is_grad_enabled() and images.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        convolve = _Convolution.apply if faster and self._is_small(images) else F.conv2d
        output: Tensor = convolve(images, self.weight, self.bias, self.stride, self.padding)
        return output

    def _is_small(self, images: Tensor) -> bool:
        sides = zip(images.shape[2:], self.padding, self.kernel_size, self.stride, strict=True)
        side = max((length + 2 * zeros - kernel) // stride + 1 for length, zeros, kernel, stride in sides)
        return side <= LARGEST_SIDE and min(self.weight.shape[:2]) >= CHANNELS_PER_PIXEL * side


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wants_images, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        of_images = None
        if wants_images:  # the same bits as autograd's own
            of_images = conv2d_input(images.shape, weight, grad, ctx.stride, ctx.padding)  # type: ignore[no-untyped-call]
        of_weight = weight_gradient(images, grad, weight.shape, ctx.stride, ctx.padding) if wants_weight else None
        return of_images, of_weight, grad.sum(dim=(0, 2, 3)) if wants_bias else None, None, None


def weight_gradient(
    images: Tensor, grad: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of a convolution's weights, as one product of what each output pixel saw and its gradient.

    Args:
        images: input of the convolution, float32 (B, C, H, W).
        grad: of its output, float32 (B, O, h, w).
        shape: of its weights, (O, C, kh, kw).
        stride: down and across.
        padding: zeros at each side, down and across.

    Returns:
        float32 (O, C, kh, kw), channels-last.
    """
    channels_out, channels, kernel_h, kernel_w = shape
    padded = images.permute(0, 2, 3, 1).contiguous()
    if any(padding):
        padded = F.pad(padded, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    step = padded.stride()
    seen = padded.as_strided(
        (len(grad), *grad.shape[2:], kernel_h, kernel_w, channels),
        (step[0], step[1] * stride[0], step[2] * stride[1], step[1], step[2], step[3]),
    ).reshape(-1, kernel_h * kernel_w * channels)
    product = grad.permute(0, 2, 3, 1).reshape(-1, channels_out).t() @ seen
    return product.view(channels_out, kernel_h, kernel_w, channels).permute(0, 3, 1, 2)
