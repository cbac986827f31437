"""Residual networks (He et al. 2016, arXiv 1512.03385), with parameter names as in torchvision.

At width 64 with the standard stem, depths 18, 34, 50 and 101 take torchvision's state_dict as it is.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Layers of a ResNet block, two of 3x3: (B, in_channels, H, W) -> (B, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Adds the residual to the shortcut before the last ReLU."""
        residual = F.relu(self.bn1(self.conv1(features)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(features), inplace=True)


class Bottleneck(nn.Module):
    """Layers of a ResNet block, 1x1, 3x3, 1x1: (B, in_channels, H, W) -> (B, 4 width, H / stride, W / stride).

    The 3x3 convolution has the stride, not the first 1x1 as in the paper: torchvision's "v1.5".
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)
        nn.init.zeros_(self.bn3.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Adds the residual to the shortcut before the last ReLU."""
        residual = F.relu(self.bn1(self.conv1(features)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.downsample(features), inplace=True)


class ResNet(nn.Sequential):
    """All layers of a ResNet: float32 images (B, channels, H, W) -> logits (B, num_classes); see `resnet`.

    Convolutions start as in He et al. 2015 (arXiv 1502.01852, fan-out). Each residual starts at zero, so every block
    starts as its shortcut (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks_per_stage: Sequence[int],
        width: int,
        stem: str,
        num_classes: int,
        channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        layers = _stem(stem, channels, width)
        in_channels = width
        for stage, num_blocks in enumerate(blocks_per_stage):
            stage_width = width * 2**stage
            stride = 1 if stage == 0 else 2
            layers[f"layer{stage + 1}"] = _stage(block, in_channels, stage_width, num_blocks, stride)
            in_channels = stage_width * block.expansion
        layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["dropout"] = nn.Dropout(dropout)
        layers["fc"] = nn.Linear(in_channels, num_classes)
        super().__init__(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(stem: str, channels: int, width: int) -> OrderedDict[str, nn.Module]:
    kernel, stride = (3, 1) if stem == "small" else (7, 2)
    conv = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    layers = OrderedDict[str, nn.Module](conv1=conv, bn1=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True))
    if stem == "standard":
        layers["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return layers


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, num_blocks: int, stride: int
) -> nn.Sequential:
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(num_blocks - 1)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity where shapes agree, else a 1x1 projection (option B of the paper)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
