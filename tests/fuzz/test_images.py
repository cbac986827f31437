"""The image reader, and all that is computed of an image: pixels, or an UnreadableImageError."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from imgcls.data.decode import digest, read_image, to_square
from imgcls.data.sketches import thumbnail
from imgcls.errors import UnreadableImageError
from imgcls.text import printable
from tests.data.make import noise, picture
from tests.fuzz.profiles import EDIT, FUZZ, damaged, edited, no_hang_no_warning


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


COLOUR, GREY = Image.fromarray(picture(0, (20, 14))), Image.fromarray(noise(1, (9, 7))[..., 0])
DEEP = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 1000)
FLOAT = Image.fromarray(np.linspace(0, 1, 63, dtype=np.float32).reshape(7, 9))
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "a description"
REAL = [
    *(saved(image, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM") for image in (COLOUR, GREY)),
    *(
        saved(image, "TIFF", compression=name)
        for image in (COLOUR, GREY)
        for name in ("tiff_lzw", "jpeg", "tiff_deflate")
    ),
    *(saved(COLOUR, kind, exif=EXIF) for kind in ("JPEG", "PNG", "WEBP", "TIFF")),
    *(saved(image, kind) for kind in ("PNG", "TIFF") for image in (DEEP, COLOUR.convert("RGBA"), COLOUR.convert("P"))),
    saved(GREY.convert("1"), "PNG"),
    saved(GREY.convert("1"), "TIFF", compression="group4"),
    saved(COLOUR.convert("CMYK"), "JPEG"),
    saved(COLOUR.convert("CMYK"), "TIFF"),
    saved(FLOAT, "TIFF"),
    saved(COLOUR, "JPEG", progressive=True),
    saved(COLOUR, "WEBP", lossless=True),
    saved(COLOUR.convert("P"), "GIF", save_all=True, append_images=[GREY.convert("P")], transparency=3),
    saved(COLOUR.convert("P"), "PNG", transparency=bytes(range(64))),
    saved(COLOUR, "MPO", save_all=True, append_images=[GREY]),
]
"""Small images in all that Pillow writes of the formats that are read."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("images") / "image.png"


def check(path, content):
    path.write_bytes(content)
    with no_hang_no_warning():
        try:
            image = read_image(path)
        except UnreadableImageError as error:
            image = str(error)
        if isinstance(image, str):
            assert image
            printable(image).encode()
            return
        assert image.mode in ("L", "RGB")
        assert len(digest(image)) == 32
        assert np.isfinite(thumbnail(image)).all()
        assert to_square(image, 8, 1).shape == (1, 8, 8)
        assert to_square(image, 8, 3).shape == (3, 8, 8)


def test_the_originals_are_images(path):
    for content in REAL:
        path.write_bytes(content)
        read_image(path)
    assert len(set(REAL)) == len(REAL)


@FUZZ
@given(
    st.binary(max_size=400)
    | st.builds(bytes.__add__, st.sampled_from([real[:16] for real in REAL]), st.binary(max_size=400))
)
@example(b"")
def test_any_bytes(path, content):
    check(path, content)


@FUZZ
@given(damaged(REAL))
def test_damaged_images(path, content):
    check(path, content)


def chunks(png):
    """(kind, content) of each chunk."""
    place = 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += 12 + length


PNGS = [[*chunks(real)] for real in REAL if real.startswith(b"\x89PNG")]


@FUZZ
@given(st.sampled_from(PNGS), st.lists(st.tuples(st.integers(0, 20), EDIT), min_size=1, max_size=4))
def test_damaged_chunks_with_right_checksums(path, png, edits):
    """What is behind the checksums, which stop nearly all of the damage above."""
    parts = list(png)
    for place, edit in edits:
        kind, content = parts[place % len(parts)]
        parts[place % len(parts)] = (kind, edited(content, [edit]))
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    check(path, b"\x89PNG\r\n\x1a\n" + b"".join(packed))
