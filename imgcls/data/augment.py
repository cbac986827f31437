"""Augmentation of a whole batch of train images at once, on its device: random views, then mixing.

Crop, flips, turns, rotation and shift are one affine map per image, so a batch is sampled once however many of them are
on. Where there are only flips and quarter turns, pixels only change places. An image that shrinks is averaged first, as
val is, so that train has no aliasing that val does not have. Every image has draws of its own.

To add an augmentation, give it a key in `AugmentConfig`, and apply it in `Augment.views` or `Augment.mixed`.
`python -m benchmarks.augmentations` compares the speed with kornia's and torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from imgcls.config.keys import AugmentConfig
from imgcls.data.loader import send
from imgcls.data.mixing import Mixer, boxes, cutmix, drawn_pixels, mixup, pairs
from imgcls.data.part import Part, drawn
from imgcls.errors import ConfigError

Draw = Callable[[str], torch.Generator]
"""The CPU generator for one purpose at this epoch and step; each purpose has draws of its own."""


class Normalise:
    """Augmentation's last step, for val and test the only one: uint8 -> float32, by train's mean and deviation."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device).mul_(255).view(1, -1, 1, 1)
        self._scale = torch.tensor(std, device=device).mul_(255).reciprocal_().view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises uint8 or float32 images in [0, 255]."""
        return (images - self._mean).mul_(self._scale)


@dataclass(frozen=True)
class Draws:
    """The augmentation's random numbers: all that a step draws for the views of its N images.

    They are drawn evenly from [0, 1), float32 on the CPU. What came later stands after what was there, so that adding
    to it moves no earlier draw.

    Attributes:
        tries: (N, 10, 2): area and aspect of ten tries of a crop.
        pose: (N, 6): the crop's place across and down, left-right flip, top-bottom flip, quarter turns, angle.
        light: (N, 2): brightness, contrast.
        more: (N, 4): shift across and down, saturation, hue.
    """

    tries: Tensor
    pose: Tensor
    light: Tensor
    more: Tensor

    @classmethod
    def of(cls, num_images: int, draws: torch.Generator, part: Part | None = None) -> Draws:
        """Draws everything, used or not, for the whole batch, of which so many images are at hand."""
        shapes = (10, 2), (6,), (2,), (4,)
        return cls(*(drawn(num_images, part, partial(_even, shape, draws)) for shape in shapes))


class Augment:
    """Augments a batch of train images: makes of it what the model is trained on.

    Args:
        config: the `[augment]` table.
        image_size: side of the views in pixels.
    """

    def __init__(self, config: AugmentConfig, image_size: int) -> None:
        self.config = config
        self.image_size = image_size

    def views(self, images: Tensor, normalise: Normalise, draw: Draw, part: Part | None = None) -> Tensor:
        """A random view of each image, normalised: uint8 (B, C, D, D) -> float32 (B, C, S, S).

        With a part, the images are those at hand.
        """
        views = normalise(self(images, draw("augment"), part))
        return cutout(views, self.config.cutout, draw("cutout"), part) if self.config.cutout else views

    def partner(self, num_images: int, draw: Draw) -> Tensor | None:
        """Which image of a batch of B is mixed into each of them, int64 (B,); None where nothing is mixed."""
        if not (self.config.mixup or self.config.cutmix):
            return None
        mixer, alpha, draws = self._mixer(draw)
        return pairs(alpha, num_images if mixer is cutmix else 1, num_images, draws)[1]

    def mixed(
        self, views: Tensor, labels: Tensor, num_classes: int, draw: Draw, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        """Views and their targets after mixup or cutmix; with both, a coin decides for the batch, as in timm's Mixup.

        Args:
            views: float32 (B, C, S, S), normalised.
            labels: int64 (B,).
            num_classes: K.
            draw: the generators of this step.
            part: of the batch; views and labels are those at hand then, and only the part's own are given back.

        Returns:
            Views of the same shape; targets float32 (B, K), or the labels where nothing is mixed.
        """
        if not (self.config.mixup or self.config.cutmix):
            return views, labels
        mixer, alpha, draws = self._mixer(draw)
        return mixer(views, F.one_hot(labels, num_classes).float(), alpha, draws, part)

    def _mixer(self, draw: Draw) -> tuple[Mixer, float, torch.Generator]:
        """What mixes the batch of this step, with its alpha and the generator from which it draws."""
        config, draws = self.config, draw("cutmix")
        heads = bool(torch.rand((), generator=draws) < 0.5)
        if config.cutmix and (heads or not config.mixup):
            return cutmix, config.cutmix, draws
        return mixup, config.mixup, draw("mixup")

    def __call__(self, images: Tensor, draws: torch.Generator, part: Part | None = None) -> Tensor:
        """One view of each image, not normalised, without cutout.

        Args:
            images: uint8 (B, C, D, D).
            draws: the generator of this step.
            part: of the batch; the images are those at hand then.

        Returns:
            float32 (B, C, S, S) in [0, 255].

        Raises:
            ConfigError: saturation or hue of grey images.
        """
        config = self.config
        refuse_colours_of_grey(config, images.shape[1])
        numbers = Draws.of(len(images), draws, part)
        maps = self.affine_maps(numbers)
        same_size = images.shape[-1] == self.image_size
        moves_whole_pixels = not config.rotation and not config.shift and config.random_resized_crop[0] == 1
        if maps is None and same_size:
            views = images.float()
        elif maps is not None and same_size and moves_whole_pixels:
            views = self._permuted(images, maps).float()
        else:
            still = torch.eye(2, 3).expand(len(images), 2, 3)
            views = _sampled(images, still if maps is None else maps, self.image_size)
        return self._photometric(views, numbers)

    def affine_maps(self, drawn: Draws) -> Tensor | None:
        """float32 (B, 2, 3): where in its source, in [-1, 1], each view's pixels lie; None where nothing moves."""
        config, pose = self.config, drawn.pose
        moves = config.horizontal_flip or config.vertical_flip or config.quarter_turns or config.rotation
        if not moves and not config.shift and config.random_resized_crop == (1.0, 1.0):
            return None
        # In NumPy, whose calls on a few hundred numbers cost a fifth of torch's; roots, exp, cos and sin stay torch's,
        # which rounds them otherwise.
        u = pose.numpy()
        one = np.float32(1)
        width, height = self._crop_sides(drawn.tries)
        centre_x, centre_y = (2 * u[:, 0] - 1) * (1 - width), (2 * u[:, 1] - 1) * (1 - height)
        flip_x = np.where((u[:, 2] < 0.5) & config.horizontal_flip, -one, one)
        flip_y = np.where((u[:, 3] < 0.5) & config.vertical_flip, -one, one)
        cos, sin = self._turns(u)
        maps = np.empty((len(u), 2, 3), np.float32)
        maps[:, 0, 0], maps[:, 0, 1], maps[:, 0, 2] = width * flip_x * cos, -width * flip_x * sin, centre_x
        maps[:, 1, 0], maps[:, 1, 1], maps[:, 1, 2] = height * flip_y * sin, height * flip_y * cos, centre_y
        if config.shift:
            # What stands at p - t comes to p; a share of the side is twice that in [-1, 1].
            offset = 2 * config.shift * (2 * drawn.more[:, :2].numpy() - 1)
            maps[:, :, 2] -= (maps[:, :, :2] * offset[:, None, :]).sum(axis=2)
        return torch.from_numpy(maps)

    def _turns(self, u: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosine and sine of each image's angle, (B,) each; `u` as `Draws.pose`."""
        config, angle = self.config, np.zeros(len(u), np.float32)
        if config.quarter_turns:
            angle += np.floor(u[:, 4] * 4) * np.float32(math.pi / 2)
        if config.rotation:
            angle += (2 * u[:, 5] - 1) * np.float32(math.radians(config.rotation))
        turned = torch.from_numpy(angle)
        return torch.cos(turned).numpy(), torch.sin(turned).numpy()

    def _crop_sides(self, tries: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Width and height of each crop as shares of the image's side, (B,) each.

        torchvision's RandomResizedCrop: area evenly from its range, aspect evenly in log; of ten tries the first
        that fits is taken, else the whole image.
        """
        low, high = self.config.random_resized_crop
        log_low, log_high = (math.log(ratio) for ratio in self.config.aspect_ratio)
        u = tries.numpy()
        area = low + (high - low) * u[..., 0]
        aspect = torch.exp(torch.from_numpy(log_low + (log_high - log_low) * u[..., 1])).numpy()
        width, height = torch.from_numpy(np.stack((area * aspect, area / aspect))).sqrt_().numpy()
        fits = (width <= 1) & (height <= 1)
        rows, first = np.arange(len(u)), fits.argmax(axis=1)
        found, whole = fits[rows, first], np.float32(1)
        return np.where(found, width[rows, first], whole), np.where(found, height[rows, first], whole)

    def _permuted(self, images: Tensor, maps: Tensor) -> Tensor:
        """What `_sampled` gives where the maps are only flips and quarter turns, without rounding."""
        config = self.config
        linear = send(maps[:, :, :2].round(), images.device)
        flip_x, flip_y = (linear.sum(dim=2) < 0).view(-1, 2, 1, 1, 1).unbind(1)
        if config.horizontal_flip or config.quarter_turns:
            images = torch.where(flip_x, images.flip(-1), images)
        if config.vertical_flip or config.quarter_turns:
            images = torch.where(flip_y, images.flip(-2), images)
        if config.quarter_turns or config.brightness or config.contrast:
            # Where nothing is turned, only the order in memory changes; contrast's mean is summed in that order, and
            # runs recorded with it keep their bits.
            swap = (linear[:, 0, 0] == 0).view(-1, 1, 1, 1)
            images = torch.where(swap, images.transpose(-1, -2), images)
        return images

    def _photometric(self, views: Tensor, drawn: Draws) -> Tensor:
        """What torchvision's ColorJitter does, but always in this order; changes `views`."""
        config = self.config
        if not (config.brightness or config.contrast or config.saturation or config.hue):
            return views
        light = send(2 * drawn.light - 1, views.device)
        colour = send(2 * drawn.more[:, 2:] - 1, views.device)
        if config.brightness or config.contrast:
            views = views.mul_((1 + light[:, 0] * config.brightness).view(-1, 1, 1, 1)).clamp_(0, 255)
            mean = _grey(views).mean(dim=(1, 2, 3), keepdim=True)
            views = _scaled_about(mean, views, 1 + light[:, 1] * config.contrast)
        if config.saturation:
            views = _scaled_about(_grey(views), views, 1 + colour[:, 0] * config.saturation)
        if config.hue:
            views = _with_hue_shifted(views, colour[:, 1] * config.hue)
        return views


def unused_augment_keys(*, has_crop: bool, is_grey: bool) -> list[str]:
    """Keys of `[augment]` that change nothing whatever they say: ratios without a crop, colours of grey images."""
    return ([] if has_crop else ["aspect_ratio"]) + (["saturation", "hue"] if is_grey else [])


def refuse_colours_of_grey(config: AugmentConfig, channels: int) -> None:
    """Refuses an augmentation of saturation or hue where images are grey, which have neither."""
    for key, value in (("saturation", config.saturation), ("hue", config.hue)):
        if value and channels != 3:
            raise ConfigError(
                f"augment.{key} = {value}: needs 3 channels, and these images have {channels}; set it to 0, or "
                "data.channels = 3"
            )


def cutout(images: Tensor, share: float, draws: torch.Generator, part: Part | None = None) -> Tensor:
    """Augments by cutout: blanks one square of each image (DeVries & Taylor 2017, arXiv 1708.04552).

    Its centre is drawn evenly from the image's pixels, so up to three quarters of it lie beyond the border.

    Args:
        images: float32 (B, C, S, S), normalised, so that 0 is the mean.
        share: side of the square as a share of S, in (0, 1]; rounded to whole pixels, but at least one.
        draws: the generator of this step.
        part: of the batch; the images are those at hand then.

    Returns:
        Images of the same shape, 0 in their squares.
    """
    side = images.shape[-1]
    length = max(1, round(share * side))
    low = drawn(len(images), part, partial(drawn_pixels, side, draws)) - length // 2
    # A product takes half the time of masked_fill.
    return images * ~send(boxes(low, low + length, side), images.device)


def _even(shape: tuple[int, ...], draws: torch.Generator, num: int) -> Tensor:
    return torch.rand(num, *shape, generator=draws)


def _scaled_about(centre: Tensor, views: Tensor, factors: Tensor) -> Tensor:
    """Scales distances to `centre` by (B,) factors, within [0, 255]; changes `views`."""
    return views.sub_(centre).mul_(factors.view(-1, 1, 1, 1)).add_(centre).clamp_(0, 255)


def _grey(views: Tensor) -> Tensor:
    """(B, 1, H, W): ITU-R BT.601's luma, with torchvision's digits; grey images as they are."""
    if views.shape[1] == 1:
        return views
    red, green, blue = views.unbind(1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def _with_hue_shifted(views: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue of HSV by (B,) shares of the circle; value and chroma stay.

    Nothing is converted to HSV and back: with the hue h in sixths of the circle, each channel is
    value - chroma * (1 - its share), a trapezium over h (Smith 1978, "Color gamut transform pairs").
    """
    red, green, blue = views.unbind(1)
    value = views.amax(dim=1)
    chroma = value - views.amin(dim=1)
    slope = chroma.clamp(min=1e-12).reciprocal_()  # of a grey pixel any hue will do
    hue = torch.where(value == green, (blue - red).mul_(slope).add_(2), (red - green).mul_(slope).add_(4))
    hue = torch.where(value == red, (green - blue).mul_(slope), hue)
    hue = hue.add_((6 * turns).view(-1, 1, 1)).remainder_(6)
    shares = (hue - 3).abs_().sub_(1), (hue - 2).abs_().neg_().add_(2), (hue - 4).abs_().neg_().add_(2)
    low = value - chroma
    return torch.stack([share.clamp_(0, 1).mul_(chroma).add_(low) for share in shares], dim=1)


def _sampled(images: Tensor, maps: Tensor, side: int) -> Tensor:
    """float32 (B, C, side, side): each image where its map points, bilinear."""
    grid = _grid(send(maps, images.device), side)
    if images.shape[-1] <= 1.64 * side:  # no crop is larger than its image, so none shrinks enough to be averaged
        return _bilinear(images.float(), grid)
    # How far neighbours in the view are apart in the image, in pixels; each level halves the image. Measured on solar
    # cells and photographs, up to 1.65 pixels bilinear sampling of the image itself is nearer to an antialiased resize.
    spacing = torch.linalg.det(maps[:, :, :2]).abs().sqrt() * (images.shape[-1] / side)
    levels = (spacing / 1.65).log2().ceil().clamp(min=0).int()
    views = torch.empty(len(images), images.shape[1], side, side, device=images.device)
    for level in levels.unique().tolist():
        rows = send(torch.nonzero(levels == level).squeeze(1), images.device)
        source = images[rows].float()
        if level:
            source = F.interpolate(source, size=max(1, round(source.shape[-1] / 2**level)), mode="area")
        views[rows] = _bilinear(source, grid[rows])
    return views


def _bilinear(source: Tensor, grid: Tensor) -> Tensor:
    # "border" and not zeros: a rotated corner shows more of the image, never a black wedge.
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _grid(maps: Tensor, side: int) -> Tensor:
    """float32 (B, side, side, 2): torch's affine_grid, but much faster on a processor.

    x * a + y * b + c, rounded after each step, is the outer sum of a row and a column. torch's matrix product gives
    the same bits where it rounds so too; with fused multiply-add it differs in the last bit. With x and y a plane each,
    grid_sample reads the grid faster.
    """
    # As affine_grid has it: evenly from -1 to 1, then moved from the pixels' corners to their centres.
    places = torch.linspace(-1, 1, side, device=maps.device) * (side - 1) / side if side > 1 else maps.new_zeros(1)
    across, down = maps[:, :, 0, None] * places, maps[:, :, 1, None] * places
    planes = across[:, :, None, :] + down[:, :, :, None]
    return planes.add_(maps[:, :, 2, None, None]).permute(0, 2, 3, 1)
