"""Checks that the networks and the registry share. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable

from imgcls.errors import ConfigError
from imgcls.text import did_you_mean

CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56)
"""Depths 6n+2 of He et al. 2016, section 4.2 (arXiv 1512.03385): three stages, small stem."""

RESNET_DEPTHS = (10, 18, 34, 50, 101)
"""Depths with four stages; from 50 on with bottleneck blocks."""

STEMS = ("standard", "small")


def check_depth(depth: int, stem: str) -> None:
    """Checks that a residual network of this depth exists with this stem.

    Raises:
        ConfigError: listing the depths that work.
    """
    if stem not in STEMS:
        raise ConfigError(f"model.stem = {stem!r}: must be 'standard' or 'small'{did_you_mean(stem, STEMS)}")
    known = RESNET_DEPTHS if stem == "standard" else (*RESNET_DEPTHS, *CIFAR_DEPTHS)
    if depth in known:
        return
    if depth in CIFAR_DEPTHS:
        raise ConfigError(
            f"model.depth = {depth} has three stages, too few for model.stem = 'standard'; "
            f"choose model.stem = 'small', or one of the depths {_list(RESNET_DEPTHS)}"
        )
    closest = min(known, key=lambda candidate: abs(candidate - depth))
    raise ConfigError(
        f"model.depth = {depth}: there is no such network; did you mean {closest}? Depths: {_list(RESNET_DEPTHS)}; "
        f"with model.stem = 'small' also {_list(CIFAR_DEPTHS)}"
    )


def check_patch(patch: int, image_size: int) -> None:
    """Checks that square patches of side `patch` tile the image.

    Raises:
        ConfigError: listing the sides that do.
    """
    if patch >= 1 and image_size % patch == 0:
        return
    sides = [side for side in range(1, image_size + 1) if image_size % side == 0]
    raise ConfigError(
        f"model.patch = {patch} does not divide data.image_size = {image_size}; "
        f"patches that do: {_list(sides)}; or choose a multiple of {patch} for data.image_size"
    )


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
