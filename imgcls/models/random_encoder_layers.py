"""Layers of `random-encoder`: a frozen random projection of image patches, and a ResNet-18 that is trained on it."""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgcls.models.resnet_layers import BasicBlock, ResNet


class RandomEncoder(nn.Module):
    """The frozen layer of `random-encoder`: images (B, 3, S, S) -> codes of the same shape, never trained.

    `Conv2d(3, 3 p^2, kernel_size=p, stride=p, bias=False)`, its output (B, 3 p^2, S / p, S / p) read in memory order
    as (B, 3, S, S), dropout of 0.1 and batch norm. The batch norm's running statistics are all that is in the
    state_dict: the projection, 604 MB at p = 64, is drawn again from its seed.

    Args:
        patch: p, side of a patch in pixels, which divides S.
        seed: of the projection.
    """

    weight: Tensor
    why_no_map = "the frozen projection of random-encoder scatters each patch, so no map lies over the image"
    """Why Grad-CAM cannot show places of the image."""

    def __init__(self, patch: int, seed: int) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer("weight", _draw_projection(3 * patch * patch, seed), persistent=False)
        self.dropout = nn.Dropout(0.1)
        self.bn = nn.BatchNorm2d(3).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Projects each patch of the images, then drops and normalises."""
        # Patches do not overlap, so the convolution is one product of matrices: at p = 64, two to five times faster.
        codes = F.linear(self._patches(images), self.weight)
        codes = codes.transpose(1, 2).reshape(images.shape)
        normalised: Tensor = self.bn(self.dropout(codes))
        return normalised

    def _patches(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, (S / p)^2, 3 p^2), pixels in the order of a convolution's kernel."""
        batch, channels, height, width = images.shape
        p = self.patch
        grid = images.reshape(batch, channels, height // p, p, width // p, p)
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * p * p)


class RandomEncoderResNet(nn.Sequential):
    """All layers of `random-encoder`, a ResNet-18 last: images (B, 3, S, S) -> logits (B, num_classes).

    Args:
        num_classes: K.
        width: channels of the ResNet's first stage.
        patch: side of a patch in pixels.
        seed: of the encoder alone; the ResNet draws from torch's global generator.
        dropout: before the last layer.
    """

    def __init__(self, num_classes: int, width: int, patch: int, seed: int, dropout: float = 0.0) -> None:
        encoder = RandomEncoder(patch, seed)
        resnet = ResNet(BasicBlock, (2, 2, 2, 2), width, "small", num_classes, dropout=dropout)
        super().__init__(OrderedDict[str, nn.Module](encoder=encoder, resnet=resnet))


def _draw_projection(size: int, seed: int) -> Tensor:
    """float32 (size, size), drawn as Conv2d draws its weights: evenly from +-1 / sqrt(fan-in)."""
    draws = torch.Generator().manual_seed(seed)
    weight = torch.empty(size, size)
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=draws)
