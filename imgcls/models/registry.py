"""From `[model]` of an experiment to a network: what it resolves to, how it is built, what it costs.

`resolve_model` runs before anything else of a run and needs torch only for the networks of other libraries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models import pretrained_weights, timm_models, torchvision_models
from imgcls.models.checks import CIFAR_DEPTHS, check_depth, check_patch
from imgcls.text import nearest, suggestion

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

OWN_MODELS = {
    "resnet": "ResNet of model.depth layers, model.width channels and either model.stem",
    "resnet32": "the small tutorial network: a ResNet-34 of basic blocks with the standard stem",
    "random-encoder": "frozen random projection of patches, then a ResNet-18 with the small stem",
}
"""Name -> one line, of the networks in this package."""


@dataclass(frozen=True)
class ModelSummary:
    """What a network is and costs.

    Attributes:
        name: `model.name`.
        input_shape: (1, C, H, W).
        output_shape: (1, K).
        num_parameters: all of them; the random encoder's projection is drawn again, so it is none.
        num_trainable: those that training changes.
        multiply_adds: of a forward pass of one image, counted in convolutions, linear layers and attention.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    num_parameters: int
    num_trainable: int
    multiply_adds: int


def resolve_model(config: ModelConfig, channels: int, image_size: int, *, root: Path = Path()) -> ModelConfig:
    """Fills in what the model decides for itself, and refuses what it cannot do or has no use for.

    Args:
        config: as the user wrote it; a resolved one comes back as it is.
        channels: C of the images.
        image_size: H = W of the images.
        root: what a relative path in `weights` is relative to.

    Returns:
        A config without zeros or `auto` where the network has a depth, a width or a stem, and with the name of the
        weights that `pretrained` stands for in this version of torchvision or timm.

    Raises:
        ConfigError: naming the key, its value and the remedy.
        InputError: timm, or a package of weights, is not installed.
    """
    source, name = _split(config.name)
    resolved = _RESOLVERS[source or name](config, channels, image_size)
    if pretrained_weights.is_file(resolved.weights):
        pretrained_weights.find_file(resolved.weights, root)
    return resolved


def build_model(
    config: ModelConfig,
    num_classes: int,
    channels: int,
    image_size: int,
    seed: int,
    *,
    root: Path = Path(),
    with_weights: bool = True,
) -> nn.Module:
    """Builds a network on the CPU, in training mode; torch's global random state stays as it is.

    Args:
        config: as `resolve_model` gives it.
        num_classes: K.
        channels: C of the images.
        image_size: H = W of the images.
        seed: of every weight that is drawn, but for the random encoder's, which has its own.
        root: what a relative path in `weights` is relative to.
        with_weights: False leaves `config.weights` alone, for a network that a checkpoint fills anyway.

    Returns:
        A module: float32 images (B, C, H, W) -> logits (B, K).

    Raises:
        InputError: weights that are of another network or cannot be had, or a network that refuses this image size.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reach the GPUs' generators too.
        torch.default_generator.manual_seed(seed)
        if config.name in OWN_MODELS:
            model = _own(config, num_classes, channels, image_size)
        else:
            model = _foreign(config, num_classes, channels, image_size, with_weights)
    if with_weights and _is_local(config.weights):
        _load_weights(model, config, root)
    return model


def pretrained_normalisation(config: ModelConfig) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std per channel in [0, 1] that the weights of a resolved config were trained with.

    Returns:
        (mean, std), three values each; None for random weights and for files, which do not say.
    """
    source, name = _split(config.name)
    if pretrained_weights.is_package(config.weights):
        return pretrained_weights.PACKAGE_NORMALISATION
    if not config.weights or pretrained_weights.is_file(config.weights):
        return None
    if source == "torchvision":
        return torchvision_models.normalisation(name, torchvision_models.resolve_weights(config, name))
    return timm_models.normalisation(name, timm_models.resolve_weights(config, name))


def list_models() -> list[tuple[str, str]]:
    """(name, one line) of every network: this package's, torchvision's and, if it is installed, timm's."""
    rows = list(OWN_MODELS.items())
    for name in torchvision_models.names():
        rows.append((f"torchvision:{name}", f"weights: {', '.join(torchvision_models.weight_names(name))}"))
    if timm_models.is_installed():
        tags = timm_models.weight_names()
        for name in timm_models.names():
            rows.append((f"timm:{name}", f"weights: {', '.join(tags.get(name, ['none']))}"))
    return rows


def closest_model(name: str) -> str:
    """The listed model whose name, less its prefix, is most like `name`, less its prefix; empty where none is."""
    # Reversed, so that our own come before torchvision's, and those before timm's, where several are called alike.
    full_names = {known.rpartition(":")[2]: known for known, _ in reversed(list_models())}
    return full_names.get(nearest(name.rpartition(":")[2], full_names), "")


def describe_model(
    config: ModelConfig, channels: int, image_size: int, num_classes: int, *, root: Path = Path()
) -> ModelSummary:
    """Builds a network with random weights and counts what one image costs; nothing is downloaded.

    Raises:
        InputError: as `build_model`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = resolve_model(config, channels, image_size, root=root)
    model = build_model(config, num_classes, channels, image_size, seed=0, with_weights=False).eval()
    images = torch.zeros(1, channels, image_size, image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model(images)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ModelSummary(
        name=config.name,
        input_shape=tuple(images.shape),
        output_shape=tuple(logits.shape),
        num_parameters=sum(size for size, _ in sizes),
        num_trainable=sum(size for size, trainable in sizes if trainable),
        multiply_adds=counter.get_total_flops() // 2,
    )


def _split(name: str) -> tuple[str, str]:
    """`SOURCE:NAME` -> (source, name); one of our own has no source.

    Raises:
        ConfigError: there is neither such a source nor such a network.
    """
    source, colon, bare = name.rpartition(":")
    if source in ("torchvision", "timm") or (not colon and bare in OWN_MODELS):
        return source, bare
    raise ConfigError(
        f"model.name = {name!r}: there is no such model; there are {', '.join(OWN_MODELS)}, torchvision:NAME and "
        f"timm:NAME, see `imgcls models`{suggestion(closest_model(name))}"
    )


def _resolve_resnet(config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
    del channels, image_size  # any will do
    _refuse_unused(config, "patch", "encoder_seed")
    _refuse_named_weights(config)
    depth = config.depth or 18
    three_stages = depth in CIFAR_DEPTHS
    stem = config.stem if config.stem != "auto" else "small" if three_stages else "standard"
    check_depth(depth, stem)
    return _filled(config, depth, config.width or (16 if three_stages else 64), stem)


def _resolve_resnet32(config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
    del channels, image_size  # any will do
    _refuse_unused(config, "patch", "encoder_seed")
    _refuse_named_weights(config)
    _refuse_other(config, "depth", (0, 34))
    _refuse_other(config, "stem", ("auto", "standard"))
    return _filled(config, 34, config.width or 64, "standard")


def _resolve_random_encoder(config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
    _refuse_unused(config, "weights")
    _refuse_other(config, "depth", (0, 18))
    _refuse_other(config, "stem", ("auto", "small"))
    if channels != 3:
        raise ConfigError(f"model.name = 'random-encoder' takes RGB images, not {channels} channel; {_AS_RGB}")
    check_patch(config.patch, image_size)
    return _filled(config, 18, config.width or 64, "small")


def _resolve_torchvision(config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
    del image_size  # seen when the network is built
    _refuse_unused(config, "depth", "width", "stem", "dropout", "patch", "encoder_seed")
    _, name = _split(config.name)
    torchvision_models.check(name, channels)
    if pretrained_weights.is_package(config.weights):
        package = pretrained_weights.find_package(config.weights)
        raise ConfigError(f"model.weights = {config.weights!r} are for model.name = 'timm:{package.timm_name}' alone")
    if not config.weights or pretrained_weights.is_file(config.weights):
        return config
    return config.model_copy(update={"weights": torchvision_models.resolve_weights(config, name)})


def _resolve_timm(config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
    del image_size  # seen when the network is built
    _refuse_unused(config, "depth", "width", "stem", "patch", "encoder_seed")
    _, name = _split(config.name)
    timm_models.check(name)
    config = _with_installed_package(config, name)
    if channels != 3 and config.weights and not pretrained_weights.is_file(config.weights):
        raise ConfigError(f"model.weights = {config.weights!r} want RGB images, not {channels} channel; {_AS_RGB}")
    if pretrained_weights.is_package(config.weights):
        _check_package(config, name)
    if not config.weights or _is_local(config.weights):
        return config
    return config.model_copy(update={"weights": timm_models.resolve_weights(config, name)})


def _with_installed_package(config: ModelConfig, name: str) -> ModelConfig:
    """`pretrained` stands for the weights of a package where one is installed: they are here, and need no download."""
    package = pretrained_weights.installed_package(name) if config.weights == "pretrained" else ""
    if not package:
        return config
    _say_once(f"model.weights = 'pretrained': the weights of the installed package, model.weights = '{package}'")
    return config.model_copy(update={"weights": package})


@lru_cache
def _say_once(line: str) -> None:
    log.info(line)


_AS_RGB = "set data.channels = 3, which repeats grey three times"

_RESOLVERS: dict[str, Callable[[ModelConfig, int, int], ModelConfig]] = {
    "resnet": _resolve_resnet,
    "resnet32": _resolve_resnet32,
    "random-encoder": _resolve_random_encoder,
    "torchvision": _resolve_torchvision,
    "timm": _resolve_timm,
}


def _filled(config: ModelConfig, depth: int, width: int, stem: str) -> ModelConfig:
    return config.model_copy(update={"depth": depth, "width": width, "stem": stem})


def _refuse_unused(config: ModelConfig, *keys: str) -> None:
    """What is recorded must be what ran, so an option without effect is an error."""
    for key in keys:
        value, default = getattr(config, key), ModelConfig.model_fields[key].default
        if value != default:
            raise ConfigError(
                f"model.{key} = {value!r}: {config.name} has no use for it; leave it out (it is {default!r} then)"
            )


def _refuse_other(config: ModelConfig, key: str, allowed: tuple[Any, Any]) -> None:
    value = getattr(config, key)
    if value not in allowed:
        raise ConfigError(
            f"model.{key} = {value!r}: {config.name} always has {allowed[1]!r}; leave it out, or choose it freely "
            "with model.name = 'resnet'"
        )


def _refuse_named_weights(config: ModelConfig) -> None:
    if config.weights and not pretrained_weights.is_file(config.weights):
        raise ConfigError(
            f"model.weights = {config.weights!r}: nobody publishes weights for {config.name}; name a .pt, .pth or "
            ".safetensors file, or choose model.name = 'torchvision:resnet18' or 'torchvision:resnet34' with "
            "model.weights = 'pretrained'"
        )


def _check_package(config: ModelConfig, name: str) -> None:
    package = pretrained_weights.find_package(config.weights)
    if name != package.timm_name:
        raise ConfigError(
            f"model.weights = {config.weights!r}: with model.name = {config.name!r} they would compute something "
            f"else than they were trained for; set model.name = 'timm:{package.timm_name}'"
        )
    pretrained_weights.find_package_file(package)


def _is_local(name: str) -> bool:
    """Whether weights are read here, not by the network's own library."""
    return pretrained_weights.is_file(name) or pretrained_weights.is_package(name)


def _own(config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
    from imgcls.models.random_encoder import RandomEncoderResNet
    from imgcls.models.resnet import ResNet

    if config.name == "random-encoder":
        return RandomEncoderResNet(
            num_classes, config.width, config.patch, config.encoder_seed, image_size, config.dropout
        )
    return ResNet(config.depth, config.width, config.stem, num_classes, channels, config.dropout)


def _foreign(config: ModelConfig, num_classes: int, channels: int, image_size: int, with_weights: bool) -> nn.Module:
    """A network of another library, tried on one image, because many take images of some sizes alone."""
    try:
        model = _construct_foreign(config, num_classes, channels, image_size, with_weights)
        output_shape = _output_shape(model, channels, image_size)
    except InputError:
        raise
    except Exception as error:  # a size is refused by an assert, by a kernel or by arithmetic
        raise InputError(
            f"{config.name} cannot take images of {image_size} x {image_size} pixels: {error}; choose another "
            "data.image_size"
        ) from error
    if output_shape != (1, num_classes):
        raise InputError(
            f"{config.name} gives {output_shape}, not logits (1, {num_classes}); choose another model.name"
        )
    return model


def _construct_foreign(
    config: ModelConfig, num_classes: int, channels: int, image_size: int, with_weights: bool
) -> nn.Module:
    source, name = _split(config.name)
    published = "" if _is_local(config.weights) else config.weights
    if source == "torchvision":
        return torchvision_models.build(name, published if with_weights else "", num_classes, image_size)
    return timm_models.build(name, published, bool(published) and with_weights, num_classes, channels, config.dropout)


def _output_shape(model: nn.Module, channels: int, image_size: int) -> tuple[int, ...]:
    import torch

    model.eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, channels, image_size, image_size))
    model.train()
    return tuple(logits.shape)


def _load_weights(model: nn.Module, config: ModelConfig, root: Path) -> None:
    """Fills a network from a file or a package."""
    source, _ = _split(config.name)
    heads = timm_models.head_names(model) if source == "timm" else [torchvision_models.head_name(model)]
    if pretrained_weights.is_package(config.weights):
        tensors = pretrained_weights.read_file(
            pretrained_weights.find_package_file(pretrained_weights.find_package(config.weights))
        )
        tensors = pretrained_weights.in_order(tensors, list(model.state_dict()))
    else:
        tensors = pretrained_weights.read_file(pretrained_weights.find_file(config.weights, root))
    pretrained_weights.load(model, tensors, heads, origin=f"model.weights = {config.weights!r}")
