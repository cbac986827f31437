"""Which flips leave the classes as they are: digits of scikit-learn, and the same digits mirrored at random."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from imgcls.init.symmetry import symmetry_of

DIGITS = load_digits()
IMAGES, LABELS = DIGITS.images.astype(np.float32), DIGITS.target.astype(np.int64)


def at_random(images, change, seed=0):
    chosen = np.random.default_rng(seed).random(len(images)) < 0.5
    return np.where(chosen[:, None, None], change(images), images)


def mirrored(images):
    return images[:, :, ::-1]


def upside_down(images):
    return images[:, ::-1]


def transposed(images):
    return images.transpose(0, 2, 1)


def allowed(images, labels=LABELS):
    found = symmetry_of(images, labels)
    return found.allows_horizontal_flip, found.allows_vertical_flip, found.allows_quarter_turns


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (IMAGES, (False, False, False)),
        (at_random(IMAGES, mirrored), (True, False, False)),
        (at_random(IMAGES, upside_down), (False, True, False)),
        (at_random(at_random(IMAGES, mirrored), upside_down, seed=1), (True, True, False)),
        (at_random(at_random(at_random(IMAGES, transposed), mirrored, 1), upside_down, 2), (True, True, True)),
    ],
    ids=["digits", "mirrored", "upside down", "both", "turned"],
)
def test_a_flip_is_allowed_where_images_were_flipped_at_random(images, expected):
    assert allowed(images) == expected


def test_one_directed_class_among_many_forbids_the_flip():
    sevens = LABELS == 7
    images = np.where(sevens[:, None, None], IMAGES, at_random(IMAGES, mirrored))
    assert not symmetry_of(images, LABELS).allows_horizontal_flip


def test_few_images_tell_nothing():
    assert symmetry_of(IMAGES[:30], LABELS[:30]).across is None


def test_images_without_contrast_tell_nothing():
    assert allowed(np.ones((100, 8, 8), np.float32), np.zeros(100, np.int64)) == (False, False, False)
