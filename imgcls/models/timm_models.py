"""`timm:NAME`: the networks of timm, an optional dependency, with its weights or without."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from imgcls.config import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models.checks import did_you_mean
from imgcls.models.weights import PACKAGES

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


def pretrained_names() -> list[str]:
    """Every `NETWORK.TAG` that timm publishes weights for."""
    return list(_timm().list_pretrained())


def check(name: str) -> None:
    """Checks that the network exists.

    Raises:
        ConfigError: naming the nearest network.
        InputError: timm is not installed.
    """
    known = pretrained_names() if "." in name else names()
    if name not in known:
        raise ConfigError(
            f"model.name = 'timm:{name}': timm has no such network{did_you_mean(name, known)}; "
            "`imgcls models` lists them"
        )


def resolve_name(config: ModelConfig, name: str) -> str:
    """The name with the tag of the weights that `pretrained` stands for today.

    Raises:
        ConfigError: weights that timm does not have, or a tag without `pretrained`.
    """
    if config.weights not in ("", "pretrained"):
        raise ConfigError(
            f"model.weights = {config.weights!r}: a timm network takes 'pretrained' (with the tag in its name, as in "
            f"{_example(name)!r}), a .pt, .pth or .safetensors file, or one of "
            f"{', '.join(f'package:{package}' for package in PACKAGES)}"
        )
    if not config.weights or "." in name:
        return name
    if not _timm().is_model_pretrained(name):
        raise ConfigError(f"model.weights = 'pretrained': timm has none for {name}; leave it empty, or name a file")
    return f"{name}.{_timm().get_pretrained_cfg(name).tag}"


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel in [0, 1] that timm's weights were trained with."""
    config = _timm().get_pretrained_cfg(name)
    return tuple(config.mean), tuple(config.std)


def build(name: str, pretrained: bool, num_classes: int, channels: int, dropout: float) -> nn.Module:
    """Builds the network, in training mode, with a head for `num_classes`.

    Raises:
        InputError: the weights could not be downloaded, or the network has no dropout.
    """
    options = {"drop_rate": dropout} if dropout else {}
    try:
        model: nn.Module = _timm().create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **options
        )
    except TypeError as error:
        raise InputError(f"timm:{name} cannot be built with {options}: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise InputError(
            f"timm:{name}: the weights could not be had: {error}; set model.weights to a file, or to '' for random "
            "weights"
        ) from error
    return model


def head_names(model: nn.Module) -> list[str]:
    """The last layers, of which distilled networks have two."""
    classifier = model.pretrained_cfg["classifier"]  # type: ignore[index]
    return [classifier] if isinstance(classifier, str) else list(classifier)


def _example(name: str) -> str:
    tagged = [known for known in pretrained_names() if known.startswith(f"{name.partition('.')[0]}.")]
    return f"timm:{tagged[0]}" if tagged else "timm:resnet18.a1_in1k"


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError("model.name = 'timm:...' needs timm; run: pip install timm") from error
    module: ModuleType = timm
    return module
