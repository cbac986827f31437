"""What predictions are asked of is found, named and decoded as the images of a run are."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from imgcls.data import decode_workers
from imgcls.data.decode import digest, read_image, to_square
from imgcls.data.sketches import sketches, thumbnail
from imgcls.errors import InputError, UnreadableImageError
from imgcls.inference.inputs import decoded, from_shell, given
from tests.data.make import noise, picture, write


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working folder with images and other files in `photos`."""
    for name in ("b/2.png", "b/10.jpg", "a.png", ".hidden/x.png", "b/.y.png", "deep/er/c.png", "odd[1].png", "*.png"):
        write(tmp_path / "photos" / name, noise(len(name)))
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


EVERY = ["*.png", "a.png", "b/10.jpg", "b/2.png", "broken.png", "deep/er/c.png", "odd[1].png"]
EVERY = [f"photos/{name}" for name in EVERY]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["photos"], EVERY),
        (["photos/"], EVERY),
        (["photos/a.png"], ["photos/a.png"]),
        (["photos/a.png", "photos/a.png"], ["photos/a.png", "photos/a.png"]),
        (["photos/deep", "photos/a.png"], ["photos/deep/er/c.png", "photos/a.png"]),
        (["photos/odd[1].png"], ["photos/odd[1].png"]),
        (["photos/*.png"], ["photos/*.png"]),  # there is a file that is called so
        (["photos/b/*"], ["photos/b/10.jpg", "photos/b/2.png"]),
        (["photos/[bd]*"], ["photos/b/10.jpg", "photos/b/2.png", "photos/broken.png", "photos/deep/er/c.png"]),
        (["photos/**/*.png"], [name for name in EVERY if name.endswith(".png")]),
        (["photos/**"], EVERY),
        (["photos/?.png"], ["photos/*.png", "photos/a.png"]),
        (["./photos/a.png"], ["./photos/a.png"]),
        (["photos/notes.txt"], ["photos/notes.txt"]),  # named as it is, it has to be tried
    ],
)
@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("by", ["arguments", "lines", "lines of Windows", "find -print0", "a program"])
def test_files_folders_and_globs_give_images_in_a_stable_order(paths, names, by):
    ends = {"lines": "\n", "lines of Windows": "\r\n", "find -print0": "\0"}
    if by == "a program":
        assert list(given(paths).names) == names
    elif by == "arguments":
        assert list(from_shell(paths, io.BytesIO()).names) == names
    else:
        content = "".join(path + ends[by] for path in paths).encode()
        assert list(from_shell(["-"], io.BytesIO(content)).names) == names


@pytest.mark.usefixtures("photos")
def test_what_is_left_out_is_counted():
    assert from_shell(["photos"], io.BytesIO()).ignored == {".txt": 1, "hidden": 2}
    assert from_shell(["photos/*.txt", "photos/a.png"], io.BytesIO()).ignored == {".txt": 1}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["photos/a.png", "photo/a.png"], "photo/a.png; did you mean photos/a.png?"),
        (["photos/b/2.pgn"], "photos/b/2.pgn; did you mean photos/b/2.png?"),
        (["photos/b/2.png/x.png"], "has no x.png"),
        (["elsewhere"], "has no elsewhere"),
        (["link.png"], "link.png, a link to nothing.png, which does not exist"),
        (["photos/notes*"], "no image in photos/notes*; left out: 1 .txt"),
        (["photos/*.gif"], "no such file or folder:\n  photos/*.gif, which nothing matches"),
        (["photos/*.gif", "photos"], "photos/*.gif, which nothing matches"),
        (["empty"], "no image in empty"),
        (["-"], "no path was given"),
        (["a\0b"], "not a path"),
        (["x" * 300], "File name too long"),
    ],
)
def test_what_names_no_image_is_one_error_that_names_the_nearest(photos, paths, message):
    (photos.parent / "empty").mkdir()
    (photos.parent / "link.png").symlink_to("nothing.png")
    with pytest.raises(InputError) as error:
        from_shell(paths, io.BytesIO())
    assert message in str(error.value)


def test_a_name_that_is_not_utf8_is_spelt_out(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \xc3\xa9.png")
    Image.fromarray(noise(1)).save(os.fsencode(path))
    for inputs in (given(path), given(tmp_path), from_shell(["-"], io.BytesIO(os.fsencode(path) + b"\n"))):
        assert inputs.names == (f"{tmp_path}/caf\\xe9 é.png",)
        assert np.array_equal(np.asarray(inputs.read(0)), noise(1))


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def turned(pixels):
    """An image of Pillow that EXIF says lies on its side."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6
    return image


@pytest.mark.parametrize(
    ("images", "names", "pixels"),
    [
        (noise(0), ["0"], [noise(0)]),
        (noise(0)[..., 0], ["0"], [noise(0)[..., 0]]),
        (np.stack([noise(0), noise(1)]), ["0", "1"], [noise(0), noise(1)]),
        ([noise(0), noise(1)[..., 0]], ["0", "1"], [noise(0), noise(1)[..., 0]]),
        (Image.fromarray(noise(0)), ["0"], [noise(0)]),
        (Image.fromarray(noise(0)).convert("CMYK"), ["0"], [noise(0)]),
        (turned(noise(0)), ["0"], [np.rot90(noise(0), -1)]),
        (png(noise(0)), ["0"], [noise(0)]),
        (bytearray(png(noise(0))), ["0"], [noise(0)]),
        ([memoryview(png(noise(0))), bytearray(png(noise(1)))], ["0", "1"], [noise(0), noise(1)]),
        (noise(0)[..., :1], ["0"], [noise(0)[..., 0]]),
        (np.stack([noise(0), noise(1)])[..., :1], ["0", "1"], [noise(0)[..., 0], noise(1)[..., 0]]),
        (["one.png", png(noise(1)), "one.png"], ["one.png", "1", "one.png"], [noise(0), noise(1), noise(0)]),
        ([np.stack([noise(1), noise(2)]), noise(3)], ["0", "1", "2"], [noise(1), noise(2), noise(3)]),
        ((name for name in ["one.png"]), ["one.png"], [noise(0)]),
    ],
)
def test_a_program_gives_images_of_any_kind(tmp_path, monkeypatch, images, names, pixels):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "one.png", noise(0))
    inputs = given(images)
    assert list(inputs.names) == names
    for row, image in enumerate(pixels):
        assert np.array_equal(np.asarray(inputs.read(row)), image)


def test_an_image_of_pillow_whose_file_is_not_loaded_yet_is_read_as_its_file_would_be(tmp_path):
    """Loading it forgets that 0 is white here, or what its transparent colour is."""
    Image.fromarray(noise(0)[..., 0]).save(tmp_path / "white.tif", tiffinfo={262: 0})
    Image.fromarray(noise(0)).save(tmp_path / "clear.png", transparency=tuple(noise(0)[0, 0].tolist()))
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            assert digest(given([image, image]).read(1)) == digest(read_image(path))
    with Image.open(tmp_path / "clear.png") as image:
        broken = Image.fromarray(np.full((4, 4), np.nan, np.float32))
        inputs = given([broken, image])
    with pytest.raises(UnreadableImageError, match="0 x 7 pixels"):
        given(Image.new("RGB", (0, 7))).read(0)
    with pytest.raises(UnreadableImageError, match="float grey values"):
        inputs.read(0)
    assert inputs.read(1).mode == "RGB"


def test_an_image_that_was_given_is_left_as_it_was():
    image = turned(noise(0))
    given(image).read(0)
    assert np.array_equal(np.asarray(image), noise(0)) and image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (noise(0).astype(np.float32) / 255, "float32"),
        (noise(0).transpose(2, 0, 1), "(3, 10, 12)"),
        (np.zeros((4, 5, 6, 2), np.uint8), "(4, 5, 6, 2)"),
        (np.zeros((4, 5, 4), np.uint8), "(4, 5, 4)"),
        (np.zeros((0, 5, 6, 3), np.uint8), "(0, 5, 6, 3)"),
        (np.zeros(5, np.uint8), "(5,)"),
        ([], "no image was given"),
        ([3], "int is not an image"),
        (3, "int is not an image"),
        (None, "NoneType is not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_its_kind(images, message):
    with pytest.raises(InputError) as error:
        given(images)
    assert message in str(error.value)


WHO = {"nobody else": (100.0, 1.0), "threads": (100.0, 0.0), "processes": (1e-9, 0.0)}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_gives_squares_and_hashes_in_order_and_collects_what_is_unreadable(
    tmp_path, monkeypatch, who, channels
):
    for name, seconds in zip(("WORTH_PROCESSES", "WORTH_THREADS"), WHO[who], strict=True):
        monkeypatch.setattr(decode_workers, name, seconds)
    monkeypatch.setattr(decode_workers, "cores", lambda: 2)
    paths = [write(tmp_path / f"{seed}.png", picture(seed, (40 + seed, 30))) for seed in range(40)]
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    pieces = list(decoded(given(paths), lambda image: to_square(image, 8, channels), (channels, 8, 8)))
    assert 2 < len(pieces) < 40
    assert [row for piece in pieces for row in piece.rows] == [row for row in range(40) if row != 7]
    ((row, reason),) = [one for piece in pieces for one in piece.unreadable]
    assert row == 7 and reason
    for piece in pieces:
        assert piece.squares.dtype == np.uint8
        for at, row in enumerate(piece.rows):
            image = read_image(paths[row])
            assert np.array_equal(piece.squares[at], to_square(image, 8, channels))
            assert piece.hashes.digests[at].tobytes() == digest(image)
            own = sketches(thumbnail(image)[None], np.array([min(image.size)]))[0]
            assert np.array_equal(piece.hashes.sketches[at], own)


def test_a_mapping_is_not_taken_for_its_keys():
    with pytest.raises(InputError, match="a mapping is not a sequence of images"):
        given({"a.jpg": 1})
