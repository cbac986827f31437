"""What a network declares about itself: its name, the keys of [model] that it takes, how it is resolved and built.

Nothing here imports torch before a network is built, so a wrong experiment file is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imgcls.config.keys import ModelConfig
from imgcls.config.toml import as_options
from imgcls.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import nn

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""(mean, std), each a tuple of one value per channel in [0, 1]."""

RGB, AS_RGB = {"data.channels": 3}, "set data.channels = 3, which repeats grey three times"
RANDOM_WEIGHTS = {"model.weights": ""}
"""Remedies of networks that take RGB images alone, or that have no such weights."""


@dataclass(frozen=True)
class Listed:
    """A network's declaration of what it is, for lists of networks.

    Attributes:
        name: `model.name`.
        about: what it is, or which weights are published for it.
        weights_here: values of `model.weights` that need no download on this machine.
        packages: values of `model.weights` whose package is not installed.
        install: the command that installs those packages; empty where there are none.
    """

    name: str
    about: str
    weights_here: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    install: str = ""

    def flat(self) -> dict[str, object]:
        """A listed network as a flat JSON object."""
        return {key: value if isinstance(value, str) else ", ".join(value) for key, value in vars(self).items()}


class Network:
    """A network of this package. Each is a subclass in a file of its own, and `registry.NETWORKS` has an instance.

    What is common to its methods: `config` is `[model]`, the images are (B, channels, image_size, image_size), and
    logits are (B, num_classes).

    Attributes:
        name: `model.name`; for the networks of a library, what that begins with, such as `timm:`.
        about: one line for `imgcls models`.
        keys: keys of [model] that it takes, besides `name`; it is an error to set another one.
        added_keys: those of them that earlier versions did not take; a run shows them only where they are set.
    """

    name: str
    about: str = ""
    keys: tuple[str, ...] = ()
    added_keys: tuple[str, ...] = ()

    def resolve(self, config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
        """Fills in what the user left to the network, and refuses what it cannot do.

        Raises:
            ConfigError: naming the key, its value and the remedy.
        """
        del channels, image_size  # any will do, unless a subclass knows better
        if config.weights and not config.weights_are_a_file:
            raise ConfigError(
                f"model.weights = {config.weights!r}: nobody publishes weights for {config.name}; name a .pt, .pth or "
                ".safetensors file, or choose model.name = 'torchvision:resnet18' or 'torchvision:resnet34' with "
                "model.weights = 'pretrained'",
                RANDOM_WEIGHTS,
            )
        return config

    def build(self, config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
        """Builds the network of a resolved config with random weights: float32 images -> logits."""
        raise NotImplementedError

    def cut(self, config: ModelConfig, model: nn.Module, num_classes: int) -> nn.Module:
        """Cuts a network that was built whole, once it has its weights; by default it stays whole."""
        del config, num_classes
        return model

    def num_stages(self, config: ModelConfig) -> int:
        """Stages of the network, where `model.depth` is a number of them; 0 where it is something else."""
        del config
        return 0

    def heads(self, model: nn.Module) -> list[str]:
        """Names of the last layers, which may differ from those of a file of weights: by default the last linear one.

        In a network without a linear layer, such as squeezenet, it is the last convolution.
        """
        from torch import nn

        modules: list[tuple[str, nn.Module]] = list(model.named_modules())
        linear = [name for name, module in modules if isinstance(module, nn.Linear)]
        return linear[-1:] or [name for name, module in modules if isinstance(module, nn.Conv2d)][-1:]

    def blocks(self, model: nn.Module) -> list[list[str]]:
        """Names of its parameters in blocks, from the stem to the head; the last block is that of the head."""
        from imgcls.models.parts import blocks_in_order

        return blocks_in_order(model, self.heads(model))

    def normalisation(self, config: ModelConfig) -> Normalisation | None:
        """Mean and std that the network's published weights were trained with; None where none are published."""
        del config
        return None

    def names(self) -> list[str]:
        """Every value of `model.name` that means this network, or a network of this library."""
        return [self.name]

    def listed(self) -> list[Listed]:
        """This network, or every network of the library, as `imgcls models` lists it."""
        return [Listed(self.name, self.about)]

    def listed_as(self, name: str) -> Listed | None:
        """The network of this `model.name` alone, which is faster than `listed`; None where there is none."""
        return next((model for model in self.listed() if model.name == name), None)


class Library(Network):
    """The networks of another library: `model.name` is its name with a colon, and the network's name there."""

    def bare(self, config: ModelConfig) -> str:
        """What the library calls the network."""
        return config.name.removeprefix(self.name)

    def construct(
        self, config: ModelConfig, num_classes: int, channels: int, image_size: int, download: bool
    ) -> nn.Module:
        """Builds a network of the library; `download`: from the published weights that `config.weights` names.

        Raises:
            InputError: the weights could not be downloaded.
        """
        raise NotImplementedError

    def usual_side(self, config: ModelConfig) -> int:
        """Side in pixels of the images that the network was published for."""
        raise NotImplementedError

    def build_or_refuse(
        self, config: ModelConfig, num_classes: int, channels: int, image_size: int, download: bool
    ) -> nn.Module:
        """Constructs the network and tries it on one image, because many take images of some sizes alone.

        Raises:
            InputError: the network refuses such images, or gives no logits.
        """
        import torch

        try:
            model = self.construct(config, num_classes, channels, image_size, download).eval()
            with torch.no_grad():
                output_shape = tuple(model(torch.zeros(1, channels, image_size, image_size)).shape)
        except InputError:
            raise
        except Exception as error:  # a size is refused by an assert, by a kernel or by arithmetic
            own = as_options({"data.image_size": self.usual_side(config)})
            raise InputError(
                f"{config.name} cannot take images of {image_size} x {image_size} pixels: {error}; choose another "
                f"data.image_size, such as the usual one of this network: {own}"
            ) from error
        if output_shape != (1, num_classes):
            raise InputError(
                f"{config.name} gives {output_shape}, not logits (1, {num_classes}); choose another model.name"
            )
        return model.train()


def refuse_other(config: ModelConfig, **always: Any) -> None:
    """A network refuses other values of [model] than those that it declares to have always.

    Raises:
        ConfigError: naming every such key, its value and the remedy.
    """
    default = {key: ModelConfig.model_fields[key].default for key in always}
    wrong = [key for key, value in always.items() if getattr(config, key) not in (default[key], value)]
    if wrong:
        it = "it" if len(wrong) == 1 else "them"
        each = (f"model.{key} = {getattr(config, key)!r}: {config.name} always has {always[key]!r}" for key in wrong)
        raise ConfigError(
            f"{'; '.join(each)}; leave {it} out, or choose {it} freely with model.name = 'resnet'",
            {f"model.{key}": default[key] for key in wrong},
        )
