"""The squares of the exported graph against those that Pillow makes: every level of every pixel."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.data.decode import resize_squares, to_square
from imgcls.inference.export import traced, write_file
from imgcls.inference.exported_model import onnx_session
from imgcls.inference.resize import Squares

SIZES = [
    (64, 64), (1, 1), (3, 5), (5, 3), (1, 50), (50, 1),  # as it is, enlarged
    (17, 40), (40, 17), (31, 32), (65, 63), (63, 65), (91, 37), (37, 91),  # also shrunk along one side alone
    (96, 96), (300, 200), (200, 300), (301, 199), (3, 400), (400, 3),
]  # fmt: skip
"""Width and height."""

LARGE = [
    (383, 380), (384, 385), (385, 384), (387, 1000), (1000, 500), (400, 399),  # about six times
    (1301, 1201), (700, 2003), (2000, 3001), (1234, 5), (5, 1234),  # averaged once or twice before
]  # fmt: skip


def noise(width, height, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def as_pillow(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def assert_pillows_levels(squares, sizes, given):
    for width, height in sizes:
        images = noise(width, height, given)
        made = squares(torch.from_numpy(images)[None])[0]
        assert made.dtype == torch.float32
        expected = to_square(as_pillow(images), squares.side, squares.channels, squares.fit)
        assert np.array_equal(made.numpy(), expected), f"{width} x {height}"


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize(("channels", "given"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_squares_have_pillows_levels(fit, channels, given):
    assert_pillows_levels(Squares(channels, 64, fit), SIZES, given)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_large_images_are_averaged_in_blocks_as_pillow_does(fit):
    assert_pillows_levels(Squares(3, 64, fit), LARGE[:-2], 1)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize(("channels", "given"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_squares_beyond_the_side_that_is_averaged_once_more(fit, channels, given):
    for side in (64, 208):
        assert_pillows_levels(Squares(channels, side, fit), SIZES + LARGE, given)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_squares_of_format_1_are_resized_twice(fit):
    squares = Squares(3, 43, fit, final_side=32)
    for width, height in SIZES:
        images = noise(width, height, 3)
        expected = resize_squares(to_square(as_pillow(images), 43, 3, fit)[None], 32)
        assert np.array_equal(squares(torch.from_numpy(images)[None]).numpy(), expected), f"{width} x {height}"


@pytest.mark.parametrize(("side", "final_side"), [(32, 32), (43, 32)])
def test_a_finished_square_passes_unchanged(side, final_side):
    images = noise(final_side, final_side, 3)
    made = Squares(3, side, "crop", final_side)(torch.from_numpy(images)[None])[0]
    assert np.array_equal(made.permute(1, 2, 0).numpy(), images)


@pytest.mark.parametrize("given", [2, 4])
def test_images_of_other_channels_are_refused(given):
    with pytest.raises((IndexError, RuntimeError), match=r"bound|range"):
        Squares(3, 32, "crop")(torch.from_numpy(noise(40, 30, given))[None])


# --- exported ---------------------------------------------------------------------------------------------------------

EXPORTED_SIZES = [
    (48, 48), (1, 1), (3, 5), (50, 30), (17, 90), (49, 47), (120, 33), (200, 300), (289, 290), (301, 5), (700, 1003),
]  # fmt: skip


class PreprocessingAlone(torch.nn.Module):
    """The preprocessing of an exported model, and nothing behind it."""

    def __init__(self, channels, side, fit, final_side):
        super().__init__()
        self.squares = Squares(channels, side, fit, final_side)

    def forward(self, images):
        return self.squares(images)


EXPORTED = {
    "crop": (3, 48, "crop", 48),
    "squash, grey": (1, 48, "squash", 48),
    "pad, format 1": (3, 64, "pad", 48),
}
"""Channels, side, fit and final side: each of them once, for an export takes ten seconds."""


@pytest.mark.slow
@pytest.mark.parametrize("how", EXPORTED)
def test_exported_preprocessing_has_pillows_levels_under_onnxruntime(how, tmp_path):
    channels, side, fit, final_side = EXPORTED[how]
    write_file(traced(PreprocessingAlone(*EXPORTED[how]).eval()), tmp_path / "squares.onnx", {})
    session = onnx_session(tmp_path / "squares.onnx")
    for (width, height), given in itertools.product(EXPORTED_SIZES, (1, 3)):
        images = noise(width, height, given)
        expected = to_square(as_pillow(images), side, channels, fit)[None]
        if final_side != side:
            is_square = (width, height) == (final_side, final_side)
            expected = resize_squares(expected, final_side)
            if is_square:
                expected = np.broadcast_to(images.transpose(2, 0, 1)[None], expected.shape)
        (made,) = session.run(None, {"images": images[None]})
        assert np.array_equal(made, expected), f"{width} x {height} x {given}"
