"""Views of whole batches against torch's and torchvision's own flips, turns, crops and distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_sample_image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as TF

from imgcls.config import AugmentConfig
from imgcls.data.augment import Augment, Normalise, mixup
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
    return Augment(AugmentConfig(**config), SIDE).affine_maps(num, seeded(seed))


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
    maps = augment.affine_maps(32, seeded(4))
    found = augment(images, seeded(4))
    centre = torch.arange(32) - 15.5
    inside = centre[:, None] ** 2 + centre**2 < 15**2  # beyond it, torchvision fills with black
    for image, view, matrix in zip(images.float(), found, maps, strict=True):
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        assert abs(angle) <= rotation
        expected = TF.rotate(image, angle, TF.InterpolationMode.BILINEAR)
        assert (view - expected)[:, inside].abs().max() < 1e-2


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


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.6, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_crops_are_distributed_as_torchvisions(scale, seed):
    side = 4000
    reference = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        canvas = torch.empty(1, 1, 1).expand(1, side, side)  # its size alone is asked for
        for _ in range(2000):
            _, _, height, width = RandomResizedCrop.get_params(canvas, list(scale), [3 / 4, 4 / 3])
            reference.append((width * height / side**2, width / height))
    area, aspect = np.array(reference).T
    ours = crops_of(maps_of(2000, seed, **STILL, random_resized_crop=scale))
    assert stats.ks_2samp(ours[0], area).pvalue > 0.01
    assert stats.ks_2samp(ours[1], aspect).pvalue > 0.01
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
    maps, found = augment.affine_maps(20, seeded(seed)), augment(image, seeded(seed))
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
    "random_resized_crop": (0.3, 1.0), "vertical_flip": True, "quarter_turns": True, "rotation": 10.0,
    "brightness": 0.3, "contrast": 0.3,
}  # fmt: skip


def test_views_are_a_function_of_seed_epoch_and_step():
    images, augment = noise(8), Augment(AugmentConfig(**ALL), SIDE)
    again = [augment(images, generator(3, 4, 5, "augment")) for _ in range(2)]
    assert torch.equal(*again)
    others = [augment(images, generator(*where, "augment")) for where in ((2, 4, 5), (3, 5, 5), (3, 4, 6))]
    assert not any(torch.equal(again[0], other) for other in others)


def test_each_image_has_draws_of_its_own():
    same = noise(1).expand(16, -1, -1, -1)
    found = views(same, **ALL)
    assert len({view.numpy().tobytes() for view in found}) == 16


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
