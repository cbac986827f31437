"""The sealed test split: what can be known of it without a look, and what a look gives."""

import inspect
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import decode, decode_cache, decode_source
from imgcls.data.held_out import HeldOut, Look
from imgcls.errors import DataError, SealedError, UnreadableImagesError
from tests.data.make import cached_files, digests, load, noise, open_source, write, write_class

pytestmark = pytest.mark.usefixtures("cache_folder")

LOOK = Look("a run", 1, lambda: True)


@pytest.fixture
def root(tmp_path):
    for start, name in ((0, "train"), (50, "val"), (100, "test")):
        for label, kind in enumerate(("cat", "dog")):
            write_class(tmp_path / name / kind, range(start + 10 * label, start + 10 * label + 3))
    return tmp_path


def sealed(root, **options):
    source = open_source(DataConfig(source="folder", path=str(root)), root)
    settings = {"decode_side": 8, "image_size": 8, "channels": 3} | options
    return HeldOut(source.given["test"], source.class_names, **settings)


def test_hashes_tell_which_images_and_nothing_of_their_pixels(root, cache_folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("pixels were made")

    monkeypatch.setattr(decode_source, "thumbnail_and_squares", refuse)
    test = sealed(root)
    table = open_source(DataConfig(source="folder", path=str(root)), root).given["test"]
    hashes = test.hashes()
    assert {field.name for field in fields(hashes)} == {"keys", "labels", "groups", "hashes"}
    assert digests(hashes.digests) == [decode.digest(table.read(row)) for row in range(6)] and len(test) == 6
    assert not {"read", "stored", "pixels", "path"} & set(dir(hashes))
    assert hashes.sketches.shape == (6, 272) and hashes.sketches.dtype == np.uint8
    assert hashes.keys == table.keys and hashes.labels.tolist() == table.labels.tolist()
    assert len(test.fingerprint()) == 16 and test.unreadable() == []
    images = [np.load(path) for path in cached_files(cache_folder) if path.name == "images.npy"]
    assert [image.shape for image in images] == [(6, 3, 0, 0)]


def test_no_other_door_gives_pixels(root):
    """Whatever is public, but `open`, gives no array that could hold an image."""
    test = sealed(root)
    public = [name for name, _ in inspect.getmembers(test) if not name.startswith("_")]
    assert sorted(public) == ["fingerprint", "hashes", "open", "unreadable"]


@pytest.mark.parametrize(
    "look", [Look("", 1, lambda: True), Look("a run", 0, lambda: True), Look("a run", 1, lambda: False)]
)
def test_open_needs_a_look_that_was_written_down(root, monkeypatch, look):
    monkeypatch.setattr(decode_cache, "decode_and_forget", None)
    with pytest.raises(SealedError, match="stays sealed; write the look down first"):
        sealed(root).open(look)
    with pytest.raises(TypeError):
        sealed(root).open()


UNRECORDED = """
import sys
from pathlib import Path
from imgcls.config.keys import DataConfig
from imgcls.data.held_out import HeldOut, Look
from imgcls.data.sources import open_source
from imgcls.errors import SealedError
source = open_source(DataConfig(source="folder", path=sys.argv[1]), Path(sys.argv[1]))
test = HeldOut(source.given["test"], source.class_names, decode_side=8, image_size=8, channels=3)
assert False, "removed by -O"
for look in (Look("", 1, lambda: True), Look("a run", 0, lambda: True), Look("a run", 1, lambda: False)):
    try:
        test.open(look)
        print("opened")
    except SealedError as error:
        print(error)
"""


@pytest.mark.slow
def test_the_seal_holds_without_assertions(root):
    """Under `python -O`, which removes every assert."""
    command = [sys.executable, "-O", "-c", UNRECORDED, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("stays sealed") == 3 and "opened" not in done.stdout.replace("is opened", "")


def test_open_gives_the_images_in_the_order_of_their_content(root):
    images = sealed(root).open(LOOK)
    assert digests(images.digests) == sorted(digests(sealed(root).hashes().digests))
    assert images.pixels.shape == (6, 3, 8, 8) and sorted(images.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    for pixels, key in zip(images.pixels, images.keys, strict=True):
        table = open_source(DataConfig(source="folder", path=str(root)), root).given["test"]
        assert np.array_equal(pixels, decode.to_square(table.read(table.keys.index(key)), 8, 3))


def test_test_is_resized_exactly_as_val_is(tmp_path):
    """The same images as val and as test come out alike, by way of the size at which train is kept."""
    for name, seeds in (("train", (0, 1, 2)), ("val", (7, 8, 9)), ("test", (7, 8, 9))):
        for shift, kind in ((0, "cat"), (100, "dog")):
            write_class(tmp_path / name / kind, [seed + shift for seed in seeds])
    dataset = load(tmp_path, AugmentConfig(random_resized_crop=(0.3, 1.0)), allow_leaks=True)
    test = dataset.test.open(LOOK)
    assert dataset.train.stored.shape[-1] == 10
    assert np.array_equal(test.pixels, dataset.val.pixels) and np.array_equal(test.labels, dataset.val.labels)


def test_the_fingerprint_is_of_content_and_classes(root):
    before = sealed(root).fingerprint()
    for number, path in enumerate(sorted((root / "test").rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{number}.png"))
    assert sealed(root).fingerprint() == before
    assert sealed(root, decode_side=20, image_size=16, channels=1).fingerprint() == before
    moved = next((root / "test" / "cat").iterdir())
    moved.rename(root / "test" / "dog" / moved.name.replace(".", "-moved."))
    assert sealed(root).fingerprint() != before


def test_one_changed_pixel_is_another_test_split(root):
    before = sealed(root).fingerprint()
    pixels = noise(100)
    pixels[0, 0, 0] ^= 1
    write(root / "test" / "cat" / "0100.png", pixels)
    assert sealed(root).fingerprint() != before


def test_unreadable_test_images_are_refused_or_skipped(root):
    bad = root / "test" / "dog" / "0111.png"
    bad.write_bytes(b"")
    for door in (HeldOut.hashes, HeldOut.fingerprint, len, lambda test: test.open(LOOK)):
        with pytest.raises(UnreadableImagesError) as caught:
            door(sealed(root))
        assert caught.value.offenders == [f"{bad}: empty file"]
    test = sealed(root, skip_unreadable=True)
    assert len(test) == len(test.open(LOOK)) == 5
    table = open_source(DataConfig(source="folder", path=str(root)), root).given["test"]
    assert test.hashes().keys == tuple(key for key in table.keys if key != "test/dog/0111.png")
    assert test.unreadable() == [f"{bad}: empty file"]


def test_test_images_are_hashed_once(root, cache_folder):
    test = sealed(root)
    before = test.fingerprint()
    for folder in (root, cache_folder):
        shutil.rmtree(folder)
    assert test.fingerprint() == before and len(test) == len(test.hashes()) == 6


def test_images_that_change_between_seal_and_look_are_refused(root):
    test = sealed(root, skip_unreadable=True)
    assert len(test) == 6
    (root / "test" / "dog" / "0111.png").write_bytes(b"")
    with pytest.raises(DataError, match="changed while the program ran"):
        test.open(LOOK)
