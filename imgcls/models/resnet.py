"""`resnet` and `resnet32`: residual networks of this package, their depths and their stems."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError
from imgcls.models.network import Network, refuse_other

if TYPE_CHECKING:
    from torch import nn

    from imgcls.models.resnet_layers import ResNet

CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56)
"""Depths 6n+2 of He et al. 2016, section 4.2 (arXiv 1512.03385): three stages, small stem."""

BLOCKS_PER_STAGE = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
} | {depth: ((depth - 2) // 6,) * 3 for depth in CIFAR_DEPTHS}
"""Depth -> blocks of each stage; 6n+2 weighted layers are n blocks of two in three stages, stem and head."""

RESNET_DEPTHS = tuple(depth for depth in BLOCKS_PER_STAGE if depth not in CIFAR_DEPTHS)
"""Depths with four stages; from 50 on with bottleneck blocks."""


class ResNetOfAnyDepth(Network):
    """The network `resnet`, whose depth, width and stem are free."""

    name = "resnet"
    about = "ResNet of model.depth layers, model.width channels and either model.stem"
    keys = ("depth", "width", "stem", "weights", "dropout")

    def resolve(self, config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
        """Resolves `resnet`: depth 18, the stem that the depth calls for, and 64 channels, or 16 with three stages."""
        config = super().resolve(config, channels, image_size)
        depth = config.depth or 18
        has_three_stages = depth in CIFAR_DEPTHS
        stem = config.stem if config.stem != "auto" else "small" if has_three_stages else "standard"
        check_depth(depth, stem)
        width = config.width or (16 if has_three_stages else 64)
        return config.model_copy(update={"depth": depth, "width": width, "stem": stem})

    def build(self, config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
        """Builds it with `resnet`."""
        del image_size  # any will do
        return resnet(config.depth, config.width, config.stem, num_classes, channels, config.dropout)


class ResNet32(ResNetOfAnyDepth):
    """The network `resnet32`: what a tutorial calls so has 34 layers."""

    name = "resnet32"
    about = "the small tutorial network: a ResNet-34 of basic blocks with the standard stem"

    def resolve(self, config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
        """Resolves `resnet32`: depth 34 and the standard stem; only the width is free."""
        refuse_other(config, depth=34, stem="standard")
        return super().resolve(config.model_copy(update={"depth": 34, "stem": "standard"}), channels, image_size)


def resnet(depth: int, width: int, stem: str, num_classes: int, channels: int = 3, dropout: float = 0.0) -> ResNet:
    """Builds a ResNet: float32 images (B, channels, H, W) of any size -> logits (B, num_classes).

    Args:
        depth: weighted layers: 10, 18, 34 (basic blocks), 50, 101 (bottlenecks); with the small stem also the
            three-stage networks 8, 14, 20, 32, 44, 56 of section 4.2, but with 1x1 projections where a shape changes.
        width: channels of the first stage; each further stage has twice as many.
        stem: `standard` (7x7 stride 2, 3x3 max-pool stride 2) or `small` (3x3 stride 1).
        num_classes: K.
        channels: of the images.
        dropout: probability of dropping a feature before the last layer.

    Raises:
        ConfigError: no such depth with this stem.
    """
    from imgcls.models.resnet_layers import BasicBlock, Bottleneck, ResNet

    check_depth(depth, stem)
    block = Bottleneck if depth in RESNET_DEPTHS and depth >= 50 else BasicBlock
    return ResNet(block, BLOCKS_PER_STAGE[depth], width, stem, num_classes, channels, dropout)


def check_depth(depth: int, stem: str) -> None:
    """Checks that a ResNet of this depth exists with this stem.

    Raises:
        ConfigError: listing the depths that work.
    """
    known = RESNET_DEPTHS if stem == "standard" else (*RESNET_DEPTHS, *CIFAR_DEPTHS)
    if depth in known:
        return
    if depth in CIFAR_DEPTHS:
        raise ConfigError(
            f"model.depth = {depth} has three stages, too few for model.stem = 'standard'; "
            f"choose model.stem = 'small', or one of the depths {_list(RESNET_DEPTHS)}",
            {"model.depth": 18},
        )
    closest = min(known, key=lambda candidate: abs(candidate - depth))
    raise ConfigError(
        f"model.depth = {depth}: no ResNet has this depth; did you mean {closest}? Depths: {_list(RESNET_DEPTHS)}; "
        f"with model.stem = 'small' also {_list(CIFAR_DEPTHS)}"
    )


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
