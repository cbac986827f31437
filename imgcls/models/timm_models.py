"""`timm:NAME`: the networks of timm, an optional dependency, with its weights or without."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import TYPE_CHECKING

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models.hub import asked_where_it_answers, downloaded, why_not_had
from imgcls.models.pretrained_weights import PACKAGES, packages_as_a_way_out
from imgcls.text import did_you_mean

if TYPE_CHECKING:
    from torch import nn


def is_installed() -> bool:
    """Whether timm can be imported."""
    try:
        _timm()
    except InputError:
        return False
    return True


def names() -> list[str]:
    """Every network, without the prefix and without tags of weights."""
    return list(_timm().list_models())


def weight_names() -> dict[str, list[str]]:
    """Network -> the tags of the weights that timm publishes for it."""
    tags: dict[str, list[str]] = {}
    for tagged in _timm().list_pretrained():
        name, _, tag = tagged.partition(".")
        tags.setdefault(name, []).append(tag)
    return tags


def downloaded_weights() -> dict[str, list[str]]:
    """Network -> the tags of the weights that an earlier download left on this machine."""
    found: dict[str, list[str]] = {}
    for name, tags in weight_names().items():
        here = [tag for tag in tags if downloaded(_timm().get_pretrained_cfg(f"{name}.{tag}"))]
        found |= {name: here} if here else {}
    return found


def check(name: str) -> None:
    """Checks that the network exists.

    Raises:
        ConfigError: naming the nearest network.
        InputError: timm is not installed.
    """
    known = names()
    network, dot, tag = name.partition(".")
    if dot and network in known:
        raise ConfigError(
            f"model.name = 'timm:{name}' names weights too; set model.name = 'timm:{network}' and "
            f"model.weights = {tag!r}, or leave model.weights empty for random ones"
        )
    if name not in known:
        raise ConfigError(
            f"model.name = 'timm:{name}': timm has no such network, see `imgcls models`{did_you_mean(network, known)}"
        )


def resolve_weights(config: ModelConfig, name: str) -> str:
    """The tag of the weights that `pretrained`, or a tag itself, stands for today.

    Raises:
        ConfigError: listing the tags there are.
    """
    known = weight_names().get(name, [])
    if config.weights in known:
        return config.weights
    if config.weights == "pretrained" and known:
        return str(_timm().get_pretrained_cfg(name).tag)
    packages = [f"package:{key}" for key, package in PACKAGES.items() if package.timm_name == name]
    choice = ", ".join((*known, *packages)) or "no weights of its own"
    raise ConfigError(
        f"model.weights = {config.weights!r}: timm:{name} has {choice}; choose one, or a .pt, .pth or .safetensors "
        f"file{did_you_mean(config.weights, known)}"
    )


def normalisation(name: str, tag: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel in [0, 1] that timm's weights were trained with."""
    config = _timm().get_pretrained_cfg(f"{name}.{tag}")
    return tuple(config.mean), tuple(config.std)


def build(name: str, tag: str, pretrained: bool, num_classes: int, channels: int, dropout: float) -> nn.Module:
    """Builds the network, in training mode, with a head for `num_classes`.

    Args:
        name: without the prefix.
        tag: of its weights; empty for none.
        pretrained: whether to download them. Without, the tag still decides what little of the shapes it does.
        num_classes: K.
        channels: C of the images.
        dropout: before the last layer.

    Raises:
        InputError: the weights could not be downloaded, or the network has no dropout.
    """
    options = {"drop_rate": dropout} if dropout else {}
    try:
        with asked_where_it_answers() if pretrained else nullcontext():
            model: nn.Module = _timm().create_model(
                f"{name}.{tag}" if tag else name,
                pretrained=pretrained,
                num_classes=num_classes,
                in_chans=channels,
                **options,
            )
    except TypeError as error:
        raise InputError(f"timm:{name} cannot be built with {options}: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise InputError(
            f"timm:{name}: the weights {tag} could not be had: {why_not_had(error)}; set model.weights to a "
            f"file, or to '' for random weights{packages_as_a_way_out()}"
        ) from error
    if not (pretrained and model.pretrained_cfg["num_classes"] == num_classes):  # type: ignore[index]
        _redraw_head(model)
    return model


def _redraw_head(model: nn.Module) -> None:
    """Draws last layers that came without weights as torch draws a Linear.

    timm scales some by their outputs: EfficientNet's two-class head spans +-0.7, and its first loss is near 3 nats.
    """
    from torch import nn

    heads = head_names(model)
    for name, module in model.named_modules():
        if name in heads and isinstance(module, nn.Linear):
            module.reset_parameters()


def head_names(model: nn.Module) -> list[str]:
    """The last layers, of which distilled networks have two and bare encoders none."""
    classifier = model.pretrained_cfg["classifier"]  # type: ignore[index]
    return [classifier] if isinstance(classifier, str) else list(classifier or ())


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError("model.name = 'timm:...' needs timm; run: pip install timm") from error
    module: ModuleType = timm
    return module
