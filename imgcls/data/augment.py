"""Augmentation of a whole batch at once, on its device, with each image's own draws.

Crop, flips, turns and rotation are one affine map per image, so a batch is sampled once however many of them are on;
where there are but flips and quarter turns, pixels only change places. An image that shrinks is averaged first, as val
is, so that train does not see the aliasing that val does not have.
All draws come from one CPU generator, in a fixed order, whether or not they are used.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imgcls.config import AugmentConfig


class Normalise:
    """uint8 (B, C, H, W) -> float32, with the mean and standard deviation of train.

    Args:
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].
        device: where batches are.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device).mul_(255).view(1, -1, 1, 1)
        self._scale = torch.tensor(std, device=device).mul_(255).reciprocal_().view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises uint8 or float32 images in [0, 255]."""
        return (images - self._mean) * self._scale


class Augment:
    """Random views of train images.

    Args:
        config: the `[augment]` table.
        image_size: side of the views in pixels.
    """

    def __init__(self, config: AugmentConfig, image_size: int) -> None:
        self.config = config
        self.image_size = image_size

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Draws one view of each image.

        Args:
            images: uint8 (B, C, D, D).
            draws: the generator of this step.

        Returns:
            float32 (B, C, S, S) in [0, 255].
        """
        maps = self.affine_maps(len(images), draws)
        same_size = images.shape[-1] == self.image_size
        if maps is None and same_size:
            views = images.float()
        elif maps is not None and same_size and not self.config.rotation and self.config.random_resized_crop[0] == 1:
            views = _permuted(images, maps).float()
        else:
            views = _sampled(images, _identity(len(images)) if maps is None else maps, self.image_size)
        return self._photometric(views, draws)

    def affine_maps(self, num_images: int, draws: torch.Generator) -> Tensor | None:
        """float32 (B, 2, 3): where in its source, in [-1, 1], each view's pixels lie; None where nothing moves."""
        config = self.config
        width, height = self._crop_sides(num_images, draws)
        u = torch.rand(num_images, 6, generator=draws)
        moves = config.horizontal_flip or config.vertical_flip or config.quarter_turns or config.rotation
        if not moves and config.random_resized_crop == (1.0, 1.0):
            return None
        centre_x, centre_y = (2 * u[:, 0] - 1) * (1 - width), (2 * u[:, 1] - 1) * (1 - height)
        flip_x = torch.where((u[:, 2] < 0.5) & config.horizontal_flip, -1.0, 1.0)
        flip_y = torch.where((u[:, 3] < 0.5) & config.vertical_flip, -1.0, 1.0)
        turns = (u[:, 4] * 4).floor() * (math.pi / 2) if config.quarter_turns else torch.zeros(num_images)
        angle = turns + (2 * u[:, 5] - 1) * math.radians(config.rotation)
        cos, sin = torch.cos(angle), torch.sin(angle)
        row_x = torch.stack((width * flip_x * cos, -width * flip_x * sin, centre_x), dim=1)
        row_y = torch.stack((height * flip_y * sin, height * flip_y * cos, centre_y), dim=1)
        return torch.stack((row_x, row_y), dim=1)

    def _crop_sides(self, num_images: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Width and height of each crop as shares of the image's side, (B,) each.

        torchvision's RandomResizedCrop: area evenly from its range, aspect evenly in log; of ten tries the first
        that fits is taken, else the whole image.
        """
        tries = torch.rand(num_images, 10, 2, generator=draws)
        low, high = self.config.random_resized_crop
        log_low, log_high = (math.log(ratio) for ratio in self.config.aspect_ratio)
        area = low + (high - low) * tries[..., 0]
        aspect = torch.exp(log_low + (log_high - log_low) * tries[..., 1])
        width, height = torch.sqrt(area * aspect), torch.sqrt(area / aspect)
        fits = (width <= 1) & (height <= 1)
        first = fits.int().argmax(dim=1, keepdim=True)
        found = fits.any(dim=1)
        whole = torch.ones(num_images)
        return (
            torch.where(found, width.gather(1, first).squeeze(1), whole),
            torch.where(found, height.gather(1, first).squeeze(1), whole),
        )

    def _photometric(self, views: Tensor, draws: torch.Generator) -> Tensor:
        config = self.config
        if not (config.brightness or config.contrast):
            return views
        u = torch.rand(len(views), 2, generator=draws).to(views.device)
        brightness = 1 + (2 * u[:, 0] - 1) * config.brightness
        contrast = 1 + (2 * u[:, 1] - 1) * config.contrast
        views = (views * brightness.view(-1, 1, 1, 1)).clamp_(0, 255)
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        return ((views - mean) * contrast.view(-1, 1, 1, 1) + mean).clamp_(0, 255)


def mixup(images: Tensor, targets: Tensor, alpha: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixes each image with another of its batch (Zhang et al. 2018, arXiv 1710.09412).

    Args:
        images: float32 (B, C, H, W).
        targets: float32 (B, K), rows that sum to 1.
        alpha: of the Beta(alpha, alpha) that gives the batch's one share.
        draws: the generator of this step.

    Returns:
        Mixed images and targets, of the same shapes.
    """
    # torch's sampler of Beta takes no generator; NumPy's does.
    seed = int(torch.randint(2**62, (1,), generator=draws))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    partner = torch.randperm(len(images), generator=draws).to(images.device)
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)


def _sampled(images: Tensor, maps: Tensor, side: int) -> Tensor:
    """float32 (B, C, side, side): each image where its map points, bilinear."""
    # How far neighbours in the view are apart in the image, in pixels; each level halves the image. Measured on solar
    # cells and photographs, up to 1.65 pixels bilinear sampling of the image itself is nearer to an antialiased resize.
    spacing = torch.linalg.det(maps[:, :, :2]).abs().sqrt() * (images.shape[-1] / side)
    levels = (spacing / 1.65).log2().ceil().clamp(min=0).int()
    views = torch.empty(len(images), images.shape[1], side, side, device=images.device)
    for level in levels.unique().tolist():
        rows = torch.nonzero(levels == level).squeeze(1)
        grid = F.affine_grid(maps[rows].to(images.device), [len(rows), *views.shape[1:]], align_corners=False)
        rows = rows.to(images.device)
        source = images[rows].float()
        if level:
            source = F.interpolate(source, size=max(1, round(source.shape[-1] / 2**level)), mode="area")
        # "border" and not zeros: a rotated corner shows more of the image, never a black wedge.
        views[rows] = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return views


def _permuted(images: Tensor, maps: Tensor) -> Tensor:
    """What `_sampled` gives where the maps are but flips and quarter turns, without rounding."""
    linear = maps[:, :, :2].round().to(images.device)
    flip_x, flip_y = (linear.sum(dim=2) < 0).view(-1, 2, 1, 1, 1).unbind(1)
    swap = (linear[:, 0, 0] == 0).view(-1, 1, 1, 1)
    images = torch.where(flip_x, images.flip(-1), images)
    images = torch.where(flip_y, images.flip(-2), images)
    return torch.where(swap, images.transpose(-1, -2), images)


def _identity(num_images: int) -> Tensor:
    return torch.eye(2, 3).expand(num_images, 2, 3)
