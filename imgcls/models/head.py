"""The head of a network as a network of its own, trained on features that the frozen backbone gave."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imgcls.config.keys import ModelConfig
from imgcls.config.toml import as_options
from imgcls.errors import ConfigError
from imgcls.models.ensemble import log_mean_probs
from imgcls.models.parts import NoFeaturesError, head_features
from imgcls.models.registry import build_model, network_parts

OFF = {"train.head_only": False}
"""The remedy that always works."""


class HeadShape(NamedTuple):
    """The name of the layer that is a network's head, and F, the number of features that enter it."""

    name: str
    num_features: int


class Head(nn.Module):
    """The head of a network: features that enter it, float (B, F), or (B, V, F) of several views -> logits (B, K).

    It is the network's own layer: when the head is trained, the network has a trained head. Nothing else of the network
    belongs to this module's parameters, so nothing else is trained.

    Args:
        network: that it belongs to.
        shape: its head, see `head_shape`.
        dropout: probability of dropping a feature while it is trained, as the network does before this layer.
    """

    def __init__(self, network: nn.Module, shape: HeadShape, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layer = network.get_submodule(shape.name)
        self.shape = shape
        self._network = (network,)  # in a tuple, or its backbone would be a part of this module

    @property
    def network(self) -> nn.Module:
        """The whole network with this head."""
        return self._network[0]

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features; of several views, the logarithms of the mean of their probabilities."""
        if features.ndim == 3:
            return log_mean_probs(self(features[:, view]) for view in range(features.shape[1]))
        logits: Tensor = self.layer(self.dropout(features))
        return logits


def whole_network(model: nn.Module) -> nn.Module:
    """The network that a model is, or is the head of."""
    return model.network if isinstance(model, Head) else model


@lru_cache
def head_shape(config: ModelConfig, channels: int, image_size: int) -> HeadShape:
    """The head of a network that can be trained alone, found by building the network without its weights.

    Args:
        config: `[model]`, as `resolve_model` gives it.
        channels: C of the images.
        image_size: H = W of the images.

    Raises:
        ConfigError: random weights, or a network whose head is not one linear layer.
        InputError: the network cannot be built.
    """
    off = as_options(OFF)
    if not config.weights:
        raise ConfigError(f"train.head_only = true: {_why_not_random(config)}; or train all of it with {off}", OFF)
    network = build_model(config, 2, channels, image_size, seed=0, with_weights=False).eval()
    heads = network_parts(config, network).heads
    try:
        with torch.no_grad():
            features = head_features(network, heads, torch.zeros(1, channels, image_size, image_size))
    except NoFeaturesError as error:
        raise ConfigError(
            f"train.head_only = true: {config.name} cannot be trained so: {error}; choose another model.name, or train "
            f"all of it with {off}", OFF
        ) from error  # fmt: skip
    return HeadShape(heads[0], features.shape[1])


def _why_not_random(config: ModelConfig) -> str:
    if config.name == "random-encoder":
        return (
            "the encoder of random-encoder is random by design, but the ResNet behind it would stay random too, since "
            "no weights are known for it; choose a network with weights (`imgcls models`)"
        )
    published = f", such as {as_options({'model.weights': 'pretrained'})}" if ":" in config.name else ""
    return (
        f"the backbone of {config.name} stays as it starts, and with model.weights = '' it starts from random numbers, "
        f"whose features say little; name trained weights{published}"
    )


def backbone_digest(head: Head) -> str:
    """SHA-256 of the weights and buffers of a head's network, its own left out, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(head.network.state_dict().items()):
        if not name.startswith(f"{head.shape.name}."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
