"""Who can take part: the contestants' names, and what each of them does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Epoch:
    """Train images that went through the net, and the wall time that they took."""

    images: int
    seconds: float

    def __add__(self, other: Epoch) -> Epoch:
        return Epoch(self.images + other.images, self.seconds + other.seconds)


class Contestant(Protocol):
    """Somebody who trains a work an epoch at a time."""

    def first(self) -> Epoch:
        """Starts over, opening the data included, and trains the first epoch."""

    def epoch(self) -> Epoch:
        """Trains another epoch."""


LIMITS = ("limit_nchw", "limit_channels_last")
MOVED_LIMIT = "moved_limit"
BARE = (*LIMITS, MOVED_LIMIT)
"""The bare step as torch runs it, and once more with what imgcls sets: see `limit`."""
USUAL = ("usual_0", "usual_2", "usual_4")
PEERS = (*USUAL, "lightning", "timm")
ALL = ("ours", *BARE, *PEERS)
