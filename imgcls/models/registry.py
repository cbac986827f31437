"""The registry of networks: resolves `[model]` of an experiment, builds the network, lists all, says what one costs.

`resolve_model` runs before anything else of a run. It imports torch only for the networks of other libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgcls.config.keys import ModelConfig
from imgcls.config.toml import as_options
from imgcls.errors import ConfigError
from imgcls.models.network import Library, Listed, Network, Normalisation
from imgcls.models.pretrained_weights import load_weights
from imgcls.models.random_encoder import RandomEncoderThenResNet
from imgcls.models.resnet import ResNet32, ResNetOfAnyDepth
from imgcls.models.timm_models import Timm
from imgcls.models.torchvision_models import Torchvision
from imgcls.text import nearest, suggestion

if TYPE_CHECKING:
    from torch import nn

    from imgcls.models.parts import NetworkParts

NETWORKS: tuple[Network, ...] = (ResNetOfAnyDepth(), ResNet32(), RandomEncoderThenResNet(), Torchvision(), Timm())
"""Every network of this package, then every library of networks, in the order of the list."""


@dataclass(frozen=True)
class ModelSummary:
    """A registered network's shapes and costs, for one image.

    Attributes:
        name: `model.name`.
        input_shape: (1, C, H, W).
        output_shape: (1, K).
        num_parameters: all of them, without the random encoder's projection, which is drawn again and not stored.
        num_trainable: those that training changes.
        multiply_adds: of a forward pass of one image, counted in convolutions, linear layers and attention.
        num_stages: of the whole network, if `model.depth` says how many of them are kept; otherwise 0.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    num_parameters: int
    num_trainable: int
    multiply_adds: int
    num_stages: int


def resolve_model(config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
    """A registered network resolves `[model]`: fills in what it decides, refuses what it cannot do or does not use.

    Args:
        config: as the user wrote it; a resolved one comes back as it is.
        channels: C of the images.
        image_size: H = W of the images.

    Returns:
        A config without zeros or `auto` where the network has a depth, a width or a stem, and with the name of the
        weights that `pretrained` stands for in this version of torchvision or timm.

    Raises:
        ConfigError: naming the key, its value and the remedy.
        InputError: timm, or a package of weights, is not installed.
    """
    problems: list[str] = []
    remedy: dict[str, Any] = {}
    while True:
        try:
            resolved = _resolved(config, remedy, channels, image_size)
            break
        except ConfigError as error:
            if remedy.keys() >= error.remedy.keys():  # no remedy is known, or it did not help
                raise
            problems.append(str(error))
            remedy |= error.remedy
    if problems:
        words = "for random weights, add" if remedy.get("model.weights") == "" else "to mend this, add"
        raise ConfigError("\n".join([*problems, f"{words} {as_options(remedy)}"]), remedy)
    return resolved


def _resolved(config: ModelConfig, changes: Mapping[str, Any], channels: int, image_size: int) -> ModelConfig:
    own = {key.removeprefix("model."): value for key, value in changes.items() if key.startswith("model.")}
    changed = config.model_copy(update=own)
    _refuse_unused(changed)
    return _network(config.name).resolve(changed, changes.get("data.channels", channels), image_size)


def build_model(
    config: ModelConfig,
    num_classes: int,
    channels: int,
    image_size: int,
    seed: int,
    *,
    file: Path | None = None,
    with_weights: bool = True,
) -> nn.Module:
    """Builds the registered network that `[model]` names, on the CPU; torch's global random state stays as it is.

    Args:
        config: as `resolve_model` gives it.
        num_classes: K.
        channels: C of the images.
        image_size: H = W of the images.
        seed: of every random weight, except those of the random encoder, which has its own seed.
        file: where `config.weights` lies, if it names a file; see `Project.weights`.
        with_weights: False does not load `config.weights`, for a network that a checkpoint fills anyway.

    Returns:
        A module in training mode: float32 images (B, C, H, W) -> logits (B, K).

    Raises:
        InputError: weights that are of another network or cannot be had, or a network that refuses this image size.
    """
    import torch

    network = _network(config.name)
    is_local = config.weights_are_a_file or config.weights_are_a_package
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reach the GPUs' generators too.
        torch.default_generator.manual_seed(seed)
        if isinstance(network, Library):
            download = with_weights and bool(config.weights) and not is_local
            model = network.build_or_refuse(config, num_classes, channels, image_size, download)
        else:
            model = network.build(config, num_classes, channels, image_size)
        if with_weights and is_local:
            load_weights(model, config, network.heads(model), file)
        return network.cut(config, model, num_classes)


def network_parts(config: ModelConfig, model: nn.Module) -> NetworkParts:
    """The parts of a registered network that was built from a resolved config: its head and the blocks before it."""
    from imgcls.models.parts import NetworkParts

    network = _network(config.name)
    return NetworkParts.of_blocks(model, network.heads(model), network.blocks(model))


def build_models(num_folds: int, config: ModelConfig, **options: Any) -> nn.Module:
    """Builds a registered network; with folds, an `Ensemble` of one for each. See `build_model` for the options."""
    from imgcls.models.ensemble import Ensemble

    if not num_folds:
        return build_model(config, **options)
    return Ensemble(build_model(config, **options) for _ in range(num_folds))


def pretrained_normalisation(config: ModelConfig) -> Normalisation | None:
    """A registered network's mean and std per channel in [0, 1] for the weights of a resolved config.

    Returns:
        (mean, std), three values each; None for random weights and for files, which do not say.
    """
    if not config.weights or config.weights_are_a_file:
        return None
    return _network(config.name).normalisation(config)


def model_names() -> list[str]:
    """Names of all registered networks, as `model.name` takes them; those of timm only if it is installed."""
    return [name for network in NETWORKS for name in network.names()]


def listed_models(pattern: str = "") -> list[Listed]:
    """Lists registered networks whose name has `pattern` in it, or matches it where it has `*`, `?` or `[`.

    Those with weights on this machine come first, then those with weights in packages that are not installed.
    """
    pattern = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    listed = [model for network in NETWORKS for model in network.listed() if fnmatchcase(model.name, pattern)]
    return sorted(listed, key=lambda model: (not model.weights_here, not model.packages))


def listed_model(name: str) -> Listed | None:
    """The registered network of this name as `listed_models` has it; None where there is none."""
    return _network(name).listed_as(name)


def closest_model(name: str) -> str:
    """The registered network whose name is most like `name`, both without prefixes; empty if none is alike."""
    # Reversed, so that our own come before torchvision's, and those before timm's, where several are called alike.
    full_names = {known.rpartition(":")[2]: known for known in reversed(model_names())}
    return full_names.get(nearest(name.rpartition(":")[2], full_names), "")


def describe_model(config: ModelConfig, channels: int, image_size: int, num_classes: int) -> ModelSummary:
    """A registered network's cost for one image, built with random weights; nothing is downloaded.

    Raises:
        InputError: as `build_model`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = resolve_model(config, channels, image_size)
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
        num_stages=_network(config.name).num_stages(config),
    )


def _network(name: str) -> Network:
    """The network, or the library of networks, that `model.name` means.

    Raises:
        ConfigError: there is neither such a library nor such a network.
    """
    library = name[: name.rfind(":") + 1]
    for network in NETWORKS:
        if network.name == (library or name):
            return network
    *known, last = (f"{network.name}NAME" if isinstance(network, Library) else network.name for network in NETWORKS)
    raise ConfigError(
        f"model.name = {name!r}: unknown model; known are {', '.join(known)} and {last} (`imgcls models` lists them)"
        f"{suggestion(closest_model(name))}"
    )


def unused_model_keys(name: str) -> list[str]:
    """Keys of `[model]` that the registered network does not use; a resolved config has their defaults.

    Raises:
        ConfigError: the network does not exist.
    """
    used = ("name", *_network(name).keys)
    return [key for key in ModelConfig.model_fields if key not in used]


def added_model_keys(name: str) -> dict[str, Any]:
    """Keys of `[model]` that the registered network takes and earlier versions did not: key -> its default.

    Raises:
        ConfigError: the network does not exist.
    """
    return {key: ModelConfig.model_fields[key].default for key in _network(name).added_keys}


def _refuse_unused(config: ModelConfig) -> None:
    """Refuses a key that the network does not use, because what is recorded must be what ran."""
    defaults = {key: ModelConfig.model_fields[key].default for key in unused_model_keys(config.name)}
    given = {key: getattr(config, key) for key, default in defaults.items() if getattr(config, key) != default}
    if given:
        it = "it" if len(given) == 1 else "them"
        raise ConfigError(
            f"{', '.join(f'model.{key} = {value!r}' for key, value in given.items())}: {config.name} has no use for "
            f"{it}; leave {it} out",
            {f"model.{key}": defaults[key] for key in given},
        )
