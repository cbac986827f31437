"""The parts of a network: the head, and the backbone in blocks from the stem to the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from imgcls.errors import InputError

LISTS: tuple[type[nn.Module], ...] = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules that only hold others, so each of their children can be a block."""


@dataclass(frozen=True)
class NetworkParts:
    """The parts of a network, as names in it; parameters that are never trained belong to none.

    Attributes:
        heads: names of the last layers. Most networks have one; some of timm have several, such as distilled ones.
        distances: for each parameter of the backbone, how many blocks it is away from the head. It is 0 for what lies
            between the last block and the head, such as a last norm, and largest for the stem.
    """

    heads: tuple[str, ...]
    distances: dict[str, int]

    @classmethod
    def of_blocks(cls, model: nn.Module, heads: Sequence[str], blocks: Sequence[Sequence[str]]) -> NetworkParts:
        """Parts of a network from the names of its parameters in blocks, from the stem to the head.

        The last block is that of the head itself; the head's own parameters may be in it or not.
        """
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        of_backbone = {name for name in trained if name.rpartition(".")[0] not in heads}
        last = len(blocks) - 1
        distances = {name: last - place for place, names in enumerate(blocks) for name in names if name in of_backbone}
        assert distances.keys() == of_backbone, sorted(of_backbone - distances.keys())
        return cls(tuple(heads), distances)


class NoFeaturesError(InputError):
    """A network has no features from which its head alone gives the logits."""


def head_features(model: nn.Module, heads: Sequence[str], images: Tensor) -> Tensor:
    """The features that enter the head of a network, taken with gradients only where the caller records them.

    Args:
        model: whose head is a linear layer; in evaluation mode, if the features are to be those of a frozen network.
        heads: names of its last layers.
        images: float (B, C, S, S), normalised.

    Returns:
        float (B, F); the head makes the network's logits of them.

    Raises:
        NoFeaturesError: it has several heads, the head is a convolution (squeezenet), or more follows the head.
    """
    if len(heads) != 1 or not isinstance(head := model.get_submodule(heads[0]), nn.Linear):
        what = f"it has {len(heads)} last layers" if len(heads) != 1 else "its last layer is not a linear one"
        raise NoFeaturesError(f"the network has no features from which one linear layer gives the logits: {what}")
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = model(images)
    finally:
        hook.remove()
    (features,) = seen
    with torch.no_grad():
        again = head(features)
    if features.ndim != 2 or not torch.allclose(again.float(), logits.float(), rtol=1e-3, atol=1e-5):
        raise NoFeaturesError("the network has no features from which one linear layer gives the logits: more follows")
    return features


class _Kind(Enum):
    BLOCK = "several layers"
    LAYER = "one layer with a matrix or a kernel"
    SMALL = "a norm, or parameters of their own"


def blocks_in_order(model: nn.Module, heads: Sequence[str], lists: tuple[type[nn.Module], ...] = ()) -> list[list[str]]:
    """The parts of a network by its modules: names of parameters in blocks, from the stem to the head.

    A block is a module of several layers that stands in a list of modules, or directly in the network; also a single
    convolution or linear layer there. A norm goes with the single layer right before it, and otherwise with what
    follows; the last norm so goes with the head.

    Args:
        model: whose modules stand in the order in which they compute.
        heads: names of its last layers, which are left out.
        lists: further types of modules whose children are blocks.

    Returns:
        The last one goes with the head, and may be empty.
    """
    blocks: list[list[str]] = []
    small: list[str] = []
    kind = _Kind.BLOCK
    for kind_of_next, names in _units(model, "", heads, (*LISTS, *lists)):
        if kind_of_next is not _Kind.SMALL:
            blocks.append([*small, *names])
            small, kind = [], kind_of_next
        elif kind is _Kind.LAYER:
            blocks[-1].extend(names)
        else:
            small.extend(names)
    return [*blocks, small]


def _units(
    parent: nn.Module, prefix: str, heads: Sequence[str], lists: tuple[type[nn.Module], ...]
) -> Iterator[tuple[_Kind, list[str]]]:
    """The modules below one, in order: the kind of each and the names of its parameters; heads are left out."""
    if own := [f"{prefix}{name}" for name, _ in parent.named_parameters(recurse=False)]:
        yield _Kind.SMALL, own
    for child_name, child in parent.named_children():
        name = f"{prefix}{child_name}"
        parameters = dict(child.named_parameters(prefix=name))
        if name in heads or not parameters:
            continue
        if isinstance(child, lists):
            yield from _units(child, f"{name}.", heads, lists)
            continue
        is_small = all(parameter.ndim < 2 for parameter in parameters.values())
        is_layer = not any(True for _ in child.children())
        yield _Kind.SMALL if is_small else _Kind.LAYER if is_layer else _Kind.BLOCK, list(parameters)
