"""Views of whole batches against torch's and torchvision's own flips, turns, crops and distributions."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.datasets import load_sample_image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as TF
from torchvision.transforms.v2 import CutMix as V2CutMix
from torchvision.transforms.v2 import functional as V2

from imgcls.config.keys import AugmentConfig
from imgcls.data.augment import Augment, Draws, Normalise, cutmix, cutout, mixup, refuse_colours_of_grey
from imgcls.errors import ConfigError
from imgcls.rng import generator

SIDE = 16
STILL = {"horizontal_flip": False}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(num, seed=0, channels=3, side=SIDE):
    return torch.randint(0, 256, (num, channels, side, side), generator=seeded(seed), dtype=torch.uint8)


def views(images, seed=1, image_size=SIDE, **config):
    return Augment(AugmentConfig(**config), image_size)(images, seeded(seed))


def maps_of(num, seed=1, **config):
    return Augment(AugmentConfig(**config), SIDE).affine_maps(Draws.of(num, seeded(seed)))


POSES = {
    (turns, mirrored): lambda image, turns=turns, mirrored=mirrored: torch.rot90(
        image.flip(-1) if mirrored else image, turns, (-2, -1)
    )
    for turns in range(4)
    for mirrored in (False, True)
}
"""The eight ways to lay a square down: torch's quarter turns of an image and of its mirror image."""


def poses(images, found):
    """Which of the eight each view is, pixel by pixel."""
    names = []
    for image, view in zip(images.float(), found, strict=True):
        matching = [name for name, pose in POSES.items() if torch.equal(pose(image), view)]
        assert len(matching) == 1
        names += matching
    return names


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {(0, False), (0, True)}),
        ({"horizontal_flip": False, "vertical_flip": True}, {(0, False), (2, True)}),
        ({"vertical_flip": True}, {(0, False), (0, True), (2, True), (2, False)}),
        ({"horizontal_flip": False, "quarter_turns": True}, {(turns, False) for turns in range(4)}),
        ({"vertical_flip": True, "quarter_turns": True}, set(POSES)),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_flips_and_quarter_turns_are_torchs_and_each_as_often(config, expected, seed):
    images = noise(400)
    counts = dict.fromkeys(expected, 0)
    for name in poses(images, views(images, seed, **config)):
        counts[name] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 0.001, counts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sampled_flip_or_turn_is_torchs_to_a_thousandth_of_a_grey_level(seed):
    """The way that crops and rotations go, given nothing but flips and turns, and at the limit of a crop."""
    images = noise(64)
    config = {"vertical_flip": True, "quarter_turns": True}
    exact = views(images, seed, **config)
    assert len(set(poses(images, exact))) == 8
    nearly_whole = views(images, seed, **config, random_resized_crop=(1.0 - 1e-12, 1.0), aspect_ratio=(1.0, 1.0))
    assert (nearly_whole - exact).abs().max() < 1e-3


@pytest.mark.parametrize("rotation", [15.0, 180.0])
def test_rotations_are_torchvisions(rotation):
    images = noise(32, side=32)
    augment = Augment(AugmentConfig(**STILL, rotation=rotation), 32)
    maps = augment.affine_maps(Draws.of(32, seeded(4)))
    found = augment(images, seeded(4))
    centre = torch.arange(32) - 15.5
    inside = centre[:, None] ** 2 + centre**2 < 15**2  # beyond it, torchvision fills with black
    for image, view, matrix in zip(images.float(), found, maps, strict=True):
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        assert abs(angle) <= rotation
        expected = TF.rotate(image, angle, TF.InterpolationMode.BILINEAR)
        assert (view - expected)[:, inside].abs().max() < 1e-2


@pytest.mark.parametrize("side", [1, 2, 13, 28, 61, 128])
def test_views_are_sampled_on_torchs_affine_grid(side):
    """To the bit on the grid that is rounded after each step; torch's own matrix product may fuse two of them."""
    images = noise(8, side=side)
    config = AugmentConfig(**STILL, random_resized_crop=(0.5, 1.0), rotation=25.0, shift=0.1, quarter_turns=True)
    augment = Augment(config, side)
    maps = augment.affine_maps(Draws.of(8, seeded(2)))
    places = (torch.linspace(-1, 1, side) * (side - 1) / side if side > 1 else torch.zeros(1)).numpy()
    x, y = np.meshgrid(places, places)
    a, b, c = (maps.numpy()[:, :, i, None, None] for i in range(3))
    stepwise = torch.from_numpy(np.moveaxis((a * x + b * y) + c, 1, -1).copy())
    views = augment(images, seeded(2))
    assert torch.equal(views, F.grid_sample(images.float(), stepwise, padding_mode="border", align_corners=False))
    grid = F.affine_grid(maps, [8, 3, side, side], align_corners=False)
    assert (grid - stepwise).abs().max() <= 4 * torch.finfo(torch.float32).eps  # of coordinates up to 2


def test_angles_are_drawn_evenly():
    maps = maps_of(3000, **STILL, rotation=30.0)
    angles = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).rad2deg().numpy()
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 0.01


def test_rotated_corners_show_no_black_wedge():
    white = torch.full((20, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    assert (views(white, rotation=45.0) - 200).abs().max() < 1e-3


# --- crops ------------------------------------------------------------------------------------------------------


def crops_of(maps):
    """Area, aspect, and where the crop lies on its free way from left to right and from top to bottom."""
    width, height = maps[:, 0, 0].abs().double().numpy(), maps[:, 1, 1].abs().double().numpy()
    x, y = maps[:, 0, 2].double().numpy(), maps[:, 1, 2].double().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        places = (x / (1 - width) + 1) / 2, (y / (1 - height) + 1) / 2
    return width * height, width / height, *places


def torchvisions_crops(num, scale, seed, side=4000):
    """The same four of crops that torchvision draws on a canvas so fine that whole pixels do not tell."""
    canvas = torch.empty(1, 1, 1).expand(1, side, side)  # its size alone is asked for
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = [RandomResizedCrop.get_params(canvas, list(scale), [3 / 4, 4 / 3]) for _ in range(num)]
    top, left, height, width = np.array(drawn, dtype=np.float64).T
    with np.errstate(invalid="ignore", divide="ignore"):
        places = left / (side - width), top / (side - height)
    return width * height / side**2, width / height, *places


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.6, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_crops_are_distributed_as_torchvisions(scale, seed):
    """Two-sample Kolmogorov-Smirnov: area, aspect, and place across and down.

    Of the 24 comparisons one falls below 0.001 by chance in 2 % of all choices of seeds.
    """
    theirs = torchvisions_crops(2000, scale, seed)
    ours = crops_of(maps_of(2000, seed, **STILL, random_resized_crop=scale))
    for name, our, their in zip(("area", "aspect", "across", "down"), ours, theirs, strict=True):
        pvalue = stats.ks_2samp(our[np.isfinite(our)], their[np.isfinite(their)]).pvalue
        print(f"seed {seed}, scale {scale}, {name}: p = {pvalue:.3f}")
        assert pvalue > 0.001, name
    for place in ours[2:]:
        assert stats.kstest(place[np.isfinite(place)], "uniform").pvalue > 0.01


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_crops_stay_within_the_image_and_within_their_ranges(seed):
    maps = maps_of(2000, seed, **STILL, random_resized_crop=(0.2, 0.7), aspect_ratio=(0.5, 2.0))
    area, aspect, across, down = crops_of(maps)
    assert area.min() >= 0.2 - 1e-6 and area.max() <= 0.7 + 1e-6
    assert aspect.min() >= 0.5 - 1e-6 and aspect.max() <= 2 + 1e-6
    for place in (across, down):
        assert place.min() >= -1e-6 and place.max() <= 1 + 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_a_view_is_torchvisions_resized_crop(seed):
    """The crop that the map names, cut by torchvision out of an image of its own size times sixteen."""
    config = AugmentConfig(**STILL, random_resized_crop=(0.1, 0.9))
    image = torch.zeros(20, 1, 64, 64, dtype=torch.uint8)
    image[:] = (torch.arange(64) * 2 + torch.arange(64)[:, None]).to(torch.uint8)  # bilinear is exact on a plane
    augment = Augment(config, SIDE)
    maps, found = augment.affine_maps(Draws.of(20, seeded(seed))), augment(image, seeded(seed))
    fine = TF.resize(image[:1].float(), [1024, 1024], TF.InterpolationMode.BILINEAR)[0]
    for view, matrix in zip(found, maps, strict=True):
        (width, height), (x, y) = matrix[:, :2].diagonal().tolist(), matrix[:, 2].tolist()
        left, top = (x - width + 1) / 2 * 1024, (y - height + 1) / 2 * 1024
        box = [round(top), round(left), round(height * 1024), round(width * 1024)]
        expected = TF.resized_crop(fine, *box, [SIDE, SIDE], TF.InterpolationMode.BILINEAR)
        # Half a pixel of the fine image is a 32nd of a pixel, where two grey levels lie between neighbours.
        inner = (slice(None), slice(2, -2), slice(2, -2))
        assert (view - expected)[inner].abs().max() < 0.2


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("image_size", [160, 120, 75, 40])
def test_a_photograph_that_shrinks_is_averaged_as_val_is(name, image_size):
    """Nearer to torchvision's antialiased resize than point sampling, which is what a lone grid_sample does.

    From a factor of two on the error is less than two thirds of it; 120 pixels is the worst case, between two levels.
    """
    image = torch.from_numpy(load_sample_image(name)[:400, :400].copy()).permute(2, 0, 1)[None]
    found = views(image, image_size=image_size, **STILL)
    smooth, aliased = (
        TF.resize(image.float(), [image_size, image_size], antialias=antialias) for antialias in (True, False)
    )
    assert (found - smooth).abs().mean() < 2 / 3 * (aliased - smooth).abs().mean()


def test_stripes_that_shrink_become_grey():
    stripes = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert torch.equal(views(stripes, image_size=16, **STILL), torch.full((1, 1, 16, 16), 127.5))


# --- draws ------------------------------------------------------------------------------------------------------

ALL = {
    "random_resized_crop": (0.3, 1.0), "vertical_flip": True, "quarter_turns": True, "rotation": 10.0, "shift": 0.1,
    "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.2,
}  # fmt: skip

ONE_BY_ONE = [
    {"random_resized_crop": (0.3, 1.0)}, {"vertical_flip": True, "quarter_turns": True}, {"rotation": 30.0},
    {"shift": 0.3}, {"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.3}, ALL,
]  # fmt: skip


def test_views_are_a_function_of_seed_epoch_and_step():
    images, augment = noise(8), Augment(AugmentConfig(**ALL), SIDE)
    again = [augment(images, generator(3, 4, 5, "augment")) for _ in range(2)]
    assert torch.equal(*again)
    others = [augment(images, generator(*where, "augment")) for where in ((2, 4, 5), (3, 5, 5), (3, 4, 6))]
    assert not any(torch.equal(again[0], other) for other in others)


@pytest.mark.parametrize("config", [config for config in ONE_BY_ONE if "quarter_turns" not in config] + [ALL])
def test_each_image_has_draws_of_its_own(config):
    same = noise(1).expand(16, -1, -1, -1)
    found = views(same, **(STILL | config))
    assert len({view.numpy().tobytes() for view in found}) == 16


@pytest.mark.parametrize("config", ONE_BY_ONE)
@pytest.mark.parametrize("side", [SIDE, 40])
def test_a_batch_is_its_images_one_by_one(config, side, monkeypatch):
    """Given the same draws; to a thousandth of a grey level, as sums over other shapes are rounded otherwise."""
    images, augment = noise(12, side=side), Augment(AugmentConfig(**config), SIDE)
    together, drawn = augment(images, seeded(7)), Draws.of(12, seeded(7))
    for i in range(12):
        row = Draws(*(getattr(drawn, field.name)[i : i + 1] for field in fields(Draws)))
        monkeypatch.setattr(Draws, "of", lambda *_, row=row: row)
        assert (augment(images[i : i + 1], seeded(0)) - together[i : i + 1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"shift": 0.2}, {"random_resized_crop": (0.3, 0.9), "rotation": 20.0}),
        ({"saturation": 0.5}, {"brightness": 0.3, "contrast": 0.3}),
        ({"hue": 0.5}, {"brightness": 0.3, "contrast": 0.3}),
    ],
)
def test_what_was_added_later_moves_no_earlier_draw(more, same):
    """Grey pictures in colour, which saturation and hue leave alone (the luma's weights add up to 0.9999)."""
    assert torch.equal(*(maps_of(20, **same, **config)[:, :, :2] for config in ({}, more)))
    grey = torch.full((8, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    torch.testing.assert_close(*(views(grey, **same, **config) for config in ({}, more)), rtol=0, atol=2e-2)


@pytest.mark.parametrize("extra", [{"vertical_flip": True}, {"quarter_turns": True}, {"horizontal_flip": True}])
def test_switching_one_thing_on_moves_no_other_draw(extra):
    """Crops, and what is drawn after them, are the same with it and without."""
    crop = {"random_resized_crop": (0.3, 0.9)}
    plain, more = (maps_of(50, **(STILL | crop | flips)) for flips in ({}, extra))
    assert not torch.equal(plain, more)
    assert torch.equal(plain[:, :, 2], more[:, :, 2])
    torch.testing.assert_close(torch.linalg.det(plain[:, :, :2]), torch.linalg.det(more[:, :, :2]).abs())
    grey = torch.full((8, 1, SIDE, SIDE), 100, dtype=torch.uint8)
    assert torch.equal(*(views(grey, brightness=0.4, **(STILL | flips)) for flips in ({}, extra)))


def test_no_augmentation_is_the_image():
    images = noise(4)
    assert torch.equal(views(images, **STILL), images.float())
    assert views(images, **STILL).dtype == torch.float32


def test_the_images_themselves_are_left_alone():
    images = noise(8)
    before = images.clone()
    views(images, **ALL)
    views(images, vertical_flip=True, quarter_turns=True, brightness=0.5)
    assert torch.equal(images, before)


@pytest.mark.parametrize("seed", [0, 1])
def test_brightness_multiplies_as_torchvision_does(seed):
    images = noise(600, channels=1, side=4)
    dark = images // 2  # too dark to be clipped by any factor, so that the factor can be read off
    factors = views(dark, seed, 4, **STILL, brightness=0.4).sum(dim=(1, 2, 3)) / dark.sum(dim=(1, 2, 3))
    assert stats.kstest(factors.numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 0.01
    found = views(images, seed, 4, **STILL, brightness=0.4)
    for image, view, factor in zip(images.float(), found, factors.tolist(), strict=True):
        assert (TF.adjust_brightness(image / 255, factor) * 255 - view).abs().max() < 1e-2


@pytest.mark.parametrize("seed", [0, 1])
def test_contrast_scales_the_distance_to_the_mean_as_torchvision_does(seed):
    images = (64 + noise(300, channels=1, side=4) // 4).to(torch.uint8)
    found = views(images, seed, 4, **STILL, contrast=0.5)
    means = images.float().mean(dim=(1, 2, 3), keepdim=True)
    factors = (found.std(dim=(1, 2, 3)) / images.float().std(dim=(1, 2, 3))).numpy()
    assert stats.kstest(factors, stats.uniform(0.5, 1.0).cdf).pvalue > 0.01
    assert (found.mean(dim=(1, 2, 3), keepdim=True) - means).abs().max() < 1e-3
    for image, view, factor in zip(images.float(), found, factors.tolist(), strict=True):
        assert (TF.adjust_contrast(image / 255, factor) * 255 - view).abs().max() < 1e-2


def test_views_stay_between_black_and_white():
    found = views(noise(100), **STILL, brightness=1.0, contrast=1.0)
    assert found.min() >= 0 and found.max() <= 255


# --- shift ------------------------------------------------------------------------------------------------------


def test_shifts_are_drawn_evenly_and_apart_across_and_down():
    maps = maps_of(3000, **STILL, shift=0.2)
    across, down = (maps[:, :, 2] / 2).T.double().numpy()
    for offset in (across, down):
        assert stats.kstest(offset, stats.uniform(-0.2, 0.4).cdf).pvalue > 0.01
    assert stats.pearsonr(across, down).pvalue > 0.01


@pytest.mark.parametrize("pose", [{}, {"rotation": 40.0}])
def test_a_shift_is_torchvisions_affine_with_the_border_repeated(pose):
    images = noise(32, side=32)
    augment, drawn = Augment(AugmentConfig(**STILL, shift=0.25, **pose), 32), Draws.of(32, seeded(4))
    found, maps = augment(images, seeded(4)), augment.affine_maps(drawn)
    # torchvision moves by whole pixels or by fractions of them alike, and fills with black, so the inside is compared.
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[12:20, 12:20] = True
    for i, (image, view, matrix) in enumerate(zip(images.float(), found, maps, strict=True)):
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        moved = (0.25 * 32 * (2 * drawn.more[i, :2] - 1)).tolist()
        expected = V2.affine(image, -angle, moved, 1.0, [0.0, 0.0], V2.InterpolationMode.BILINEAR)
        torch.testing.assert_close(view[:, inside], expected[:, inside], rtol=0, atol=1e-2)


def test_a_shift_repeats_the_border():
    image = torch.arange(SIDE, dtype=torch.uint8).mul(10).expand(1, 3, SIDE, SIDE)
    found = views(image.expand(50, -1, -1, -1), **STILL, shift=1.0)
    steps = found.diff(dim=-1)
    assert found.min() >= 0 and found.max() <= 150 + 1e-3
    assert steps.min() > -1e-3 and steps.max() < 10 + 1e-3  # it stands still beyond the border, never jumps to black


# --- colours ----------------------------------------------------------------------------------------------------

JITTER = [
    ("brightness", 1, V2.adjust_brightness, lambda drawn: drawn.light[:, 0]),
    ("brightness", 3, V2.adjust_brightness, lambda drawn: drawn.light[:, 0]),
    ("contrast", 1, V2.adjust_contrast, lambda drawn: drawn.light[:, 1]),
    ("contrast", 3, V2.adjust_contrast, lambda drawn: drawn.light[:, 1]),
    ("saturation", 3, V2.adjust_saturation, lambda drawn: drawn.more[:, 2]),
    ("hue", 3, V2.adjust_hue, lambda drawn: drawn.more[:, 3]),
]


@pytest.mark.parametrize(("key", "channels", "adjust", "draw_of"), JITTER)
@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("seed", [1, 2])
def test_colours_are_torchvisions_image_by_image(key, channels, adjust, draw_of, share, seed):
    """A hundredth of a grey level: both compute in float32, so that rounding to uint8, half a level, never comes in."""
    images = noise(64, seed, channels=channels)
    images[:, :, 0] = images[:, :1, 0]  # a row of grey, whose hue is undefined
    images[:, :, 1] = images[:, :, 1] // 128 * 255  # a row of pure colours, black and white, where channels tie
    draws = 2 * draw_of(Draws.of(64, seeded(seed))) - 1
    factors = share * draws if key == "hue" else 1 + share * draws
    found = views(images, seed, **STILL, **{key: share})
    for image, view, factor in zip(images.float(), found, factors.tolist(), strict=True):
        assert (adjust(image / 255, factor) * 255 - view).abs().max() < 1e-2


def test_colours_together_are_torchvisions_one_after_the_other():
    images, drawn = noise(16), Draws.of(16, seeded(1))
    found = views(images, **STILL, brightness=0.4, saturation=0.6, hue=0.3)
    for i, (image, view) in enumerate(zip(images.float(), found, strict=True)):
        brightness, saturation, hue = (2 * u - 1 for u in (drawn.light[i, 0], *drawn.more[i, 2:]))
        expected = V2.adjust_brightness(image / 255, 1 + 0.4 * float(brightness))
        expected = V2.adjust_saturation(expected, 1 + 0.6 * float(saturation))
        expected = V2.adjust_hue(expected, 0.3 * float(hue))
        assert (expected * 255 - view).abs().max() < 1e-2


def test_factors_of_colours_are_drawn_evenly_and_apart():
    drawn = Draws.of(3000, seeded(0))
    columns = torch.cat((drawn.light, drawn.more), dim=1).T.double().numpy()
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > 0.01
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 4 / math.sqrt(3000)


@pytest.mark.parametrize("key", ["saturation", "hue"])
def test_colours_of_grey_images_are_refused(key):
    config = AugmentConfig(**{key: 0.25})
    message = f"augment.{key} = 0.25: needs 3 channels, and these images have 1; set it to 0, or data.channels = 3"
    with pytest.raises(ConfigError) as refused:
        refuse_colours_of_grey(config, 1)
    assert str(refused.value) == message
    refuse_colours_of_grey(config, 3)
    with pytest.raises(ConfigError):
        Augment(config, SIDE)(noise(2, channels=1), seeded(0))


# --- cutout and cutmix ------------------------------------------------------------------------------------------


def holes_of(num, share, seed=0, side=SIDE):
    """Top, left, height and width of each hole, from the pixels; every hole is one full rectangle."""
    found = cutout(torch.ones(num, 3, side, side), share, seeded(seed)) == 0
    assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])
    return rectangles(found[:, 0])


def rectangles(masks):
    boxes = []
    for mask in masks:
        rows, columns = mask.any(dim=1).nonzero().squeeze(1), mask.any(dim=0).nonzero().squeeze(1)
        assert int(mask.sum()) == len(rows) * len(columns)
        boxes.append((int(rows[0]), int(columns[0]), len(rows), len(columns)) if len(rows) else (0, 0, 0, 0))
    return np.array(boxes)


def spans(side, length):
    """Where a hole of this length begins and how long it is, for each pixel as its centre: by the paper's own code."""
    low = np.clip(np.arange(side) - length // 2, 0, side)
    high = np.clip(np.arange(side) - length // 2 + length, 0, side)
    return low, high - low


@pytest.mark.parametrize(("share", "length"), [(0.5, 8), (0.25, 4), (0.3, 5), (1e-9, 1), (1.0, 16)])
@pytest.mark.parametrize("seed", [0, 1])
def test_holes_are_distributed_as_those_of_the_paper(share, length, seed):
    top, left, height, width = holes_of(4000, share, seed).T
    low, long = spans(SIDE, length)
    cells = sorted(set(zip(low.tolist(), long.tolist(), strict=True)))
    expected = [4000 / SIDE * sum(cell == span for span in zip(low, long, strict=True)) for cell in cells]
    for begin, extent in ((top, height), (left, width)):
        seen = [int(((begin == b) & (extent == e)).sum()) for b, e in cells]
        assert sum(seen) == 4000  # no other hole occurs
        if len(cells) > 1:
            assert stats.chisquare(seen, expected).pvalue > 0.001
    area = (height * width).mean()
    assert abs(area - long.mean() ** 2) < 4 * np.outer(long, long).std() / math.sqrt(4000) + 1e-9


def test_a_hole_is_zero_and_the_rest_is_left_alone():
    images = torch.randn(8, 3, SIDE, SIDE, generator=seeded(0)) + 5
    before = images.clone()
    found = cutout(images, 0.5, seeded(1))
    assert torch.equal(images, before)
    assert torch.equal(found[found != 0], images[found != 0])
    assert torch.equal(found, cutout(images, 0.5, seeded(1)))
    assert not torch.equal(found, cutout(images, 0.5, seeded(2)))
    assert len({hole.numpy().tobytes() for hole in found == 0}) > 1


def test_a_hole_shows_the_mean_of_train():
    mean = (0.2, 0.5, 0.7)
    normalise = Normalise(mean, (0.1, 0.2, 0.3), torch.device("cpu"))
    flat = torch.tensor(mean).mul(255).view(1, 3, 1, 1).expand(4, 3, SIDE, SIDE)
    torch.testing.assert_close(cutout(normalise(flat), 0.5, seeded(0)), normalise(flat), rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_of_a_label_is_the_area_pasted(alpha, seed):
    """Pixel by pixel: image i is filled with i, so a pixel tells whose it is."""
    num = 32
    images = torch.arange(num, dtype=torch.float32).view(-1, 1, 1, 1).expand(num, 3, SIDE, SIDE)
    mixed, soft = cutmix(images, torch.eye(num), alpha, seeded(seed))
    assert torch.equal(mixed[:, 0], mixed[:, 1]) and torch.equal(mixed[:, 0], mixed[:, 2])
    owners = F.one_hot(mixed[:, 0].long(), num).float().mean(dim=(1, 2))
    torch.testing.assert_close(soft, owners, rtol=0, atol=1e-6)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(num))
    rectangles(mixed[:, 0] != torch.arange(num).view(-1, 1, 1))  # one full rectangle each
    assert len(soft.amax(dim=1).unique()) > 2  # each image has a box of its own


def test_pixels_of_cutmix_stay_where_they_were():
    images = torch.randn(16, 3, SIDE, SIDE, generator=seeded(0))
    mixed, soft = cutmix(images, torch.eye(16), 1.0, seeded(3))
    for i, row in enumerate(soft):
        own, partner = i, int(torch.where(torch.arange(16) == i, 0, row).argmax())
        assert ((mixed[i] == images[own]) | (mixed[i] == images[partner])).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_boxes_of_cutmix_are_torchvisions(alpha):
    """Areas within the image against those of torchvision's v2.CutMix, which draws one box a batch."""
    side, num = 64, 1500
    pair = torch.stack((torch.zeros(1, side, side), torch.ones(1, side, side)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [float(V2CutMix(alpha=alpha, num_classes=2)(pair, torch.arange(2))[1][0, 1]) for _ in range(num)]
    images = torch.arange(num, dtype=torch.float32).view(-1, 1, 1, 1).expand(num, 1, side, side)
    mixed, _ = cutmix(images, torch.eye(num), alpha, seeded(0))
    ours = (mixed != images).float().mean(dim=(1, 2, 3)).numpy()
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01


def test_cutmix_is_a_function_of_its_draws():
    images, targets = noise(6).float(), torch.eye(6)
    one, other, third = (cutmix(images, targets, 1.0, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(one[1], third[1])
    assert torch.equal(images, noise(6).float())


# --- mixup and normalisation ------------------------------------------------------------------------------------


def test_mixup_mixes_images_and_targets_by_the_same_share_with_the_same_partner():
    images, targets = noise(6).float(), torch.eye(6)
    mixed, soft = mixup(images, targets, 0.4, seeded(0))
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))
    expected = torch.einsum("ij,jchw->ichw", soft, images)  # a row of targets says whom it was mixed of
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-3)
    assert (soft > 0).sum(dim=1).max() == 2


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_share_of_mixup_is_beta(alpha):
    shares = []
    for seed in range(800):
        _, soft = mixup(torch.zeros(2, 1, 1, 1), torch.eye(2), alpha, seeded(seed))
        if soft[0, 1] not in (0, 1):  # each got the other as its partner
            shares.append(float(soft[0, 0]))
    assert len(shares) > 300
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_mixup_is_a_function_of_its_draws():
    images, targets = noise(6).float(), torch.eye(6)
    one, other, third = (mixup(images, targets, 1.0, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(one[1], third[1])


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.25,)), ((0.1, 0.5, 0.9), (0.2, 0.3, 0.4))])
def test_normalise_is_torchvisions(mean, std):
    images = noise(5, channels=len(mean))
    expected = TF.normalize(images.float() / 255, list(mean), list(std))
    normalise = Normalise(mean, std, torch.device("cpu"))
    torch.testing.assert_close(normalise(images), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalise(images.float()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_views_on_cuda_are_those_on_the_cpu():
    images = noise(16, side=64)
    for config in (ALL, {"vertical_flip": True, "quarter_turns": True}, STILL):
        on_cpu, on_cuda = (views(images.to(device), image_size=SIDE, **config) for device in ("cpu", "cuda"))
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=0, atol=1e-2)
