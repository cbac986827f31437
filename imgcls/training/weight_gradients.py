"""Convolutions whose weight gradient is one matrix product, where oneDNN is slow at it.

On processors with AVX2, oneDNN takes up to thirteen times as long as such a product where maps are small and channels
many, as in the last stages of a ResNet. The sums are the same, added in another order. docs/speed.md has the times.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

CHANNELS_PER_PIXEL = 32
"""Least number of channels, in and out, for each pixel of the output map's side, with which the product is faster."""

LARGEST_SIDE = 8
"""Largest side of the output map, in pixels; the unfolded input has a copy of itself for each pixel of the kernel."""


def speed_up(model: nn.Module) -> None:
    """Gives the convolutions of a channels-last model the faster weight gradients, on processors with AVX2.

    The model keeps its parameters, their names, and what it computes. Other processors were not tried.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return
    for module in model.modules():
        if type(module) is not nn.Conv2d or isinstance(module.padding, str):  # timm's pad or scale in their own ways
            continue
        if (module.groups, module.dilation, module.padding_mode) == (1, (1, 1), "zeros"):
            module.__class__ = Conv2d


class Conv2d(nn.Conv2d):
    """Weight gradients computed another way, in torch's convolution."""

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
    """Weight gradient of a convolution, as one matrix product of what each output pixel saw and its gradient.

    Args:
        images: input of the convolution, float32 (B, C, H, W).
        grad: of its output, float32 (B, O, h, w).
        shape: of its weights, (O, C, kh, kw).
        stride: down and across, as `padding`.
        padding: zeros at each side.

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
