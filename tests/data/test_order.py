"""Orders of an epoch: each image once, or each class as often."""

import numpy as np
import pytest
import torch

from imgcls.data.loader import Loader
from imgcls.data.order import balanced_order, natural_order, rows_of_classes
from tests.data.make import decoded_images

CPU = torch.device("cpu")
SIZES = [[90, 9, 1], [5, 5, 5], [1, 1], [7, 200], [3, 1, 40, 2, 13]]


def labels_of(sizes):
    """In an order in which classes lie among one another."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("sizes", SIZES)
def test_each_class_comes_as_often_and_so_does_each_of_its_images(sizes):
    labels = labels_of(sizes)
    for epoch in range(5):
        order = balanced_order(rows_of_classes(labels), seed=1, epoch=epoch).numpy()
        assert len(order) == len(labels)
        of_class = np.bincount(labels[order], minlength=len(sizes))
        assert of_class.max() - of_class.min() <= 1
        of_image = np.bincount(order, minlength=len(labels))
        for label in range(len(sizes)):
            assert np.ptp(of_image[labels == label]) <= 1


def test_over_epochs_no_image_and_no_place_is_favoured():
    """Chi-square at 0.1 %: which of 30 images fill 10 places, which class gets the odd place, and where class 1 comes.

    Ten of thirty images are drawn without replacement, so the counts vary by 20/29 of what independent draws would.
    """
    labels, num_epochs = np.repeat([0, 1, 2], [28, 1, 2]), 900  # 31 places, 10 a class and one more
    orders = np.stack([balanced_order(rows_of_classes(labels), 3, epoch).numpy() for epoch in range(num_epochs)])
    images = np.bincount(orders[labels[orders] == 0], minlength=28)
    expected = images.sum() / 28
    assert ((images - expected) ** 2 / expected).sum() < 55.5  # 27 degrees of freedom
    odd = np.bincount([np.bincount(labels[order]).argmax() for order in orders], minlength=3)
    assert ((odd - num_epochs / 3) ** 2 / (num_epochs / 3)).sum() < 13.8  # 2
    places = (orders == 28).sum(axis=0)
    expected = places.sum() / 31
    assert ((places - expected) ** 2 / expected).sum() < 59.7  # 30


def test_a_large_class_shows_all_of_its_images_over_the_epochs():
    labels = np.repeat([0, 1], [30, 10])
    seen = {row for epoch in range(6) for row in balanced_order(rows_of_classes(labels), 0, epoch).tolist()}
    assert seen == set(range(40))


def test_an_order_is_a_function_of_seed_and_epoch():
    of_classes = rows_of_classes(labels_of([30, 4]))
    orders = {tuple(balanced_order(of_classes, s, e).tolist()) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    assert torch.equal(balanced_order(of_classes, 2, 1), balanced_order(of_classes, 2, 1))
    assert sorted(natural_order(34, 0, 0).tolist()) == list(range(34))


@pytest.mark.parametrize(("num", "batch_size"), [(12, 4), (13, 4), (14, 4), (3, 8), (200, 7)])
def test_a_balanced_loader_gives_as_many_batches_and_goes_on_in_the_middle(num, batch_size):
    pixels = np.arange(num, dtype=np.uint8).reshape(-1, 1, 1, 1)
    images = decoded_images(pixels, np.minimum(np.arange(num), 2))
    balanced, natural = (Loader(images, batch_size, CPU, is_balanced=flag) for flag in (True, False))
    whole = [batch.images.flatten().tolist() for batch in balanced.shuffled(4, 1)]
    assert [len(batch) for batch in whole] == [len(batch.labels) for batch in natural.shuffled(4, 1)]
    assert sum(np.bincount(np.minimum(np.concatenate(whole), 2)).tolist()) == num
    for start in range(len(whole) + 1):
        again = Loader(images, batch_size, CPU, is_balanced=True).shuffled(4, 1, start_step=start)
        assert [batch.images.flatten().tolist() for batch in again] == whole[start:]
    assert torch.cat([batch.labels for batch in balanced.in_order()]).tolist() == balanced.labels.tolist()
