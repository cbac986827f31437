"""Pillow's way from an image of any size to a square, in tensor operations that torch can export: the same pixels.

`data.decode.to_square` is the definition. Pillow resizes with whole weights of 1 / 2^22 and rounds after each of its
two passes, so float64 holds every intermediate number exactly. Lengths are int64 tensors without dimensions: a Python
number that is computed from a shape would be fixed in the exported graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from imgcls.config.key_types import Fit
from imgcls.data.decode import PAD_LEVEL, REDUCING_GAP, SHRUNK_SIDE

ONE = 2.0**22
"""Pillow's weights are whole numbers of 1 / ONE."""

GAP = int(REDUCING_GAP)
"""An image whose side is at least 2 GAP times the side that it becomes is averaged in blocks first."""

SOURCES = ((9, 9, 9), (0, 0, 0), (9, 9, 9), (0, 1, 2))
"""Indices of the channels that red, green and blue come from, for images of 0 to 3 channels. 9 does not exist, so an
image of 0, 2 or more than 3 channels is an error."""

LUMA = (19595.0, 38470.0, 7471.0)
"""Weights in 65536ths by which Pillow makes grey of red, green and blue."""


class Squares(nn.Module):
    """Images become squares, resized as `data.decode.to_square` does it: to the same levels.

    Args:
        channels: C of the squares, 1 or 3.
        side: of the squares that the images become, in pixels.
        fit: see `to_square`.
        final_side: to which these squares are resized once more; format 1 of `imgcls.squares` did so.
    """

    sources: Tensor

    def __init__(self, channels: int, side: int, fit: Fit, final_side: int | None = None) -> None:
        super().__init__()
        self.channels, self.side, self.fit = channels, side, fit
        self.final_side = final_side or side
        self.may_go_down_first = shrinks_tall_images_downwards_first()
        self.register_buffer("sources", torch.tensor(SOURCES), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Makes squares.

        Args:
            images: uint8 (B, H, W, 1 or 3), of any size.

        Returns:
            float32 (B, C, final_side, final_side), whole levels 0 to 255. Images that have that size already are
            finished squares: their pixels stay as they are.
        """
        sources = self.sources.index_select(0, _number(images.shape[3]).reshape(1)).reshape(3)
        height, width = _number(images.shape[1]), _number(images.shape[2])
        is_square = (height == self.final_side) & (width == self.final_side)
        pixels = images.permute(0, 3, 1, 2)
        if self.side * GAP <= SHRUNK_SIDE:  # `decode.shrunk`
            block = (torch.minimum(height, width) // SHRUNK_SIDE).clamp(min=1)
            height, width = height // block, width // block
            pixels = _block_means(pixels, Blocks.of(height * block, block), Blocks.of(width * block, block))
        if self.channels == 1:
            pixels = _grey(pixels.index_select(1, sources))
        down, across = self._axes(height, width)
        pixels = _block_means(pixels, down.blocks, across.blocks).to(torch.float64)
        inside = down.inside(self.side)[:, None] & across.inside(self.side)
        operands = pixels, down.weights(self.side), across.weights(self.side), _is_down_first(down, across), inside
        squares = _either(is_square, self._unchanged, self._resampled, operands)
        return (squares if self.channels == 1 else squares.index_select(1, sources)).to(torch.float32)

    def _axes(self, height: Tensor, width: Tensor) -> tuple[Axis, Axis]:
        if self.fit == "crop":
            short = torch.minimum(height, width)
            extents, sizes = (short, short), (_number(self.side), _number(self.side))
        elif self.fit == "squash":
            extents, sizes = (height, width), (_number(self.side), _number(self.side))
        else:
            long = torch.maximum(height, width)
            extents = height, width
            down, across = (((2 * length * self.side + long) // (2 * long)).clamp(min=1) for length in extents)
            sizes = down, across
        return Axis.of(height, extents[0], sizes[0]), Axis.of(width, extents[1], sizes[1])

    def _unchanged(self, pixels: Tensor, *_: Tensor) -> Tensor:
        rows = torch.arange(self.final_side, device=pixels.device)  # all of them, but torch cannot know that
        return pixels.index_select(2, rows).index_select(3, rows)

    def _resampled(self, pixels: Tensor, down: Tensor, across: Tensor, is_down_first: Tensor, inside: Tensor) -> Tensor:
        operands = pixels, down, across
        if self.may_go_down_first:
            squares = _either(is_down_first, _down_then_across, _across_then_down, operands)
        else:
            squares = _across_then_down(*operands)
        if self.fit == "pad":
            squares = torch.where(inside, squares, float(PAD_LEVEL))
        if self.final_side == self.side:
            return squares
        side = _number(self.side)
        again = Axis(side, side, _number(self.final_side), Blocks.of(side, torch.ones_like(side), self.side))
        weights = again.weights(self.final_side)
        return _across_then_down(squares, weights, weights)


@dataclass(frozen=True)
class Blocks:
    """Blocks along one axis, each of which becomes the mean of its pixels.

    Attributes:
        first: int64 (), index of the first pixel.
        length: int64 (), number of pixels; the last block may have fewer.
        block: int64 (), pixels of a block; 1 changes nothing.
        num: blocks, as a number that is a length of tensors.
    """

    first: Tensor
    length: Tensor
    block: Tensor
    num: int

    @classmethod
    def of(cls, length: Tensor, block: Tensor, num: int | None = None, first: Tensor | None = None) -> Blocks:
        """The blocks of so many pixels from `first`, by default the first of all."""
        first = torch.zeros_like(length) if first is None else first
        return cls(first, length, block, num or _as_length(-(-length // block)))

    def counts(self) -> Tensor:
        """float64 (num,), pixels of each block."""
        begun = torch.arange(self.num, device=self.block.device) * self.block
        return torch.minimum(self.length - begun, self.block).to(torch.float64)

    def sums(self, pixels: Tensor, axis: int) -> Tensor:
        """Float32 with `num` sums along an axis; they are exact below 2^24."""
        first, length, block = _as_length(self.first, least=0), _as_length(self.length), _as_length(self.block)
        lacking = self.num * block - length
        torch._check(first + length <= pixels.shape[axis])
        torch._check(lacking >= 0)
        padded = F.pad(pixels.narrow(axis, first, length), (0, 0) * (pixels.ndim - 1 - axis) + (0, lacking))
        shape = padded.shape
        blocks = padded.reshape(*shape[:axis], self.num, block, *shape[axis + 1 :])
        return blocks.to(torch.float32).sum(dim=axis + 1)


@dataclass(frozen=True)
class Axis:
    """How an image is resized along one axis.

    Attributes:
        length: int64 (), pixels of the image.
        extent: int64 (), pixels in the middle that are used.
        size: int64 (), pixels that they become, in the middle of the square.
        blocks: what is averaged first, with the pixels beside `extent` that the filter reaches.
    """

    length: Tensor
    extent: Tensor
    size: Tensor
    blocks: Blocks

    @classmethod
    def of(cls, length: Tensor, extent: Tensor, size: Tensor) -> Axis:
        """An axis with the blocks of Pillow's `resize(reducing_gap=GAP)`."""
        block = (extent // (GAP * size)).clamp(min=1)
        margin = length - extent  # on both sides together
        first = ((size * margin - extent) // (2 * size)).clamp(min=0)
        end = torch.minimum(-(-(size * (length + extent) + extent) // (2 * size)), length)
        has_blocks = block > 1
        first = torch.where(has_blocks, first, torch.zeros_like(first))
        end = torch.where(has_blocks, end, length)
        return cls(length, extent, size, Blocks.of(end - first, block, first=first))

    def weights(self, side: int) -> Tensor:
        """float64 (side, number of blocks): what each pixel of the square takes of each block."""
        first, end = (self._in_blocks(self.length + sign * self.extent) for sign in (-1, 1))
        scale = (end - first).to(torch.float64) / self.size
        centres = first.to(torch.float64) + (self._places(side).to(torch.float64) + 0.5) * scale
        at = torch.arange(self.blocks.num, device=scale.device).to(torch.float64)
        weights = (1 - ((at - centres[:, None] + 0.5) * (1 / scale.clamp(min=1))).abs()).relu()
        weights = weights / weights.sum(dim=1, keepdim=True)
        return _rounded(weights * ONE) / ONE

    def inside(self, side: int) -> Tensor:
        """Bool (side,): which pixels of the square are the image's and not a bar's."""
        places = self._places(side)
        return (places >= 0) & (places < self.size)

    def _places(self, side: int) -> Tensor:
        """int64 (side,): index of each pixel of the square among the `size` in its middle."""
        return torch.arange(side, device=self.size.device) - (side - self.size) // 2

    def _in_blocks(self, twice: Tensor) -> Tensor:
        """Half of a number of pixels, as a place among the blocks; Pillow hands it over as float32."""
        return ((twice.to(torch.float64) / 2 - self.blocks.first) / self.blocks.block).to(torch.float32)


def _block_means(pixels: Tensor, down: Blocks, across: Blocks) -> Tensor:
    """Means of blocks as Pillow's `reduce` rounds them: (B, C, H, W) -> float32 (B, C, down.num, across.num)."""
    sums = across.sums(down.sums(pixels, axis=2), axis=3).to(torch.float64)
    counts = down.counts()[:, None] * across.counts()
    return ((sums + (counts / 2).floor()) * (2.0**24 / counts).floor() / 2.0**24).floor().to(torch.float32)


def _grey(pixels: Tensor) -> Tensor:
    """Pillow's conversion to grey: (B, 3, H, W) -> float32 (B, 1, H, W)."""
    red, green, blue = torch.split(pixels.to(torch.float32), 1, dim=1)
    return torch.floor((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 32768) / 65536)


def _is_down_first(down: Axis, across: Axis) -> Tensor:
    """Whether Pillow 13 and later resizes along the height first: where that takes away the most."""
    lost_down, lost_across = (axis.blocks.num - axis.size for axis in (down, across))
    return (lost_down > 0) & (2 * lost_across < lost_down)


@lru_cache(maxsize=1)
def shrinks_tall_images_downwards_first() -> bool:
    """Whether the installed Pillow resizes tall images along the height first, as its version 13 began to do."""
    levels = np.random.default_rng(0).integers(0, 256, (200, 40), np.uint8)
    tall = Image.fromarray(levels)

    def resize(image: Image.Image, width: int, height: int) -> Image.Image:
        return image.resize((width, height), Image.Resampling.BILINEAR)

    return resize(tall, 32, 32).tobytes() == resize(resize(tall, 40, 32), 32, 32).tobytes()


def _across_then_down(pixels: Tensor, down: Tensor, across: Tensor) -> Tensor:
    return _rounded(down @ _rounded(pixels @ across.T))


def _down_then_across(pixels: Tensor, down: Tensor, across: Tensor) -> Tensor:
    return _rounded(_rounded(down @ pixels) @ across.T)


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor()


def _number(length: int) -> Tensor:
    """A length of a tensor as int64 (); `torch.tensor` would fix it in the exported graph."""
    return torch.scalar_tensor(length, dtype=torch.int64)


def _as_length(number: Tensor, least: int = 1) -> int:
    """A number int64 () as a length of tensors, which is at least `least`."""
    length: Any = number.item()
    torch._check(length >= least)
    return length  # type: ignore[no-any-return]


def _either(
    condition: Tensor, yes: Callable[..., Tensor], no: Callable[..., Tensor], operands: tuple[Tensor, ...]
) -> Tensor:
    """One of two functions of the operands: a branch of the exported graph, else computed at once."""
    if torch.compiler.is_exporting():
        chosen: Tensor = torch.cond(condition, yes, no, operands)
        return chosen
    return yes(*operands) if condition else no(*operands)
