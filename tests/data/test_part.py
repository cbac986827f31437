"""Parts of a batch that several processes share: what they train on is what one process would train on."""

from functools import partial

import numpy as np
import pytest
import torch

from imgcls.config.keys import AugmentConfig
from imgcls.data.augment import Augment, Normalise
from imgcls.data.image_set import DecodedImages, Hashes
from imgcls.data.loader import Loader
from imgcls.data.part import Part
from imgcls.processes import Place
from imgcls.rng import generator
from imgcls.training.parallel import Ranks

CPU = torch.device("cpu")
NORMALISE = Normalise((0.5,) * 3, (0.25,) * 3, CPU)
VIEWS = {
    "random_resized_crop": (0.3, 1.0), "vertical_flip": True, "quarter_turns": True, "rotation": 10.0, "shift": 0.1,
    "brightness": 0.2, "contrast": 0.2, "saturation": 0.3, "hue": 0.1, "cutout": 0.3,
}  # fmt: skip
AUGMENTATIONS = {
    "views": VIEWS,
    "mixup": {"horizontal_flip": True, "mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "everything": {**VIEWS, "mixup": 0.4, "cutmix": 1.0},
}


def images(num):
    pixels = np.random.default_rng(0).integers(0, 256, (num, 3, 12, 12), np.uint8)
    labels = np.arange(num, dtype=np.int64) % 4
    return DecodedImages(tuple(map(str, range(num))), labels, Hashes.zeros(num), pixels, np.arange(num))


def trained_on(augment, batch, step):
    """What `Task.augmented` makes of a batch."""
    draw = partial(generator, 7, 1, step)
    views = augment.views(batch.images, NORMALISE, draw, batch.part)
    return augment.mixed(views, batch.labels, 4, draw, batch.part)


@pytest.mark.parametrize("config", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@pytest.mark.parametrize(("num", "batch_size", "size"), [(29, 9, 2), (26, 8, 3), (10, 10, 4)])
def test_the_parts_of_a_batch_together_are_the_batch_of_one_process(config, num, batch_size, size):
    """Also the last batch of 2 images, of which a third process has none."""
    augment, loader = Augment(AugmentConfig(**config), 8), Loader(images(num), batch_size, CPU)
    whole = [trained_on(augment, batch, step) for step, batch in enumerate(loader.shuffled(7, 1))]

    def part_of(rank, step, num_images):
        places = Ranks(Place(rank, size)).part_of(num_images)
        return Part.of(num_images, places, augment.partner(num_images, partial(generator, 7, 1, step)))

    parts = [
        [
            trained_on(augment, batch, step)
            for step, batch in enumerate(loader.shuffled(7, 1, 0, partial(part_of, rank)))
        ]
        for rank in range(size)
    ]
    for (views, targets), *of_step in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part for part, _ in of_step]), views)
        assert torch.equal(torch.cat([part for _, part in of_step]), targets)
        sizes = [len(part) for part, _ in of_step]
        assert max(sizes) - min(sizes) <= 1


def test_a_part_has_no_more_images_at_hand_than_its_own_and_those_mixed_into_them():
    partner = torch.tensor([3, 0, 1, 2, 5, 4])
    alone, mixed = Part.of(6, slice(0, 2), None), Part.of(6, slice(0, 2), partner)
    assert alone.at_hand.tolist() == [0, 1]
    assert mixed.at_hand.tolist() == [0, 1, 3]
    assert mixed.at_hand[mixed.others(partner)].tolist() == [3, 0]


@pytest.mark.parametrize("num", [1, 7, 8, 23])
def test_batches_in_turns_are_all_batches_once(num):
    loader = Loader(images(num), 4, CPU)
    whole = [batch.labels.tolist() for batch in loader.in_order()]
    turns = [[batch.labels.tolist() for batch in loader.in_order(rank, 3)] for rank in range(3)]
    assert [turns[i % 3][i // 3] for i in range(len(whole))] == whole
    assert sum(map(len, turns)) == len(whole) == loader.num_batches
