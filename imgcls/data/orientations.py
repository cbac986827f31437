"""The orientations of an image: what flips and quarter turns make of it, which are eight at most."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imgcls.config.key_types import TestViews
from imgcls.config.keys import AugmentConfig
from imgcls.data.augment import Augment, Draw, Draws, Normalise
from imgcls.data.loader import send
from imgcls.data.part import Part


def orientations(config: AugmentConfig) -> Tensor:
    """The different orientations that flips and quarter turns of `[augment]` give, the image as it is first.

    Returns:
        float32 (V, 2, 2) with the entries -1, 0 and 1, where V is 1, 2, 4 or 8: the linear part of the maps that
        `Augment.affine_maps` draws.
    """
    angles = [turns * math.pi / 2 for turns in range(4 if config.quarter_turns else 1)]
    across = (1.0, -1.0) if config.horizontal_flip else (1.0,)
    down = (1.0, -1.0) if config.vertical_flip else (1.0,)
    every = [
        torch.tensor([[x * math.cos(angle), -x * math.sin(angle)], [y * math.sin(angle), y * math.cos(angle)]]).round()
        for angle in angles
        for y in down
        for x in across
    ]
    names = [tuple(one.flatten().int().tolist()) for one in every]  # of ints, because 0.0 and -0.0 are two names
    return torch.stack([every[names.index(name)] for name in dict.fromkeys(names)])


def orientations_to_store(config: AugmentConfig, test_views: TestViews) -> tuple[Tensor, int]:
    """The orientations that training or answering needs, and how many of them, the first ones, answering needs.

    They are in one order whichever of them are needed, so that two experiments that need the same share them.
    """
    every = orientations(AugmentConfig(horizontal_flip=True, vertical_flip=True, quarter_turns=True))
    of_test = AugmentConfig(horizontal_flip=test_views != "one", quarter_turns=test_views == "orientations")
    needed = torch.cat((orientations(config), orientations(of_test)))
    stored = torch.stack([one for one in every if (one == needed).all(dim=(1, 2)).any()])
    return stored, len(orientations(of_test))


def oriented(images: Tensor, orientation: Tensor) -> Tensor:
    """Images (B, C, S, S) in one of the orientations, float32 (2, 2); pixels only change places."""
    turned = images.flip(-1) if orientation[0].sum() < 0 else images
    turned = turned.flip(-2) if orientation[1].sum() < 0 else turned
    return turned.transpose(-1, -2) if orientation[0, 0] == 0 else turned


class StoredOrientations(Augment):
    """An augmentation of which every view is stored: a view is chosen, by the draws that would have made it.

    Args:
        config: the `[augment]` table, in which flips, quarter turns and mixup alone may be on.
        stored: float32 (V, 2, 2), the orientations of the V views, the image as it is first.
    """

    def __init__(self, config: AugmentConfig, stored: Tensor) -> None:
        super().__init__(config, image_size=1)
        self._stored = stored

    def views(self, images: Tensor, normalise: Normalise, draw: Draw, part: Part | None = None) -> Tensor:
        """The view of each image that this step draws: float32 (B, V, F), one row for each orientation -> (B, F)."""
        del normalise  # the images were normalised before
        maps = self.affine_maps(Draws.of(len(images), draw("augment"), part))
        if maps is None:
            return images[:, 0]
        is_it = (maps[:, None, :, :2].round() == self._stored).all(dim=(2, 3))
        chosen = send(is_it.float().argmax(dim=1), images.device)
        return images[torch.arange(len(images), device=images.device), chosen]


class AsTheyAre(Normalise):
    """Features are left as they are: the images were normalised before their features were computed."""

    def __init__(self) -> None:
        pass  # there is neither a mean nor a deviation

    def __call__(self, images: Tensor) -> Tensor:
        """The features."""
        return images
