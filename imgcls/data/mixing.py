"""Mixing the images of a batch: mixup and cutmix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from imgcls.data.loader import send
from imgcls.data.part import Part

Mixer = Callable[[Tensor, Tensor, float, torch.Generator, Part | None], tuple[Tensor, Tensor]]
"""`mixup` or `cutmix`."""


def mixup(
    images: Tensor, targets: Tensor, alpha: float, draws: torch.Generator, part: Part | None = None
) -> tuple[Tensor, Tensor]:
    """Augments by mixup: mixes each image with another of its batch (Zhang et al. 2018, arXiv 1710.09412).

    Args:
        images: float32 (B, C, H, W).
        targets: float32 (B, K), rows that sum to 1.
        alpha: of the Beta(alpha, alpha) that gives the batch's one share.
        draws: the generator of this step.
        part: of the batch; images and targets are those at hand then, and only the part's own are given back.

    Returns:
        Mixed images and targets, of the same shapes.
    """
    share, partner = pairs(alpha, 1, _num_images(images, part), draws)
    (images, targets), (others, of_others) = _paired(images, targets, partner, part)
    return torch.lerp(others, images, float(share)), torch.lerp(of_others, targets, float(share))


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, draws: torch.Generator, part: Part | None = None
) -> tuple[Tensor, Tensor]:
    """Augments by cutmix: pastes a box of another image of its batch into each (Yun et al. 2019, arXiv 1905.04899).

    Each image has a box of its own, where the paper has one a batch. Its area is a share of Beta(alpha, alpha) and its
    centre is drawn evenly from the image's pixels; labels are mixed by what is left of it within the image.

    Arguments and results have the shapes of those of `mixup`; images are square.
    """
    num_images, side = _num_images(images, part), images.shape[-1]
    area, partner = pairs(alpha, num_images, num_images, draws)
    centre = drawn_pixels(side, draws, num_images)
    if part is not None:
        area, centre = area[part.own_places], centre[part.own_places]
    (images, targets), (others, of_others) = _paired(images, targets, partner, part)
    half = (area.sqrt() * side / 2).long()[:, None]
    low, high = (centre - half).clamp(min=0), (centre + half).clamp(max=side)
    pasted = send((high - low).prod(dim=1) / side**2, targets.device)
    return (
        torch.where(send(boxes(low, high, side), images.device), others, images),
        torch.lerp(targets, of_others, pasted[:, None]),
    )


def pairs(alpha: float, num_shares: int, num_images: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """What is drawn first for a batch that is mixed: shares, and the image that is mixed into each, int64 (B,)."""
    return _beta(alpha, num_shares, draws), torch.randperm(num_images, generator=draws)


def _num_images(images: Tensor, part: Part | None) -> int:
    return len(images) if part is None else part.num_images


def _paired(
    images: Tensor, targets: Tensor, partner: Tensor, part: Part | None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and targets that are mixed, and those that are mixed into them."""
    if part is None:
        others = send(partner, images.device)
        return (images, targets), (images[others], targets[others])
    own, others = send(part.own, images.device), send(part.others(partner), images.device)
    return (images[own], targets[own]), (images[others], targets[others])


def drawn_pixels(side: int, draws: torch.Generator, num: int) -> Tensor:
    """Pixels of an image, int64 (num, 2), across and down."""
    return torch.randint(side, (num, 2), generator=draws)


def _beta(alpha: float, num: int, draws: torch.Generator) -> Tensor:
    """float64 (num,): torch's sampler of Beta takes no generator; NumPy's does."""
    seed = int(torch.randint(2**62, (1,), generator=draws))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size=num))


def boxes(low: Tensor, high: Tensor, side: int) -> Tensor:
    """Masks, bool (B, 1, side, side): the pixels from `low` up to `high`, int64 (B, 2), across and down."""
    pixels = torch.arange(side)
    inside = (pixels >= low[..., None]) & (pixels < high[..., None])
    return inside[:, None, None, 0] & inside[:, None, 1, :, None]
