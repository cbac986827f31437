"""What is found to be a copy, and what is not, on real pictures: skimage's and scikit-learn's own, cut into pieces."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from sklearn.datasets import load_digits, load_sample_images

from imgcls.config.keys import DataConfig
from imgcls.data import copies as copies_module
from imgcls.data.copies import copies
from imgcls.data.sketches import SKETCH_BYTES, says_something, sketches, thumbnail
from imgcls.data.sources import open_source
from tests.data.make import noise, picture


def sketches_of(images):
    thumbnails = np.stack([thumbnail(image) for image in images])
    return sketches(thumbnails, np.array([min(image.size) for image in images]))


@pytest.fixture(scope="module")
def photographs():
    """Pieces of two photographs, 106 x 106 pixels and no two of one place, those of plain sky left out."""
    pieces = [
        Image.fromarray(photograph[y : y + 106, x : x + 106])
        for photograph in load_sample_images().images
        for y in range(0, 424, 106)
        for x in range(0, 636, 106)
    ]
    return [piece for piece in pieces if np.asarray(piece.convert("L")).std() > 25]


def saved_again(quality):
    def change(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(io.BytesIO(file.getvalue()))

    return change


def cropped(left, upper, right, lower):
    def change(image):
        width, height = image.size
        return image.crop((left * width, upper * height, (1 - right) * width, (1 - lower) * height))

    return change


CHANGES = {
    "saved with quality 50": saved_again(50),
    "half the size": lambda image: image.resize((53, 53), Image.Resampling.LANCZOS),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L"),
    **{f"turned {way.name}": lambda image, way=way: image.transpose(way) for way in Image.Transpose},
    "mirrored and saved again": lambda image: saved_again(75)(ImageOps.mirror(image)),
    "without one column": lambda image: image.crop((1, 0, *image.size)),
    "cropped 2 % at each edge": cropped(0.02, 0.02, 0.02, 0.02),
    "cropped 4 % at each edge": cropped(0.04, 0.04, 0.04, 0.04),
    "cropped 5 % on the left": cropped(0.05, 0, 0, 0),
    "cropped 5 % at each edge": cropped(0.05, 0.05, 0.05, 0.05),
    "cropped 5 % below": cropped(0, 0, 0, 0.05),
    "cropped 3 % in a corner and mirrored": lambda image: ImageOps.mirror(cropped(0.03, 0.03, 0, 0)(image)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_copies_are_found_and_nothing_else(photographs, change):
    changed = [change(image) for image in photographs]
    for pairs in (
        copies(sketches_of(photographs), sketches_of(changed)).tolist(),
        [[j, i] for i, j in copies(sketches_of(changed), sketches_of(photographs))],
    ):
        found = {i for i, j in pairs if i == j}
        assert len(found) >= 0.85 * len(photographs), set(range(len(photographs))) - found
        assert len(pairs) - len(found) <= 1


def test_different_pictures_are_no_copies(photographs):
    half = sketches_of(photographs[::2]), sketches_of(photographs[1::2])
    assert copies(*half).tolist() == []
    shapes = [Image.fromarray(picture(seed)) for seed in range(80)]
    assert len(copies(sketches_of(shapes[:40]), sketches_of(shapes[40:]))) <= 1


def on_a_red_sheet(seed, *outline):
    """A garment of some outline, corners as shares of the sides, upon one creased sheet, with grain of its own."""
    creases = np.asarray(Image.fromarray(noise(7, (5, 9))[..., 0]).resize((160, 160), Image.Resampling.BICUBIC)) / 8.0
    sheet = np.stack([160 + creases, 20 + creases / 4, 30 + creases / 4], axis=-1)
    grain = np.random.default_rng(seed).normal(0, 3, sheet.shape)
    image = Image.fromarray(np.clip(sheet + grain, 0, 255).astype(np.uint8))
    colour = tuple(int(level) for level in np.random.default_rng(seed).integers(60, 255, 3))
    ImageDraw.Draw(image).polygon([(160 * x, 160 * y) for x, y in outline], fill=colour)
    return image


SHIRT = (0.2, 0.2), (0.4, 0.15), (0.6, 0.15), (0.8, 0.2), (0.7, 0.4), (0.65, 0.85), (0.35, 0.85), (0.3, 0.4)
LONG_SLEEVES = (0.1, 0.6), (0.3, 0.15), (0.7, 0.15), (0.9, 0.6), (0.8, 0.65), (0.7, 0.8), (0.3, 0.8), (0.2, 0.65)
VEST = (0.4, 0.1), (0.6, 0.1), (0.6, 0.3), (0.75, 0.35), (0.75, 0.9), (0.25, 0.9), (0.25, 0.35), (0.4, 0.3)


def test_two_shirts_on_one_red_sheet_are_two_pictures():
    shirts = [on_a_red_sheet(seed, *outline) for seed, outline in enumerate((SHIRT, LONG_SLEEVES, VEST))]
    of_shirts = sketches_of(shirts)
    assert copies(of_shirts, of_shirts).tolist() == [[0, 0], [1, 1], [2, 2]]
    again = sketches_of([saved_again(60)(ImageOps.mirror(shirt)) for shirt in shirts])
    assert copies(of_shirts, again).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_handwritten_digits_are_seldom_taken_for_copies():
    images = [Image.fromarray(np.rint(image * 15.9375).astype(np.uint8)) for image in load_digits().images]
    found = copies(sketches_of(images[:1400]), sketches_of(images[1400:]))
    assert len(np.unique(found[:, 1])) <= 2, "0.5 % of 397"


@pytest.fixture(scope="module")
def cells():
    """Every other one of 1,400 solar cells, many of which were cut from one ingot."""
    table = open_source(DataConfig(source="elpv"), Path()).everything
    return [table.read(row) for row in range(0, 1400, 2)]


def test_solar_cells_of_one_ingot_are_seldom_taken_for_copies(cells):
    order = np.random.default_rng(0).permutation(len(cells))
    known, asked = (sketches_of([cells[i] for i in part]) for part in (order[140:], order[:140]))
    assert len(np.unique(copies(known, asked)[:, 1])) <= 0.03 * 140


@pytest.mark.parametrize("change", ["quality 90", "quality 75", "turned and half the size"])
def test_copies_of_solar_cells_are_found(cells, change):
    how = {"quality 90": saved_again(90), "quality 75": saved_again(75)}.get(change, turned_and_halved)
    changed = [how(cell) for cell in cells[::10]]
    found = {j for i, j in copies(sketches_of(cells), sketches_of(changed)).tolist() if i == 10 * j}
    assert len(found) >= 0.95 * len(changed)


def turned_and_halved(image):
    return image.transpose(Image.Transpose.ROTATE_90).resize((image.height // 2, image.width // 2))


def test_asking_in_few_orientations_finds_what_asking_in_all_eight_finds(photographs, cells, monkeypatch):
    digits = [Image.fromarray(np.rint(image * 15.9375).astype(np.uint8)) for image in load_digits().images]
    ways = list(Image.Transpose)
    for images, change in ((photographs, cropped(0.02, 0.01, 0, 0.03)), (cells, saved_again(75)), (digits, np.copy)):
        some = [Image.fromarray(np.asarray(change(image))) for image in images[::3]]
        asked = sketches_of([*images[1::3], *(one.transpose(ways[i % len(ways)]) for i, one in enumerate(some))])
        known = sketches_of(images[::3] + images[2::3])
        few = copies(known, asked).tolist()
        with monkeypatch.context() as patch:
            patch.setattr(copies_module, "MARGIN", 1e6)
            every = copies(known, asked).tolist()
        assert few == every and len(few) >= 0.7 * len(some)


def test_two_dozen_copies_of_one_image_do_not_hide_one_another(photographs):
    many = [image for image in photographs for _ in range(20)]
    changed = [saved_again(60 + i % 30)(image) for i, image in enumerate(many)]
    found = copies(sketches_of(changed), sketches_of(photographs))
    assert set(found[:, 1].tolist()) == set(range(len(photographs)))
    assert all(i // 20 == j for i, j in found.tolist())


@pytest.mark.parametrize(
    "grey", [np.full((40, 60), 200), np.tile([100, 100, 100, 101], (40, 15))], ids=["flat", "nearly flat"]
)
def test_plain_images_say_nothing(grey):
    sketch = sketches_of([Image.fromarray(grey.astype(np.uint8))])
    assert not says_something(sketch).any() and not sketch.any()
    assert copies(sketch, sketch).shape == (0, 2)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (500, 4), (9, 8), (145, 129)])
def test_images_of_any_shape_have_a_sketch(size):
    sketch = sketches_of([Image.fromarray(noise(0, size))])
    assert sketch.shape == (1, SKETCH_BYTES) and sketch.dtype == np.uint8


def test_no_images_are_no_pairs():
    none = sketches(np.empty((0, 32, 32), np.float32), np.empty(0, np.int64))
    one = sketches_of([Image.fromarray(picture(0))])
    for ours, theirs in ((none, none), (none, one), (one, none)):
        assert copies(ours, theirs).shape == (0, 2)
    assert copies(one, one).tolist() == [[0, 0]]


def test_every_two_of_three_copies_are_a_pair(photographs):
    three = [photographs[0], saved_again(80)(photographs[0]), ImageOps.flip(photographs[0])]
    for one, other in combinations(three, 2):
        assert copies(sketches_of([one]), sketches_of([other])).tolist() == [[0, 0]]
