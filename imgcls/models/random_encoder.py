"""`random-encoder`: a frozen random projection of image patches, and a ResNet-18 that is trained on its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError
from imgcls.models.network import AS_RGB, RGB, Network, refuse_other

if TYPE_CHECKING:
    from torch import nn


class RandomEncoderThenResNet(Network):
    """The network `random-encoder`, whose width and patch are free."""

    name = "random-encoder"
    about = "frozen random projection of patches, then a ResNet-18 with the small stem"
    keys = ("depth", "width", "stem", "dropout", "patch", "encoder_seed")

    def resolve(self, config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
        """Resolves `random-encoder`: its ResNet is a ResNet-18 with the small stem and 64 channels."""
        refuse_other(config, depth=18, stem="small")
        if channels != 3:
            raise ConfigError(f"model.name = 'random-encoder' takes RGB images, not {channels} channel; {AS_RGB}", RGB)
        if image_size % config.patch:
            sides = [side for side in range(1, image_size + 1) if image_size % side == 0]
            largest = max(side for side in sides if side <= config.patch)
            raise ConfigError(
                f"model.patch = {config.patch} does not divide data.image_size = {image_size}; "
                f"patches that do: {', '.join(map(str, sides))}; or choose a multiple of {config.patch} for "
                "data.image_size",
                {"model.patch": largest},
            )
        return config.model_copy(update={"depth": 18, "width": config.width or 64, "stem": "small"})

    def build(self, config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
        """Builds the layers of `random-encoder`."""
        from imgcls.models.random_encoder_layers import RandomEncoderResNet

        del channels, image_size  # checked before
        return RandomEncoderResNet(num_classes, config.width, config.patch, config.encoder_seed, config.dropout)
