"""Views of an image at test time: a network that answers by the mean of its probabilities over several orientations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imgcls.config.key_types import TestViews
from imgcls.models.ensemble import Ensemble, log_mean_probs


class View(NamedTuple):
    """A view of square images: mirrored left and right or not, then turned.

    Attributes:
        is_mirrored: whether left and right change places.
        turns: quarter turns to the left after that, 0 to 3.
    """

    is_mirrored: bool
    turns: int

    def of(self, images: Tensor) -> Tensor:
        """The view of images (..., S, S): the same pixels in other places."""
        return torch.rot90(images.flip(-1) if self.is_mirrored else images, self.turns, (-2, -1))

    def undone(self, maps: Tensor) -> Tensor:
        """What `of` made maps (..., h, h) from."""
        turned_back = torch.rot90(maps, -self.turns, (-2, -1))
        return turned_back.flip(-1) if self.is_mirrored else turned_back


VIEWS: dict[TestViews, tuple[View, ...]] = {
    "one": (View(False, 0),),
    "flips": (View(False, 0), View(True, 0)),
    "orientations": tuple(View(is_mirrored, turns) for is_mirrored in (False, True) for turns in range(4)),
}
"""The views of each value of `data.test_views`; the first is the image as it is."""


class MeanOverViews(nn.Module):
    """A network that is shown several views of each image: the softmax of its logits is the mean of their softmaxes.

    Args:
        network: images (B, C, S, S) -> logits (B, K).
        views: of an image.

    Attributes:
        at_once: whether all views go through the network as one batch, which makes a smaller graph for export. By
            default one goes after the other, which needs the memory of one.
    """

    def __init__(self, network: nn.Module, views: Sequence[View]) -> None:
        super().__init__()
        self.network, self.views, self.at_once = network, tuple(views), False

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, float32 (B, K)."""
        views = (view.of(images) for view in self.views)
        if self.at_once:
            return log_mean_probs(self.network(torch.cat([*views])).unflatten(0, (len(self.views), -1)))
        return log_mean_probs(map(self.network, views))


def with_views(model: nn.Module, name: TestViews) -> nn.Module:
    """A model that answers by the mean over views, with the weights that it has; with the one view, the model itself.

    Args:
        model: images (B, C, S, S) -> logits (B, K). Of an `Ensemble` each member gets the views, which changes nothing
            in the mean of them all.
        name: `data.test_views`.
    """
    if len(views := VIEWS[name]) == 1:
        return model
    if isinstance(model, Ensemble):
        return Ensemble(MeanOverViews(member, views) for member in model.members)
    return MeanOverViews(model, views)
