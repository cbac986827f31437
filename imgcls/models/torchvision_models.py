"""`torchvision:NAME`: torchvision's classification networks, with its weights or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgcls.config.keys import ModelConfig
from imgcls.config.toml import as_options
from imgcls.errors import ConfigError, InputError
from imgcls.models.downloads import downloaded_from
from imgcls.models.network import AS_RGB, RANDOM_WEIGHTS, RGB, Library, Listed, Normalisation
from imgcls.models.pretrained_weights import find_package, packages_as_a_way_out
from imgcls.text import did_you_mean

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


class Torchvision(Library):
    """The networks of torchvision, as `torchvision:NAME`."""

    name = "torchvision:"
    keys = ("weights",)

    def resolve(self, config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
        """Fills in the name of the weights of torchvision that `pretrained` stands for today."""
        name = self.bare(config)
        if name not in (known := _network_names()):
            raise ConfigError(
                f"model.name = '{config.name}': torchvision has no such classification network, see `imgcls models`"
                f"{did_you_mean(name, known)}"
            )
        if channels != 3:
            raise ConfigError(f"model.name = '{config.name}' takes RGB images, not {channels} channel; {AS_RGB}", RGB)
        if config.weights_are_a_package:
            package = find_package(config.weights)
            raise ConfigError(
                f"model.weights = {config.weights!r} are for model.name = 'timm:{package.timm_name}' alone",
                RANDOM_WEIGHTS,
            )
        if not config.weights or config.weights_are_a_file:
            return config
        config = config.model_copy(update={"weights": _weights_name(name, config.weights)})
        if name.startswith("maxvit_") and image_size != (side := self.usual_side(config)):
            raise ConfigError(
                f"data.image_size = {image_size}: the weights of {config.name} take images of {side} x {side} pixels "
                f"alone; add {as_options({'data.image_size': side})}",
                RANDOM_WEIGHTS,
            )
        return config

    def construct(
        self, config: ModelConfig, num_classes: int, channels: int, image_size: int, download: bool
    ) -> nn.Module:
        """Constructs a network of torchvision that gives logits alone."""
        del channels  # always 3
        name = self.bare(config)
        if download:
            model = _download(name, config.weights, image_size)
        else:
            model = _from_scratch(name, num_classes, image_size)
        if name in _WITH_AUXILIARY_HEADS:
            _simplify(model)
        _fit_head(model, self.heads(model), num_classes)
        return model

    def blocks(self, model: nn.Module) -> list[list[str]]:
        """Names of its parameters in blocks, from the stem to the head, by the order of its modules."""
        from torchvision.models.maxvit import MaxVitBlock
        from torchvision.models.vision_transformer import Encoder

        from imgcls.models.parts import blocks_in_order

        return blocks_in_order(model, self.heads(model), (Encoder, MaxVitBlock))

    def usual_side(self, config: ModelConfig) -> int:
        """Side in pixels of the images that torchvision's weights of the network take."""
        return int(_weights(self.bare(config)).DEFAULT.transforms().crop_size[0])

    def normalisation(self, config: ModelConfig) -> Normalisation:
        """Mean and std as torchvision publishes them."""
        name = self.bare(config)
        if name in _WITH_AUXILIARY_HEADS:
            return (0.5,) * 3, (0.5,) * 3
        transform = _weights(name)[_weights_name(name, config.weights)].transforms()
        return tuple(transform.mean), tuple(transform.std)

    def names(self) -> list[str]:
        """Every classification network of torchvision."""
        return [f"{self.name}{name}" for name in _network_names()]

    def listed(self) -> list[Listed]:
        """Networks of torchvision, each with its weights, and with those that a download left on this machine."""
        return [self._listed(name) for name in _network_names()]

    def listed_as(self, name: str) -> Listed | None:
        """One network of torchvision, looked for by its name."""
        bare = name.removeprefix(self.name)
        return self._listed(bare) if bare in _network_names() else None

    def _listed(self, name: str) -> Listed:
        return Listed(
            f"{self.name}{name}",
            f"weights: {', '.join(weights.name for weights in _weights(name))}",
            weights_here=tuple(weights.name for weights in _weights(name) if downloaded_from(weights.url)),
        )


def _network_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _weights_name(name: str, wanted: str) -> str:
    """The name of the weights that `pretrained`, or a name itself, stands for today.

    Raises:
        ConfigError: listing the names there are.
    """
    known = [weights.name for weights in _weights(name)]
    if wanted in known:
        return wanted
    if wanted == "pretrained":
        return str(_weights(name).DEFAULT.name)
    raise ConfigError(
        f"model.weights = {wanted!r}: torchvision:{name} has {', '.join(known)}; choose one, or a .pt, .pth or "
        f".safetensors file{did_you_mean(wanted, known)}",
        RANDOM_WEIGHTS,
    )


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


def _download(name: str, weights: str, image_size: int) -> nn.Module:
    """A network with its published weights; the positions of a ViT are resized to those of our images."""
    import torch
    from torchvision import models

    try:
        if name.startswith("vit_"):
            return _resized_vit(name, weights, image_size)
        model: nn.Module = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        url = _weights(name)[weights].url
        raise InputError(
            f"torchvision:{name}: the weights {weights} could not be had: {error}; fetch {url} by other means into "
            f"{torch.hub.get_dir()}/checkpoints, or set model.weights to a file or to '' for random weights"
            f"{packages_as_a_way_out()}"
        ) from error
    return model


def _resized_vit(name: str, weights: str, image_size: int) -> nn.Module:
    from torchvision import models
    from torchvision.models.vision_transformer import interpolate_embeddings

    published = _weights(name)[weights]
    state = published.get_state_dict(check_hash=True)
    num_classes = len(published.meta["categories"])
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, image_size=image_size)
    (patch_size, _) = model.get_submodule("conv_proj").kernel_size  # type: ignore[misc]
    model.load_state_dict(interpolate_embeddings(image_size, patch_size, state))
    return model


def _simplify(model: nn.Module) -> None:
    """Makes a network of torchvision return logits only, whatever its weights.

    Auxiliary heads would make it return more while it trains. With downloaded weights it would also turn ImageNet's
    normalisation into that by 0.5 and 0.5, and not do so when the same network is read from a checkpoint;
    `normalisation` asks for 0.5 and 0.5 instead.
    """
    plain = {"aux1": None, "aux2": None, "AuxLogits": None, "aux_logits": False, "transform_input": False}
    for name, value in plain.items():
        if hasattr(model, name):
            setattr(model, name, value)


def _fit_head(model: nn.Module, heads: list[str], num_classes: int) -> None:
    from torch import nn

    (name,) = heads
    head = model.get_submodule(name)
    if isinstance(head, nn.Linear) and head.out_features != num_classes:
        model.set_submodule(name, nn.Linear(head.in_features, num_classes))
    elif isinstance(head, nn.Conv2d) and head.out_channels != num_classes:
        model.set_submodule(name, nn.Conv2d(head.in_channels, num_classes, 1))
