"""Each mistake that is made where a model is used makes the comparison with the recorded predictions fail.

The comparison is the one by which the suite holds `predict`: the same class and |dp| <= 1e-5 for every val image.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgcls.data import decode, preprocessing
from imgcls.data.preprocessing import Preprocessing
from tests.inference.test_predictions import (
    test_the_run_s_val_files_get_their_recorded_predictions as val_files_get_their_recorded_predictions,
)

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def ignore_exif(patch):
    patch.setattr(ImageOps, "exif_transpose", lambda image, **_: image)


def squash(patch):
    patch.setattr(decode, "_centred_square", lambda image: (0, 0, *image.size))


def no_antialias(patch):
    """As `torch.nn.functional.interpolate` does by default: four pixels for each, however much is shrunk."""
    patch.setattr(
        decode, "_resized", lambda image, size, box: image.transform(size, Image.Transform.EXTENT, box, Image.BILINEAR)
    )


def crop_before_resize(patch):
    def crop_and_resize(image, size, box):
        left, top, right, bottom = (int(end) for end in box)
        return image.crop((left, top, right, bottom)).resize(size, Image.Resampling.BILINEAR)

    patch.setattr(decode, "_resized", crop_and_resize)


def resize_before_crop(patch):
    """As the transforms of ImageNet do: the shorter side to 8/7 of the input's, then a crop."""

    def resize_and_crop(image, size, _):
        return ImageOps.fit(ImageOps.scale(image, size[0] * 8 / 7 / min(image.size), Image.BILINEAR), size)

    patch.setattr(decode, "_resized", resize_and_crop)


def blue_first(patch):
    to_square = preprocessing.to_square
    patch.setattr(preprocessing, "to_square", lambda *arguments: np.ascontiguousarray(to_square(*arguments)[::-1]))


def changed_preprocessing(**changes):
    def change(patch):
        from_plain = Preprocessing.from_plain
        patch.setattr(Preprocessing, "from_plain", lambda plain: replace(from_plain(plain), **changes))

    return change


TRAPS = {
    "EXIF ignored": ignore_exif,
    "squashed": squash,
    "no antialias": no_antialias,
    "cropped before it is resized": crop_before_resize,
    "resized before it is cropped": resize_before_crop,
    "BGR": blue_first,
    "ImageNet's mean": changed_preprocessing(mean=IMAGENET["mean"]),
    "ImageNet's deviation": changed_preprocessing(std=IMAGENET["std"]),
    "levels of 0 to 255": changed_preprocessing(
        mean=tuple(1 / 255 for _ in range(3)), std=tuple(1 / 255 for _ in "rgb")
    ),
    "by way of a larger side": changed_preprocessing(decode_side=23),
    "another fit": changed_preprocessing(fit="pad"),
}
"""What goes wrong -> how it is put in."""


def compare(shop, patch):
    val_files_get_their_recorded_predictions(shop, patch, raw=True, kind="prob", batch=64)


@pytest.mark.parametrize("put_in", TRAPS.values(), ids=TRAPS)
def test_a_trap_is_found(shop, monkeypatch, put_in):
    put_in(monkeypatch)
    with pytest.raises(AssertionError):
        compare(shop, monkeypatch)


def test_without_a_trap_nothing_is_found(shop, monkeypatch):
    compare(shop, monkeypatch)
