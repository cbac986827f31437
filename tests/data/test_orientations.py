"""Stored orientations against the views that the augmentation makes by the same draws, and against torch's turns."""

import pytest
import torch

from imgcls.config.keys import AugmentConfig
from imgcls.data.augment import Augment, Normalise
from imgcls.data.orientations import StoredOrientations, orientations, orientations_to_store, oriented
from imgcls.models.views import VIEWS
from imgcls.rng import generator

SIDE = 6
KEYS = ("horizontal_flip", "vertical_flip", "quarter_turns")


def noise(num):
    return torch.randint(0, 256, (num, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("on", "num"),
    [("", 1), ("h", 2), ("v", 2), ("q", 4), ("hv", 4), ("hq", 8), ("vq", 8), ("hvq", 8)],
)
def test_the_views_of_every_step_are_among_the_orientations(on, num):
    config = AugmentConfig(**{key: key[0] in on for key in KEYS})
    images, normalise = noise(64), Normalise((0.2, 0.4, 0.6), (0.5, 0.25, 1.0), torch.device("cpu"))
    each = orientations(config)
    assert len(each) == num
    assert torch.equal(each[0], torch.eye(2))
    stored = torch.stack([normalise(oriented(images, one)).flatten(1) for one in each], dim=1)
    chosen = set()
    for step in range(4):

        def draw(purpose, step=step):
            return generator(5, 1, step, purpose)

        wanted = Augment(config, SIDE).views(images, normalise, draw).flatten(1)
        views = StoredOrientations(config, each).views(stored, normalise, draw)
        assert torch.equal(views, wanted)
        chosen |= set((stored == views[:, None]).all(dim=2).float().argmax(dim=1).tolist())
    assert chosen == set(range(num))


def test_eight_orientations_are_torchs_turns_and_flips():
    images = noise(1)
    found = {
        oriented(images, one).numpy().tobytes()
        for one in orientations(AugmentConfig(vertical_flip=True, quarter_turns=True))
    }
    turned = [torch.rot90(images, turns, (-2, -1)) for turns in range(4)]
    wanted = {view.contiguous().numpy().tobytes() for one in turned for view in (one, one.flip(-1))}
    assert found == wanted
    assert len(found) == 8


@pytest.mark.parametrize("test_views", VIEWS)
@pytest.mark.parametrize("on", ["", "h", "v", "q", "hvq"])
def test_the_first_stored_orientations_are_those_of_the_test_views(on, test_views):
    config = AugmentConfig(**{key: key[0] in on for key in KEYS})
    stored, num = orientations_to_store(config, test_views)
    images = noise(1)

    def names(views):
        return [view.contiguous().numpy().tobytes() for view in views]

    seen = names(oriented(images, one) for one in stored)
    wanted = names(view.of(images) for view in VIEWS[test_views])
    assert seen[0] == wanted[0] and set(seen[:num]) == set(wanted)
    trained_on = names(oriented(images, one) for one in orientations(config))
    assert set(seen) == set(wanted) | set(trained_on) and len(seen) == len(set(seen))
    if test_views == "orientations":
        assert torch.equal(stored, orientations_to_store(AugmentConfig(), test_views)[0])
