"""`torchvision:NAME`: torchvision's classification networks, with its weights or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models.hub import downloaded_from
from imgcls.models.pretrained_weights import packages_as_a_way_out
from imgcls.text import did_you_mean

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum


_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def names() -> list[str]:
    """Every name, without the prefix."""
    from torchvision import models

    return list(models.list_models(module=models))


def weight_names(name: str) -> list[str]:
    """The pretrained weights that torchvision publishes for a network."""
    return [weights.name for weights in _weights(name)]


def downloaded_weights(name: str) -> list[str]:
    """Those of them that an earlier download left on this machine."""
    return [weights.name for weights in _weights(name) if downloaded_from(weights.url)]


def check(name: str, channels: int) -> None:
    """Checks that the network exists and takes images of so many channels.

    Raises:
        ConfigError: naming the nearest network, or the remedy.
    """
    if name not in (known := names()):
        raise ConfigError(
            f"model.name = 'torchvision:{name}': torchvision has no such classification network, see `imgcls models`"
            f"{did_you_mean(name, known)}"
        )
    if channels != 3:
        raise ConfigError(
            f"model.name = 'torchvision:{name}' takes RGB images, not {channels} channel; set data.channels = 3, "
            "which repeats grey three times"
        )


def resolve_weights(config: ModelConfig, name: str) -> str:
    """The name of the weights that `pretrained`, or a name itself, stands for today.

    Raises:
        ConfigError: listing the names there are.
    """
    known = weight_names(name)
    if config.weights in known:
        return config.weights
    if config.weights == "pretrained":
        return str(_weights(name).DEFAULT.name)
    raise ConfigError(
        f"model.weights = {config.weights!r}: torchvision:{name} has {', '.join(known)}; choose one, or a .pt, .pth or "
        f".safetensors file{did_you_mean(config.weights, known)}"
    )


def normalisation(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel in [0, 1] that named weights were trained with."""
    if name in _WITH_AUXILIARY_HEADS:
        return (0.5,) * 3, (0.5,) * 3
    transform = _weights(name)[weights].transforms()
    return tuple(transform.mean), tuple(transform.std)


def build(name: str, weights: str, num_classes: int, image_size: int) -> nn.Module:
    """Builds the network, in training mode.

    Args:
        name: without the prefix.
        weights: a name of torchvision's, or empty for random ones.
        num_classes: K; the head is initialised again where the weights have another number.
        image_size: H = W of the images, on which the shapes of the transformers depend.

    Raises:
        InputError: the weights could not be downloaded.
    """
    model = _download(name, weights) if weights else _from_scratch(name, num_classes, image_size)
    if name in _WITH_AUXILIARY_HEADS:
        _simplify(model)
    _fit_head(model, num_classes)
    return model


def head_name(model: nn.Module) -> str:
    """The last linear layer, or in squeezenet, which has none, the last convolution."""
    from torch import nn

    modules: list[tuple[str, nn.Module]] = list(model.named_modules())
    linear = [name for name, module in modules if isinstance(module, nn.Linear)]
    return linear[-1] if linear else [name for name, module in modules if isinstance(module, nn.Conv2d)][-1]


def _weights(name: str) -> type[WeightsEnum]:
    from torchvision import models

    enum: type[WeightsEnum] = models.get_model_weights(name)
    return enum


def _from_scratch(name: str, num_classes: int, image_size: int) -> nn.Module:
    from torchvision import models

    options: dict[str, object] = {}
    if name in _WITH_AUXILIARY_HEADS:
        options["init_weights"] = True  # they warn unless told how to start
    if name.startswith("vit_"):
        options["image_size"] = image_size
    if name.startswith("maxvit_"):
        options["input_size"] = (image_size, image_size)
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def _download(name: str, weights: str) -> nn.Module:
    import torch
    from torchvision import models

    try:
        model: nn.Module = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        url = _weights(name)[weights].url
        raise InputError(
            f"torchvision:{name}: the weights {weights} could not be had: {error}; fetch {url} by other means into "
            f"{torch.hub.get_dir()}/checkpoints, or set model.weights to a file or to '' for random weights"
            f"{packages_as_a_way_out()}"
        ) from error
    return model


def _simplify(model: nn.Module) -> None:
    """Makes a network a function of images to logits alone, whatever its weights.

    Auxiliary heads would make it return more while it trains. With downloaded weights it would also turn ImageNet's
    normalisation into that by 0.5 and 0.5, and not do so when the same network is read from a checkpoint;
    `normalisation` asks for 0.5 and 0.5 instead.
    """
    plain = {"aux1": None, "aux2": None, "AuxLogits": None, "aux_logits": False, "transform_input": False}
    for name, value in plain.items():
        if hasattr(model, name):
            setattr(model, name, value)


def _fit_head(model: nn.Module, num_classes: int) -> None:
    from torch import nn

    name = head_name(model)
    head = model.get_submodule(name)
    if isinstance(head, nn.Linear) and head.out_features != num_classes:
        model.set_submodule(name, nn.Linear(head.in_features, num_classes))
    elif isinstance(head, nn.Conv2d) and head.out_channels != num_classes:
        model.set_submodule(name, nn.Conv2d(head.in_channels, num_classes, 1))
