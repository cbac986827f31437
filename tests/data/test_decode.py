"""Image files in every mode, written with Pillow and read back, against pixels computed by hand."""

import hashlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops, PngImagePlugin, features
from torchvision.transforms import functional as TF

from imgcls.data import decode
from imgcls.data.decode import SEVERAL_FRAMES, digest, resize_squares, shrunk, to_square
from imgcls.data.decode_source import thumbnail_and_squares
from imgcls.data.image_formats import why_not
from imgcls.data.sketches import thumbnail
from imgcls.errors import UnreadableImageError, UnreadableImagesError
from tests.data.make import load, noise, picture, write, write_class

RED, HALF_RED = (255, 0, 0), (255, 127, 127)


def read_image(path):
    """Reads a file by its path and by its bytes: the same image, or the same refusal unless its name is the reason."""
    image, refused = attempt(path)
    if not path.is_file() or why_not(path):
        pass
    elif refused:
        assert str(attempt(path.read_bytes())[1]) == str(refused)
    else:
        same, _ = attempt(path.read_bytes())
        assert (same.mode, same.info) == (image.mode, image.info) and np.array_equal(
            np.asarray(same), np.asarray(image)
        )
    if refused:
        raise refused
    return image


def attempt(file):
    try:
        return decode.read_image(file), None
    except UnreadableImageError as error:
        return None, error


def pixels_of(path):
    return np.asarray(read_image(path)).tolist()


def saved(image, path, **options):
    image.save(path, **options)
    return path


def palette(*, transparent=None):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def grey16(values, dtype=np.uint16):
    return Image.fromarray(np.array([values], dtype))


def of_mode(mode, *values):
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


SIXTEEN = [0, 128, 129, 257, 32896, 65406, 65407, 65535]
EIGHT = [0, 0, 1, 1, 128, 254, 255, 255]
"""SIXTEEN / 257, rounded by hand: 128 / 257 = 0.498, 129 / 257 = 0.502, 65406 / 257 = 254.498."""


@pytest.mark.parametrize(
    ("suffix", "image", "expected"),
    [
        (".png", of_mode("L", 0, 7, 255), [[0, 7, 255]]),
        (".png", of_mode("1", 0, 255), [[0, 255]]),
        (".png", of_mode("RGB", RED, (1, 2, 3)), [[[255, 0, 0], [1, 2, 3]]]),
        (".bmp", of_mode("RGB", RED, (1, 2, 3)), [[[255, 0, 0], [1, 2, 3]]]),
        (".ppm", of_mode("RGB", RED, (1, 2, 3)), [[[255, 0, 0], [1, 2, 3]]]),
        (".pgm", of_mode("L", 0, 7, 255), [[0, 7, 255]]),
        (".png", palette(), [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]),
        (".png", palette(transparent=1), [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]),
        (".png", palette(transparent=b"\xff\xff\x00"), [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]]),
        # alpha 128: 255 * 128 / 255 + 255 * 127 / 255 = 255 in red, 0 + 127 in green and blue
        (".png", of_mode("RGBA", (255, 0, 0, 255), (9, 9, 9, 0), (255, 0, 0, 128)), [[[*RED], [255] * 3, [*HALF_RED]]]),
        (".png", of_mode("LA", (10, 255), (10, 0), (0, 128)), [[[10] * 3, [255] * 3, [127] * 3]]),
        # 255 - K = 205; 205 - 100 * 205 / 255 = 124.6
        (
            ".tif",
            of_mode("CMYK", (0, 0, 0, 0), (0, 0, 0, 255), (100, 0, 0, 50)),
            [[[255] * 3, [0] * 3, [125, 205, 205]]],
        ),
        (".png", grey16(SIXTEEN), [EIGHT]),
        (".tif", grey16(SIXTEEN), [EIGHT]),
        (".pgm", grey16(SIXTEEN), [EIGHT]),
        (".tif", grey16(SIXTEEN, np.int32), [EIGHT]),
        (".tif", grey16([0.0, 0.25, 1.0], np.float32), [[0, 64, 255]]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_becomes_grey_or_rgb_of_eight_bits(tmp_path, suffix, image, expected):
    assert pixels_of(saved(image, tmp_path / f"image{suffix}")) == expected


def test_big_endian_sixteen_bits(tmp_path):
    """A TIFF as microscopes write it: high byte first."""
    image = Image.frombytes("I;16B", (len(SIXTEEN), 1), struct.pack(f">{len(SIXTEEN)}H", *SIXTEEN))
    path = saved(image, tmp_path / "image.tif")
    assert path.read_bytes()[:2] == b"MM"
    assert pixels_of(path) == [EIGHT]


def test_sixteen_bits_of_a_dark_image_stay_dark(tmp_path):
    """Values above 255 are where Pillow's own conversion clips to white."""
    path = saved(grey16([300, 600, 1200]), tmp_path / "dark.png")
    assert pixels_of(path) == [[1, 2, 5]]


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (1, 2, 3))])
def test_a_transparent_colour_is_laid_over_white(tmp_path, mode, colour):
    opaque = 9 if mode == "L" else (9, 9, 9)
    path = saved(of_mode(mode, colour, opaque), tmp_path / "image.png", transparency=colour)
    assert pixels_of(path) == [[[255] * 3, [9] * 3]]


def test_a_cmyk_jpeg_has_its_colours(tmp_path):
    path = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "red.jpg", quality=100)
    red, green, blue = np.asarray(read_image(path))[8, 8].tolist()
    assert red > 250 and green < 5 and blue < 5


STORED_AS = {
    1: lambda shown: shown,
    2: np.fliplr,
    3: lambda shown: np.rot90(shown, 2),
    4: np.flipud,
    5: lambda shown: shown.transpose(1, 0, 2),
    6: lambda shown: np.rot90(shown, 1),  # shown by a quarter turn clockwise, so stored a quarter turn back
    7: lambda shown: np.rot90(shown, 2).transpose(1, 0, 2),
    8: lambda shown: np.rot90(shown, -1),
}
"""EXIF 2.32, tag 0x0112: how an upright image lies in the file."""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    upright = noise(orientation, (7, 5))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    path = saved(stored, tmp_path / f"image{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(np.asarray(read_image(path)), upright)


def test_a_rotated_jpeg_photograph_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((16, 32, 3), np.uint8)
    lying[:, :16] = 255  # left half: the top, once it is turned clockwise
    image = read_image(saved(Image.fromarray(lying), tmp_path / "photo.jpg", exif=exif))
    assert image.size == (16, 32)
    shown = np.asarray(image).mean(axis=(1, 2))
    assert shown[:8].min() > 250 and shown[-8:].max() < 5


def test_broken_exif_does_not_cost_the_image(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"eXIf", b"MM\x00*\x00\x00\x00\x08\x00")
    path = saved(Image.fromarray(noise(0)), tmp_path / "image.png", pnginfo=chunks)
    assert np.array_equal(np.asarray(read_image(path)), noise(0))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_file_is_unreadable(tmp_path, suffix):
    path = write(tmp_path / f"image{suffix}", noise(0, (64, 64)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImageError):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"hello", "not an image that Pillow knows"), (None, "No such file")],
)
def test_what_is_no_image_says_why(tmp_path, content, reason):
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(path)


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        ([-1, 5], np.int32, "must lie in 0 to 65535, and reach from -1 to 5;"),
        ([0, 70000], np.int32, "must lie in 0 to 65535, and reach from 0 to 70000;"),
        ([0.5, 255.0], np.float32, r"must lie in \[0, 1\]"),
        ([0.5, np.nan], np.float32, r"must lie in \[0, 1\]"),
    ],
)
def test_grey_values_of_an_unknown_range_are_refused(tmp_path, values, dtype, reason):
    path = saved(grey16(values, dtype), tmp_path / "image.tif")
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(path)


def packed(values, num_bits):
    """Values of so many bits each, one after another, the last byte filled with zeros."""
    bits = "".join(f"{value:0{num_bits}b}" for value in values)
    return int(bits.ljust(-len(bits) // 8 * -8, "0"), 2).to_bytes(-(len(bits) // -8))


INTEGERS = {8: "B", 16: "H", 32: "I"}
TYPES = {1: INTEGERS, 2: {8: "b", 16: "h", 32: "i"}, 3: {32: "f", 64: "d"}}
"""Of `struct`, by TIFF's SampleFormat and BitsPerSample."""


def grey_tiff(path, values, num_bits, *, white_is_zero=False, sample_format=1, order="<"):
    """A TIFF of one row, written by hand from the specification (TIFF 6.0, sections 2, 3 and 19)."""
    letter = TYPES[sample_format].get(num_bits)
    data = struct.pack(f"{order}{len(values)}{letter}", *values) if letter else packed(values, num_bits)
    of_four_bytes = {256: len(values), 257: 1, 273: 134, 278: 1, 279: len(data)}
    of_two = {258: num_bits, 259: 1, 262: 1 - white_is_zero, 277: 1, 339: sample_format}
    entries = {tag: struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in of_four_bytes.items()}
    entries |= {tag: struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in of_two.items()}
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    path.write_bytes((header + b"".join(entries[tag] for tag in sorted(entries))).ljust(134, b"\0") + data)
    return path


@pytest.mark.parametrize(
    ("values", "num_bits", "options", "expected"),
    [
        # 1000 / 4095 * 255 = 62.3, 2048 / 4095 * 255 = 127.5
        ([0, 1000, 2048, 4095], 12, {}, [0, 62, 128, 255]),
        ([4095, 0, 1000], 12, {}, [255, 0, 62]),
        (SIXTEEN, 16, {}, EIGHT),
        (SIXTEEN, 16, {"order": ">"}, EIGHT),
        (SIXTEEN, 16, {"white_is_zero": True}, [255, 255, 254, 254, 127, 1, 0, 0]),
        ([0.0, 0.25, 1.0], 32, {"sample_format": 3}, [0, 64, 255]),
        ([0.0, 0.25, 1.0], 32, {"sample_format": 3, "white_is_zero": True}, [255, 191, 0]),
        ([0, 10, 128, 255], 8, {"white_is_zero": True}, [255, 245, 127, 0]),
        ([0, 5, 8, 15], 4, {"white_is_zero": True}, [255, 170, 119, 0]),
        ([0, 1, 2, 3], 2, {}, [0, 85, 170, 255]),
        ([0, 1, 1, 0], 1, {"white_is_zero": True}, [255, 0, 0, 255]),
    ],
)
def test_scale_and_polarity_of_a_tiff_are_what_its_tags_say(tmp_path, values, num_bits, options, expected):
    assert pixels_of(grey_tiff(tmp_path / "image.tif", values, num_bits, **options)) == [expected]


@pytest.mark.parametrize(
    ("values", "num_bits", "options", "reason"),
    [
        ([0, 1000], 16, {"order": ">", "white_is_zero": True}, "a TIFF of a kind that Pillow cannot read"),
        ([0, 1000, 4095], 12, {"order": ">"}, "a TIFF of a kind that Pillow cannot read"),
        ([0, 500, 1023], 10, {}, "a TIFF of a kind that Pillow cannot read"),
        ([0, 500, 16383], 14, {}, "a TIFF of a kind that Pillow cannot read"),
        ([0.0, 1.0], 64, {"sample_format": 3}, "a TIFF of a kind that Pillow cannot read"),
        ([-5, 0, 32767], 16, {"sample_format": 2}, "signed values, whose black and white are not known"),
        ([0, 1000, 32767], 16, {"sample_format": 2}, "signed values, whose black and white are not known"),
        ([-5, 0, 127], 8, {"sample_format": 2}, "signed values, whose black and white are not known"),
    ],
)
def test_a_tiff_without_a_known_scale_is_refused_with_what_it_is(tmp_path, values, num_bits, options, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(grey_tiff(tmp_path / "image.tif", values, num_bits, **options))


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def grey_png(path, rows, num_bits, transparent):
    """A PNG by hand (W3C, PNG third edition, 11.2 and 11.3.2.1): grey of `num_bits`, one value transparent."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), num_bits, 0, 0, 0, 0)
    data = b"".join(b"\0" + packed(row, num_bits) for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"tRNS", struct.pack(">H", transparent))
        + png_chunk(b"IDAT", zlib.compress(data))
        + png_chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize(
    ("row", "num_bits", "transparent", "expected"),
    [
        ([0, 1, 0], 1, 0, [255, 255, 255]),
        ([0, 1, 0], 1, 1, [0, 255, 0]),
        ([0, 1, 2, 3], 2, 1, [0, 255, 170, 255]),
        ([0, 2, 15], 4, 2, [0, 255, 255]),
        ([0, 2, 34], 8, 2, [0, 255, 34]),
        ([0, 257, 300, 512], 16, 300, [0, 1, 255, 2]),
    ],
)
def test_the_transparent_value_of_a_grey_png_is_laid_over_white(tmp_path, row, num_bits, transparent, expected):
    path = grey_png(tmp_path / "image.png", [row], num_bits, transparent)
    assert pixels_of(path) == [[[level] * 3 for level in expected]]


def test_a_transparent_colour_of_sixteen_bits_is_refused(tmp_path):
    """Pillow keeps the upper 8 bits of each value, so that which pixels are meant is lost."""
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    (tmp_path / "image.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"tRNS", struct.pack(">3H", 65535, 1, 0))
        + png_chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", 65535, 0, 0)))
        + png_chunk(b"IEND", b"")
    )
    with pytest.raises(UnreadableImageError, match="a transparent colour of 16 bits"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize(
    ("suffix", "lowest", "highest"), [(".tif", 29000, 31000), (".png", 0, 4095), (".pgm", 7000, 9000)]
)
def test_values_crowded_into_a_few_levels_are_refused_with_the_remedy(tmp_path, suffix, lowest, highest):
    """As radiometric cameras write them: of 256 levels they would take 9, 16 and 9."""
    values = np.linspace(lowest, highest, 48 * 64).reshape(48, 64).astype(np.uint16)
    path = saved(Image.fromarray(values), tmp_path / f"thermal{suffix}")
    with pytest.raises(
        UnreadableImageError, match=rf"its values, {lowest} to {highest}, would become \d+ of 256 .*rescale"
    ):
        read_image(path)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (29_000, 29_001), range(6)])
def test_eight_bits_in_a_file_of_sixteen_are_no_black_image(tmp_path, values):
    path = saved(grey16(list(values)), tmp_path / "mask.png")
    with pytest.raises(UnreadableImageError, match=r"would become \d of 256 grey levels"):
        read_image(path)


def test_one_hot_pixel_does_not_hide_crowded_values(tmp_path):
    values = np.linspace(29000, 31000, 48 * 64).reshape(48, 64).astype(np.uint16)
    values[3, 4] = 65535
    with pytest.raises(UnreadableImageError, match="29000 to 65535, would become 10 of 256"):
        read_image(saved(Image.fromarray(values), tmp_path / "thermal.png"))


@pytest.mark.parametrize(("low", "high", "is_read"), [(0, 4095, False), (0, 65535, True), (7, 7, True)])
def test_colours_of_sixteen_bits_that_are_crowded_are_refused(tmp_path, low, high, is_read):
    """Written by OpenCV's way of PNG: 16 bits, RGB (Pillow cannot)."""
    row = np.linspace(low, high, 300).astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", 100, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "image.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" + row))
        + png_chunk(b"IEND", b"")
    )
    if is_read:
        assert read_image(path).size == (100, 1)
        return
    with pytest.raises(UnreadableImageError, match="colours of 16 bits would become fewer than 32 of 256 levels"):
        read_image(path)


def test_dark_and_flat_images_of_sixteen_bits_are_read(tmp_path):
    for name, values in (("flat", np.full((9, 9), 30_000)), ("few", np.tile([29_000, 30_000, 31_000], (9, 3)))):
        assert read_image(saved(Image.fromarray(values.astype(np.uint16)), tmp_path / f"{name}.png")).size == (9, 9)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif", *([".avif"] if features.check("avif") else [])])
def test_the_first_of_several_frames_is_taken_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), (level, 0, 0)) for level in (240, 120, 0)]
    several = saved(frames[0], tmp_path / f"several{suffix}", save_all=True, append_images=frames[1:])
    single = saved(frames[0], tmp_path / f"single{suffix}")
    assert [SEVERAL_FRAMES in read_image(path).info for path in (several, single)] == [True, False]
    assert abs(int(np.asarray(read_image(several))[8, 8, 0]) - 240) <= 4


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.NEF", b"II*\0", "a camera's raw file; convert it to PNG, JPEG or TIFF"),
        ("a.psd", b"8BPS", "Photoshop's format is not among the formats that are read; convert it"),
        ("a.png", b"8BPS", "Photoshop's format by its content, .*convert it"),
    ],
)
def test_images_that_cannot_be_read_say_what_they_are_and_what_helps(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(tmp_path / name)


WITHOUT_HEIF = """
import sys
from pathlib import Path
sys.modules["pillow_heif"] = None  # as where it is not installed
from imgcls.data.decode import UnreadableImageError, read_image
for name in ("a.HEIC", "a.jpg"):
    try:
        read_image(Path(sys.argv[1], name))
    except UnreadableImageError as error:
        print(error)
"""


def test_without_pillow_heif_a_photograph_of_a_telephone_is_refused_with_the_remedy(tmp_path):
    for name in ("a.HEIC", "a.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    done = subprocess.run([sys.executable, "-c", WITHOUT_HEIF, tmp_path], capture_output=True, text=True, check=True)
    by_name, by_content = done.stdout.splitlines()
    assert by_name.endswith("pip install pillow-heif")
    assert by_content.startswith("HEIF by its content") and by_content.endswith("pip install pillow-heif")


@pytest.mark.parametrize("name", ["a.HEIC", "a.jpg"])
def test_heic_is_read_with_pillow_heif(tmp_path, name):
    Image.fromarray(picture(0)).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "a.heic").rename(tmp_path / name)
    assert np.abs(thumbnail(read_image(tmp_path / name)) - thumbnail(Image.fromarray(picture(0)))).max() < 5


def test_a_decompression_bomb_is_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match="too many pixels"):
        read_image(write(tmp_path / "image.png", noise(0)))


def test_a_small_png_that_declares_a_huge_image_is_refused_before_its_pixels_are_decoded(tmp_path):
    """Its pixels are missing: who began to decode them would say so instead."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    write_class(tmp_path / "cat", [0])
    write_class(tmp_path / "dog", [1])
    (tmp_path / "dog" / "bomb.png").write_bytes(bomb)
    with pytest.raises(UnreadableImagesError) as caught:
        load(tmp_path)
    (offender,) = caught.value.offenders
    assert offender.startswith(f"{tmp_path / 'dog' / 'bomb.png'}: too many pixels: ")
    assert "2500000000 pixels" in offender and f"limit of {2 * Image.MAX_IMAGE_PIXELS} pixels" in offender


def test_a_large_photograph_is_no_bomb_and_warns_of_nothing(tmp_path):
    """In a process of its own: pytest sets the filters of warnings anew for each test."""
    program = (
        "import sys; from pathlib import Path; from PIL import Image; Image.MAX_IMAGE_PIXELS = 100\n"
        "from imgcls.data.decode import read_image; print(read_image(Path(sys.argv[1])).size)"
    )
    path = write(tmp_path / "image.png", noise(0))
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(12, 10)\n", "")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


@pytest.mark.parametrize("content", [EPS, b"\xd7\xcd\xc6\x9a" + bytes(80)], ids=["eps", "wmf"])
def test_formats_that_start_other_programs_are_no_images(tmp_path, content):
    """Pillow hands EPS to Ghostscript, and WMF to Windows."""
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match="not an image that Pillow knows"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"])
def test_what_is_in_a_file_counts_and_not_what_it_is_called(tmp_path, kind):
    Image.fromarray(noise(0)[..., 0]).save(tmp_path / "image.png", format=kind)
    assert read_image(tmp_path / "image.png").size == (12, 10)


def test_a_photograph_with_a_second_one_in_it_is_the_first(tmp_path):
    """MPO, as telephones write it into a .jpg."""
    first, second = (Image.fromarray(picture(seed)) for seed in (0, 1))
    first.save(tmp_path / "image.jpg", format="MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "image.jpg") as image:
        assert image.format == "MPO"
    assert np.abs(thumbnail(read_image(tmp_path / "image.jpg")) - thumbnail(first)).max() < 5


def test_the_digest_is_of_the_pixels_alone(tmp_path):
    grey = noise(3)[..., 0]
    copies = [
        saved(Image.fromarray(grey), tmp_path / "grey.png"),
        saved(Image.fromarray(grey), tmp_path / "grey.bmp"),
        saved(Image.fromarray(grey), tmp_path / "grey.tif", compression="tiff_lzw"),
        saved(Image.fromarray(grey).convert("RGB"), tmp_path / "colour.png", compress_level=0),
        saved(Image.fromarray(grey).convert("RGBA"), tmp_path / "alpha.png"),
    ]
    expected = hashlib.sha256(b"12x10:" + np.repeat(grey[..., None], 3, axis=2).tobytes()).digest()
    assert [digest(read_image(path)) for path in copies] == [expected] * len(copies)


@pytest.mark.parametrize(
    "size", [(1, 1), (512, 512), (513, 512), (1, 300_000), (300_000, 1), (1000, 700), (255, 258), (4000, 33)]
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_digest_is_sha_256_of_size_and_pixels(size, mode):
    image = Image.fromarray(noise(5, (size[0], size[1]))).convert(mode)
    expected = hashlib.sha256(f"{size[0]}x{size[1]}:".encode() + image.convert("RGB").tobytes())
    assert digest(image) == expected.digest()


def test_digests_tell_shapes_and_single_pixels_apart():
    flat = np.zeros((4, 6), np.uint8)
    touched = flat.copy()
    touched[3, 5] = 1
    images = [flat, flat.reshape(6, 4), flat.reshape(2, 12), touched]
    assert len({digest(Image.fromarray(image)) for image in images}) == 4


@pytest.mark.parametrize("size", [(48, 24), (24, 48), (24, 24)])
@pytest.mark.parametrize("side", [8, 12, 24, 30])
def test_squares_are_torchvisions_resize_and_centre_crop(size, side):
    image = Image.fromarray(noise(1, size))
    expected = TF.center_crop(TF.resize(image, side, TF.InterpolationMode.BILINEAR), [side, side])
    difference = to_square(image, side, 3).astype(int) - np.asarray(expected).transpose(2, 0, 1)
    assert np.abs(difference).max() <= 1  # Pillow rounds between its two passes


@pytest.mark.parametrize("size", [(48, 24), (24, 48), (24, 24), (31, 17), (1500, 700), (700, 1500), (3000, 3)])
@pytest.mark.parametrize("side", [8, 24, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_squashed_squares_are_pillows_resize_of_the_whole_image(size, side, channels):
    image = Image.fromarray(picture(1, size)).convert("L" if channels == 1 else "RGB")
    expected = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0))
    square = to_square(image, side, channels, "squash")
    assert np.array_equal(square, expected.reshape(side, side, channels).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(48, 24), (24, 48), (24, 24), (31, 17), (1500, 700), (700, 1500), (3000, 3)])
@pytest.mark.parametrize("side", [8, 24, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_padded_squares_hold_the_whole_image_between_grey_bars(size, side, channels):
    """As torchvision pads what Pillow has resized to the proportions of the image."""
    image = Image.fromarray(picture(1, size)).convert("L" if channels == 1 else "RGB")
    width, height = (max(1, int(n * side / max(size) + 0.5)) for n in size)
    left, top = (side - width) // 2, (side - height) // 2
    small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    expected = TF.pad(small, [left, top, side - width - left, side - height - top], fill=128)
    square = to_square(image, side, channels, "pad")
    assert square.shape == (channels, side, side)
    assert np.array_equal(square, np.asarray(expected).reshape(side, side, channels).transpose(2, 0, 1))
    inside = np.zeros((side, side), bool)
    inside[top : top + height, left : left + width] = True
    assert (square[:, ~inside] == 128).all()


def test_every_fit_gives_a_square_image_the_same_square():
    image = Image.fromarray(picture(1, (40, 40)))
    crop, pad, squash = (to_square(image, 12, 3, fit) for fit in ("crop", "pad", "squash"))
    assert np.array_equal(crop, pad) and np.array_equal(crop, squash)


def test_colour_becomes_grey_by_luma_and_grey_becomes_colour_by_copies():
    # ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert to_square(Image.new("RGB", (4, 4), (200, 100, 50)), 4, 1)[0, 0, 0] == 124
    grey = Image.fromarray(noise(2, (4, 4))[..., 0])
    assert np.array_equal(to_square(grey, 4, 3), np.repeat(np.asarray(grey)[None], 3, axis=0))


def test_shrinking_averages_so_that_nothing_aliases():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    inner = to_square(Image.fromarray(stripes), 16, 1)[0, :, 2:-2]
    assert inner.min() >= 127 and inner.max() <= 128


@pytest.mark.parametrize("size", [(2401, 1805), (1203, 2000), (4000, 601), (600, 599)])
@pytest.mark.parametrize("side", [8, 96, 200, 201])
def test_one_pass_over_a_large_image_gives_what_each_gives_alone(size, side):
    """The squares are those of the whole image, but for the rounding and a part of a pixel at the edge."""
    image = Image.fromarray(picture(3, size))
    small, (square,) = thumbnail_and_squares(image, (side,), 3)
    assert np.array_equal(small, thumbnail(shrunk(image))) and np.abs(small - thumbnail(image)).max() < 3
    assert np.array_equal(square, to_square(image, side, 3))
    assert min(shrunk(image).size) == min(size) // max(1, min(size) // 600)
    short = min(size)
    box = tuple((n - short) / 2 + at * short for at in (0, 1) for n in size)
    whole = image.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    difference = np.abs(square.astype(int) - np.asarray(whole).transpose(2, 0, 1))
    assert difference.max() <= 3 and difference.mean() <= 0.6, (difference.max(), difference.mean())


def test_resized_squares_are_those_of_pillow():
    images = np.stack([noise(seed, (20, 20)).transpose(2, 0, 1) for seed in range(3)])
    small = resize_squares(images, 9)
    for image, resized in zip(images, small, strict=True):
        expected = Image.fromarray(image.transpose(1, 2, 0)).resize((9, 9), Image.Resampling.BILINEAR)
        difference = ImageChops.difference(Image.fromarray(resized.transpose(1, 2, 0)), expected)
        assert difference.getbbox() is None
    assert resize_squares(images, 20) is images


def test_values_of_32_bits_without_a_sign_are_named_as_they_are(tmp_path):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([[0, -1]], np.int32)).save(path)  # -1 is 4294967295 without a sign
    signed, unsigned = (struct.pack("<HHII", 339, 3, 1, kind) for kind in (2, 1))  # TIFF's SampleFormat
    assert signed in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(signed, unsigned))
    with pytest.raises(UnreadableImageError, match=r"0 to 65535, and reach from 0 to 4\.29497e\+09"):
        read_image(path)
