"""Batches: every image once an epoch, and the rest of an epoch from wherever it is taken up."""

from itertools import chain

import numpy as np
import pytest
import torch

from imgcls.data.loader import Loader
from tests.data.make import decoded_images, load, write_classes

CPU = torch.device("cpu")


def numbered(num, at=None):
    """Images that carry their number in their pixels and in their label."""
    pixels = np.zeros((num, 1, 2, 2), np.uint8)
    pixels[:] = np.arange(num).reshape(-1, 1, 1, 1)
    rows = np.arange(num) if at is None else np.asarray(at)
    keys = tuple(map(str, rows))
    return decoded_images(pixels, rows.astype(np.int64), keys, rows)


def numbers(batches):
    """What is in each batch; images and labels must agree."""
    found = []
    for batch in batches:
        assert batch.images.dtype == torch.uint8 and batch.labels.dtype == torch.int64
        assert batch.images.shape[1:] == (1, 2, 2)
        assert torch.equal(batch.images[:, 0, 1, 1].long(), batch.labels)
        found.append(batch.labels.tolist())
    return found


def flat(batches):
    return list(chain.from_iterable(batches))


SIZES = [(12, 4), (13, 4), (14, 4), (15, 4), (3, 8), (8, 8), (9, 8), (1, 4), (200, 7)]


@pytest.mark.parametrize(("num", "batch_size"), SIZES)
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_image_comes_exactly_once_an_epoch(num, batch_size, epoch):
    loader = Loader(numbered(num), batch_size, CPU)
    batches = numbers(loader.shuffled(seed=3, epoch=epoch))
    assert sorted(flat(batches)) == list(range(num))
    assert len(batches) == loader.steps_per_epoch


@pytest.mark.parametrize(
    ("num", "batch_size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (13, 4, [4, 4, 5]),  # an image alone has no statistics of its own
        (14, 4, [4, 4, 4, 2]),
        (3, 8, [3]),
        (9, 8, [9]),
        (1, 4, [1]),
    ],
)
def test_a_last_batch_of_one_image_joins_the_one_before(num, batch_size, sizes):
    loader = Loader(numbered(num), batch_size, CPU)
    assert [len(batch) for batch in numbers(loader.shuffled(0, 0))] == sizes


@pytest.mark.parametrize(("num", "batch_size"), SIZES)
def test_an_epoch_taken_up_in_the_middle_is_the_tail_of_the_whole(num, batch_size):
    loader = Loader(numbered(num), batch_size, CPU)
    whole = numbers(loader.shuffled(seed=5, epoch=2))
    for start in range(len(whole) + 1):
        assert numbers(Loader(numbered(num), batch_size, CPU).shuffled(5, 2, start_step=start)) == whole[start:]


def test_epochs_and_seeds_have_orders_of_their_own():
    loader = Loader(numbered(50), 8, CPU)
    orders = {tuple(flat(numbers(loader.shuffled(seed, epoch)))) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert tuple(range(50)) not in orders


def test_an_image_stands_in_every_place_as_often():
    """Chi-square over where one image of five comes, in 1,000 epochs; 4 degrees of freedom, 0.1 % is 18.5."""
    loader = Loader(numbered(5), 5, CPU)
    places = [numbers(loader.shuffled(seed=0, epoch=epoch))[0].index(2) for epoch in range(1000)]
    counts = np.bincount(places, minlength=5)
    assert ((counts - 200) ** 2 / 200).sum() < 18.5


@pytest.mark.parametrize(("num", "batch_size"), SIZES)
def test_in_order_gives_every_image_in_the_order_of_the_split(num, batch_size):
    loader = Loader(numbered(num), batch_size, CPU)
    batches = numbers(loader.in_order())
    assert flat(batches) == list(range(num)) == loader.labels.tolist()
    assert {len(batch) for batch in batches[:-1]} <= {batch_size} and len(batches[-1]) <= batch_size
    assert loader.num_images == num


def test_a_selection_gives_its_own_images():
    """A split shares its pixels with others and knows which are its own."""
    own = [9, 2, 30, 31, 4]
    loader = Loader(numbered(40, at=own), 2, CPU)
    assert flat(numbers(loader.in_order())) == own
    assert sorted(flat(numbers(loader.shuffled(0, 0)))) == sorted(own)


def test_batches_of_a_mapped_split_are_its_images(tmp_path):
    """From files to batches; the map is read-only, and a batch may be written to without touching it."""
    dataset = load(write_classes(tmp_path, {"cat": 12, "dog": 12}))
    loader = Loader(dataset.train, 4, CPU)
    expected = dataset.train.pixels
    for step, batch in enumerate(loader.in_order()):
        assert np.array_equal(batch.images.numpy(), expected[4 * step : 4 * step + 4])
        assert np.array_equal(batch.labels.numpy(), dataset.train.labels[4 * step : 4 * step + 4])
        batch.images.zero_()
    assert np.array_equal(dataset.train.pixels, expected) and expected.any()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_batches_on_cuda_are_those_on_the_cpu(monkeypatch, resident_bytes):
    monkeypatch.setattr("imgcls.data.loader.RESIDENT_BYTES", resident_bytes)
    images = numbered(40, at=[9, 2, 30, 31, 4])
    loader = Loader(images, 2, torch.device("cuda"))
    batches = list(loader.shuffled(0, 0))
    assert all(batch.images.is_cuda and batch.labels.is_cuda for batch in batches)
    assert numbers(batches) == numbers(Loader(images, 2, CPU).shuffled(0, 0))
    assert not loader.labels.is_cuda
