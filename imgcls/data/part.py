"""The part of a batch that one of several processes trains on, and what is drawn for the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """The part of a batch that a process trains on.

    Draws are made for the whole batch, so that an image is augmented alike however many processes share the batch.

    Attributes:
        num_images: of the whole batch.
        at_hand: int64 (A,), ascending places in the batch: of the part's own images, and of those mixed into them.
        own: int64 (P,), where among those at hand the part's own images are.
    """

    num_images: int
    at_hand: Tensor
    own: Tensor

    @classmethod
    def of(cls, num_images: int, places: slice, partner: Tensor | None) -> Part:
        """The part at some places of a batch, where `partner`, int64 (B,), says which image is mixed into each."""
        mine = torch.arange(num_images)[places]
        at_hand = mine if partner is None else torch.cat((mine, partner[mine])).unique()  # type: ignore[no-untyped-call]
        return cls(num_images, at_hand, torch.searchsorted(at_hand, mine))

    @property
    def own_places(self) -> Tensor:
        """Places in the batch of the part's own images, int64 (P,)."""
        return self.at_hand[self.own]

    def others(self, partner: Tensor) -> Tensor:
        """Where among those at hand the images are that are mixed into the part's own, int64 (P,)."""
        return torch.searchsorted(self.at_hand, partner[self.own_places])


def drawn(num_at_hand: int, part: Part | None, draw: Callable[[int], Tensor]) -> Tensor:
    """What `draw` draws for so many images of a batch, a row each: the rows of the images at hand.

    Without a part, all images of the batch are at hand.
    """
    return draw(num_at_hand) if part is None else draw(part.num_images)[part.at_hand]
