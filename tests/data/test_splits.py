"""Carved by content: the same everywhere, stratified, and test out of every seed's reach."""

import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import decode_cache
from imgcls.data.decode import resize_squares, to_square
from imgcls.data.held_out import Look
from imgcls.data.splits import SQUARES_FORMAT, carve, load_dataset, pixel_statistics, what_is_cut
from imgcls.data.train_side import decode_side
from imgcls.errors import ConfigError, DataError, UnreadableImagesError
from imgcls.project import Project
from tests.data.make import (
    NO_CROP,
    cached_files,
    decoded_images,
    digests,
    load,
    noise,
    picture,
    write,
    write_class,
    write_classes,
)

LOOK = Look("a run", 1, lambda: True)


def splits_of(dataset):
    """split -> {(class, digest), …}, which names neither files nor order."""
    opened = {"train": dataset.train, "val": dataset.val, "test": dataset.test.open(LOOK)}
    return {
        split: Counter(zip((dataset.class_names[i] for i in images.labels), digests(images.digests), strict=True))
        for split, images in opened.items()
    }


def class_counts(images, num_classes):
    return np.bincount(images.labels, minlength=num_classes).tolist()


@pytest.fixture
def pets(tmp_path):
    """10 cats, 7 dogs, 3 eels."""
    return write_classes(tmp_path / "pets", {"cat": 10, "dog": 7, "eel": 3})


# --- carving ----------------------------------------------------------------------------------------------------


def test_carved_splits_are_stratified_by_largest_remainders(pets):
    dataset = load(pets)
    # A quarter of 10, 7, 3 is 2.5, 1.75, 0.75: 5 in all, and the two largest remainders are of dog and eel.
    assert class_counts(dataset.test.open(LOOK), 3) == [2, 2, 1]
    # 0.15 of 8, 5, 2 is 1.2, 0.75, 0.3: 2 in all.
    assert class_counts(dataset.val, 3) == [1, 1, 0]
    assert class_counts(dataset.train, 3) == [7, 4, 2]
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == 20


def test_every_image_is_in_one_split(pets):
    splits = splits_of(load(pets))
    together = sum(splits.values(), Counter())
    assert len(together) == 20 and set(together.values()) == {1}


def test_renamed_and_moved_files_change_nothing(pets, tmp_path):
    before = load(pets)
    splits = splits_of(before)
    for number, path in enumerate(sorted(pets.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed {number:03d}.png"))
    pets.rename(tmp_path / "elsewhere")
    after = load(tmp_path / "elsewhere")
    assert splits_of(after) == splits
    assert after.fingerprint == before.fingerprint and after.test.fingerprint() == before.test.fingerprint()
    for split in ("train", "val"):
        one, other = getattr(before, split), getattr(after, split)
        assert np.array_equal(one.pixels, other.pixels) and np.array_equal(one.labels, other.labels)
        assert one.keys != other.keys


def test_the_order_of_the_file_system_changes_nothing(pets, cache_folder, monkeypatch):
    before = load(pets)
    walk, iterdir = os.walk, Path.iterdir

    def backwards(*args, **kwargs):
        for parent, folders, files in walk(*args, **kwargs):
            folders.reverse()
            files.reverse()
            yield parent, folders, files

    monkeypatch.setattr(os, "walk", backwards)
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(iterdir(self))))
    shutil.rmtree(cache_folder)
    after = load(pets)
    assert after.class_names == before.class_names
    assert after.train.keys == before.train.keys and after.val.keys == before.val.keys
    assert after.fingerprint == before.fingerprint and after.test.fingerprint() == before.test.fingerprint()


def test_another_file_format_changes_nothing(pets):
    before = load(pets)
    for path in sorted(pets.rglob("*.png"))[::2]:
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    after = load(pets)
    assert after.fingerprint == before.fingerprint and after.test.fingerprint() == before.test.fingerprint()


def test_data_seed_moves_val_and_never_test(tmp_path):
    root = write_classes(tmp_path, {"cat": 20, "dog": 20})
    found = [load(root, seed=seed) for seed in range(4)]
    splits = [splits_of(dataset) for dataset in found]
    assert all(one["test"] == splits[0]["test"] for one in splits)
    assert len({frozenset(one["val"]) for one in splits}) == 4
    assert len({dataset.test.fingerprint() for dataset in found}) == 1
    assert len({dataset.fingerprint for dataset in found}) == 4
    for one in splits:
        assert one["train"] + one["val"] == splits[0]["train"] + splits[0]["val"]


@pytest.mark.parametrize("change", [{"image_size": 16}, {"channels": 1}, {"val_fraction": 0.3}, {"mean": (0.5,) * 3}])
def test_nothing_but_test_fraction_moves_test(pets, change):
    before, after = load(pets), load(pets, **change)
    assert before.test.fingerprint() == after.test.fingerprint()


def test_a_larger_test_fraction_adds_to_test(tmp_path):
    root = write_classes(tmp_path, {"cat": 16, "dog": 8})
    tests = [splits_of(load(root, test_fraction=fraction))["test"] for fraction in (0.125, 0.25, 0.5)]
    assert tests[0] < tests[1] < tests[2]
    assert [sum(test.values()) for test in tests] == [3, 6, 12]


def test_test_fraction_zero_means_no_test(pets):
    dataset = load(pets, test_fraction=0.0)
    assert dataset.origins == {"val": "carved from train by content, 15%"}
    assert dataset.test is None
    assert len(dataset.train) + len(dataset.val) == 20


def test_equal_images_stay_together_whatever_they_are_called(tmp_path):
    write_classes(tmp_path, {"cat": 12, "dog": 12})
    for seed in range(0, 24, 2):  # every other image stands here three times: twice in its class, once in the other's
        own, other = ("cat", "dog") if seed < 12 else ("dog", "cat")
        write(tmp_path / own / f"copy of {seed}.bmp", noise(seed))
        write(tmp_path / other / f"{seed} by mistake.tif", noise(seed))
    for seed in range(3):
        dataset = load(tmp_path, seed=seed)
        splits = {split: {digest for _, digest in members} for split, members in splits_of(dataset).items()}
        assert not splits["train"] & splits["val"]
        assert not (splits["train"] | splits["val"]) & splits["test"]
        assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 48
        assert dataset.leaks.identical == () and dataset.leaks.num_leaked == 0


def test_rows_stand_in_the_order_of_their_content(pets):
    dataset = load(pets)
    for images in (dataset.train, dataset.val, dataset.test.open(LOOK)):
        assert digests(images.digests) == sorted(digests(images.digests))


def test_pixels_labels_keys_and_digests_belong_together(pets):
    dataset = load(pets)
    for images in (dataset.train, dataset.val, dataset.test.open(LOOK)):
        for pixels, label, key in zip(images.pixels, images.labels, images.keys, strict=True):
            assert key.startswith(dataset.class_names[label])
            upright = Image.open(pets / key).resize((8, 8), Image.Resampling.BILINEAR, box=(1, 0, 11, 10))
            assert np.array_equal(pixels, np.asarray(upright).transpose(2, 0, 1))


def test_no_class_gives_its_last_image(tmp_path):
    """Six classes of two and four of one: rounding alone would take the only image of some."""
    sizes = {f"pair {i}": 2 for i in range(6)} | {f"single {i}": 1 for i in range(4)}
    dataset = load(write_classes(tmp_path, sizes), val_fraction=0.2, test_fraction=0.2)
    assert set(dataset.train.labels.tolist()) == set(range(10))
    assert (len(dataset.test), len(dataset.val)) == (3, 3)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=40),
    fraction=st.floats(0.0, 0.9),
    shuffle=st.randoms(use_true_random=False),
)
def test_carving_is_a_function_of_content(rows, fraction, shuffle):
    """Whatever the rows: their order does not matter, equal pixels stay together, and no class is overdrawn."""

    def chosen(rows):
        contents = np.array([np.random.default_rng(i).integers(0, 256, 32, np.uint8) for i, _ in rows])
        labels = np.array([label for _, label in rows])
        return Counter(row for row, taken in zip(rows, carve(contents, labels, fraction, "salt"), strict=True) if taken)

    taken = chosen(rows)
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert chosen(shuffled) == taken
    contents = {content for content, _ in taken}
    assert {row for row in rows if row[0] in contents} == set(taken)
    if len({content for content, _ in rows}) == len(rows):
        sizes = Counter(label for _, label in rows)
        for label, size in sizes.items():
            num_taken = sum(1 for _, other in taken if other == label)
            assert size * fraction - 1 < num_taken < size * fraction + 1 and num_taken < size
        assert len(taken) <= np.floor(fraction * len(rows) + 0.5)


def test_another_salt_another_choice():
    contents = np.random.default_rng(0).integers(0, 256, (200, 32), np.uint8)
    labels = np.arange(200) % 2
    one, other = (carve(contents, labels, 0.25, salt) for salt in ("test", "val 0"))
    assert one.sum() == other.sum() == 50
    assert 5 <= (one & other).sum() <= 20  # 12.5 expected of two choices that know nothing of each other


# --- splits that the source brings ------------------------------------------------------------------------------


def test_given_splits_are_kept_and_no_fraction_touches_them(tmp_path):
    for start, (name, size) in enumerate((("train", 6), ("valid", 4), ("test", 5))):
        for label, kind in enumerate(("cat", "dog")):
            write_class(tmp_path / name / kind, range(1000 * start + 100 * label, 1000 * start + 100 * label + size))
    dataset = load(tmp_path, val_fraction=0.5, test_fraction=0.5)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [12, 8, 10]
    assert all(key.startswith("valid/") for key in dataset.val.keys)
    assert all(key.startswith("test/") for key in dataset.test.open(LOOK).keys)


def test_a_missing_val_is_carved_out_of_train(tmp_path):
    write_classes(tmp_path / "train", {"cat": 20, "dog": 20})
    write_class(tmp_path / "test" / "cat", [500, 501])
    dataset = load(tmp_path)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [34, 6, 2]
    assert all(key.startswith("train/") for key in dataset.val.keys)
    assert class_counts(dataset.val, 2) == [3, 3]


def test_a_missing_test_stays_missing(tmp_path):
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_class(tmp_path / "val" / "cat", [500, 501])
    dataset = load(tmp_path, test_fraction=0.5)
    assert dataset.test is None
    assert [len(dataset.train), len(dataset.val)] == [8, 2]


# --- solar cells ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solar_cells():
    config = DataConfig(source="elpv", image_size=16)
    return [load_dataset(config.model_copy(update={"seed": seed}), NO_CROP, Project(Path("/"))) for seed in (0, 1)]


@pytest.mark.slow
def test_solar_cells_are_split_as_published(solar_cells):
    # 821 of 2,624 are defective: a quarter is 205.25 of 656, then 0.15 of the other 616 is 92.4 of 295.
    assert class_counts(solar_cells[0].test.open(LOOK), 2) == [451, 205]
    for dataset in solar_cells:
        assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [1673, 295, 656]
        assert class_counts(dataset.val, 2) == [203, 92]
        assert class_counts(dataset.train, 2) == [1149, 524]


@pytest.mark.slow
def test_the_test_split_of_solar_cells_is_this_one_for_good(solar_cells):
    """PNG is decoded alike everywhere, so this fingerprint holds on every machine; published scores rest on it."""
    one, other = solar_cells
    assert one.test.fingerprint() == other.test.fingerprint() == "73b64fddfcaeff45"
    assert one.fingerprint != other.fingerprint


# --- what cannot be used ----------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Three splits, in each an image that cannot be read; returns the root and those images."""
    for start, name in enumerate(("train", "val", "test")):
        for label, kind in enumerate(("cat", "dog")):
            write_class(tmp_path / name / kind, range(100 * start + 10 * label, 100 * start + 10 * label + 4))
    bad = [tmp_path / "train" / "cat" / "bad.png", tmp_path / "val" / "dog" / "bad.jpg", tmp_path / "test/cat/0200.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(b"no image")
    bad[2].write_bytes(bad[2].read_bytes()[:60])
    return tmp_path, bad


def test_one_error_lists_every_unreadable_image_with_its_path(damaged):
    root, bad = damaged
    with pytest.raises(UnreadableImagesError) as caught:
        load(root)
    assert [offender.split(": ")[0] for offender in caught.value.offenders] == [str(path) for path in bad]
    assert "3 unreadable images" in str(caught.value) and "data.skip_unreadable = true" in str(caught.value)
    assert f"{bad[0]}: empty file" in str(caught.value)
    assert str(UnreadableImagesError([f"{bad[1]}: no image"])).startswith("1 unreadable image: 1 .jpg\n")


def test_skipped_images_are_left_out_said_and_counted_in_every_split(damaged, caplog):
    root, bad = damaged
    with caplog.at_level(logging.WARNING):
        dataset = load(root, skip_unreadable=True)
    assert dataset.num_skipped == 3
    assert all(str(path) in caplog.text for path in bad) and "left out 3 unreadable images" in caplog.text
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [8, 8, 7]


def test_skipping_moves_nothing_else(pets):
    """A file that cannot be read has no content, so the others are split as if it were not there."""
    before = load(pets)
    (pets / "cat" / "aaa.png").write_bytes(b"")
    (pets / "eel" / "zzz.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError) as caught:
        load(pets)
    assert len(caught.value.offenders) == 2
    after = load(pets, skip_unreadable=True)
    assert after.num_skipped == 2 and splits_of(after) == splits_of(before)


def test_unreadable_images_are_named_before_splits_that_they_leave_empty(tmp_path):
    paths = write_class(tmp_path / "cat", range(3)) + write_class(tmp_path / "dog", range(3, 6))
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(UnreadableImagesError) as caught:
        load(tmp_path)
    assert len(caught.value.offenders) == 6
    with pytest.raises(DataError, match="train is left without a readable image"):
        load(tmp_path, skip_unreadable=True)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_given_split_without_a_readable_image_is_refused(damaged, split):
    root, _ = damaged
    for path in (root / split).rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{split} is left without a readable image"):
        load(root, skip_unreadable=True)


def test_a_class_whose_every_image_is_skipped_is_named(tmp_path):
    write_classes(tmp_path / "train", {"cat": 4, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 1})
    for path in (tmp_path / "train" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="train has no image of: dog"):
        load(tmp_path, skip_unreadable=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 0.0}, r"data\.val_fraction = 0, but"),
        ({"val_fraction": 0.001}, r"data\.val_fraction = 0\.001 of 15 images leaves val empty"),
        ({"test_fraction": 0.001}, r"test is left .*raise data\.test_fraction = 0\.001, or let 0 mean no test"),
        ({"mean": (0.5,)}, r"data\.mean has 1 values for 3 channels"),
        ({"std": (0.5, 0.5), "channels": 1}, r"data\.std has 2 values for 1 channels"),
    ],
)
def test_impossible_settings_say_what_would_be_right(pets, settings, message):
    with pytest.raises(DataError, match=message):
        load(pets, **settings)


def test_one_class_is_not_enough(tmp_path):
    with pytest.raises(DataError, match="only one class"):
        load(write_classes(tmp_path, {"cat": 8}))


# --- sizes, channels, normalisation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_size", "crop", "native_side", "expected"),
    [
        (64, (1.0, 1.0), None, 64),
        (64, (0.25, 1.0), None, 128),  # a quarter of the area is half of the side
        (64, (0.6, 1.0), 300, 83),
        (64, (0.08, 1.0), 100, 100),
        (64, (0.25, 1.0), 28, 64),
        (28, (0.25, 1.0), 28, 28),
    ],
)
def test_images_are_kept_as_large_as_the_smallest_crop_needs(image_size, crop, native_side, expected):
    assert decode_side(image_size, AugmentConfig(random_resized_crop=crop), native_side) == expected


def test_train_has_room_for_crops_and_val_is_what_the_model_sees(pets):
    dataset = load(pets, AugmentConfig(random_resized_crop=(0.8, 1.0)))
    assert dataset.train.pixels.shape[1:] == (3, 9, 9)
    assert dataset.val.pixels.shape[1:] == dataset.test.open(LOOK).pixels.shape[1:] == (3, 8, 8)


AUGMENTATIONS = {
    "no crop": {},
    "a quarter": {"random_resized_crop": (0.25, 1.0)},
    "tiny": {"random_resized_crop": (0.01, 0.5), "aspect_ratio": (0.5, 2.0)},
    "the rest": {"rotation": 20.0, "shift": 0.2, "cutout": 0.5, "mixup": 0.4, "brightness": 0.3, "vertical_flip": True},
}


@pytest.fixture(params=["carved", "given val", "given both"])
def photos(tmp_path, request):
    """A folder of images that are not square, with or without splits of its own."""
    splits = {"carved": [""], "given val": ["train", "val"], "given both": ["train", "val", "test"]}[request.param]
    for number, split in enumerate(splits):
        for label, kind in enumerate(("cat", "dog")):
            for i in range(12):
                pixels = picture(1000 * number + 100 * label + i, (60, 45) if i % 2 else (40, 66))
                write(tmp_path / "photos" / split / kind / f"{i:02d}.png", pixels)
    return tmp_path / "photos"


@pytest.mark.parametrize(("fit", "budget"), [("crop", "1GB"), ("crop", "0"), ("pad", "0"), ("squash", "1GB")])
def test_what_val_and_test_see_depends_on_the_data_table_alone(photos, fit, budget, monkeypatch):
    """Straight from the source, whatever train's crops are, and whether or not the cache has room."""
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", budget)
    loaded = {name: load(photos, AugmentConfig(**keys), fit=fit) for name, keys in AUGMENTATIONS.items()}
    sides = {name: dataset.train.pixels.shape[-1] for name, dataset in loaded.items()}
    own_side = 45 if fit == "crop" else 66  # of 45 x 60 and 66 x 40 pixels; the crop alone would ask for 80
    assert sides == {"no crop": 8, "a quarter": 16, "tiny": own_side, "the rest": 8}
    first = loaded["no crop"]
    seen = [first.val] if first.test is None else [first.val, first.test.open(LOOK)]
    for images in (*seen, first.train):
        assert len(images) > 0
        for key, square in zip(images.keys, images.pixels, strict=True):
            found = next(path for path in photos.rglob("*.png") if str(path).endswith(key) and path.is_file())
            with Image.open(found) as image:
                assert np.array_equal(square, to_square(image, 8, 3, fit)), key
    for name, dataset in loaded.items():
        others = [dataset.val] if dataset.test is None else [dataset.val, dataset.test.open(LOOK)]
        for images, other in zip(seen, others, strict=True):
            assert images.keys == other.keys and np.array_equal(images.pixels, other.pixels), name
        assert (dataset.mean, dataset.std, dataset.fingerprint) == (first.mean, first.std, first.fingerprint), name
        assert dataset.squares == (SQUARES_FORMAT if name == "tiny" else 2)


@pytest.mark.parametrize("folds", [0, 3])
def test_train_is_kept_as_large_as_its_largest_image_and_earlier_versions_kept_it_larger(photos, folds):
    """By the headers of readable files, whichever of them holds the largest; what val sees is the same."""
    keys = {"augment": AugmentConfig(random_resized_crop=(0.01, 1.0)), "folds": folds, "skip_unreadable": True}
    first = next(path for path in sorted(photos.rglob("*.png")) if "test" not in path.parts)
    first.with_name("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    now = load(photos, **keys)
    before = load_dataset(
        DataConfig(source="folder", path=str(photos), image_size=8, folds=folds, skip_unreadable=True),
        keys["augment"], Project(Path("/")), squares=2,
    )  # fmt: skip
    assert (now.train.stored.shape[-1], now.squares) == (45, 3)
    assert (before.train.stored.shape[-1], before.squares) == (80, 2)
    assert now.fingerprint == before.fingerprint and np.array_equal(now.val.pixels, before.val.pixels)
    found = next(path for path in photos.rglob("*.png") if path.as_posix().endswith(now.train.keys[0]))
    with Image.open(found) as image:
        assert np.array_equal(now.train.pixels[0], to_square(image, 45, 3))
    write(first.with_name("larger.png"), picture(7, (62, 300)))
    assert load(photos, **keys).train.stored.shape[-1] == 62


def test_format_1_makes_val_and_test_of_the_squares_that_train_is_kept_in(photos):
    """As earlier versions did, whose runs are judged and repeated with these."""
    dataset = load_dataset(
        DataConfig(source="folder", path=str(photos), image_size=8),
        AugmentConfig(random_resized_crop=(0.25, 1.0)),
        Project(Path("/")),
        squares=1,
    )
    assert dataset.squares == 1 and dataset.train.pixels.shape[-1] == 16
    for images in [dataset.val] if dataset.test is None else [dataset.val, dataset.test.open(LOOK)]:
        for key, square in zip(images.keys, images.pixels, strict=True):
            found = next(path for path in photos.rglob("*.png") if str(path).endswith(key))
            with Image.open(found) as image:
                assert np.array_equal(square, resize_squares(to_square(image, 16, 3)[None], 8)[0]), key


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            {(60, 45): 20},
            '20 of 20 images are far from square, and data.fit = "crop" cuts 25% off the typical one of them',
        ),
        ({(45, 60): 20}, '20 of 20 images are far from square, and data.fit = "crop" cuts 25% off'),
        (
            {(100, 50): 2, (50, 100): 1, (40, 40): 17},
            '3 of 20 images are far from square, and data.fit = "crop" cuts 50% off the typical one',
        ),
        ({(40, 40): 20}, ""),
        ({(40, 39): 20}, ""),
        ({(100, 50): 1, (40, 40): 19}, ""),
    ],
)
def test_what_the_centre_crop_takes_away_is_said(sizes, said):
    listed = np.array([size for size, count in sizes.items() for _ in range(count)], np.int32)
    words = what_is_cut(listed)
    assert said in words and bool(words) == bool(said)
    assert not words or words.endswith('; data.fit = "pad" or "squash" keeps all of it')


@pytest.mark.parametrize(("fit", "is_said"), [("crop", True), ("pad", False), ("squash", False)])
def test_only_who_crops_is_told(photos, fit, is_said):
    assert ('data.fit = "crop" cuts' in load(photos, fit=fit).cut) == is_said


@pytest.mark.parametrize(("channels", "expected"), [("auto", 3), (1, 1), (3, 3)])
def test_channels_are_as_asked(pets, channels, expected):
    dataset = load(pets, channels=channels)
    assert dataset.channels == len(dataset.mean) == len(dataset.std) == expected
    assert dataset.val.pixels.shape[1] == dataset.test.open(LOOK).pixels.shape[1] == expected


@pytest.mark.parametrize("key", ["saturation", "hue"])
def test_colours_of_grey_images_are_refused_before_any_is_decoded(pets, key, monkeypatch):
    augment = AugmentConfig(**{key: 0.3})
    assert load(pets, augment).channels == 3
    monkeypatch.setattr("imgcls.data.decode_cache.decode_sides", None)
    with pytest.raises(ConfigError, match=rf"augment\.{key} = 0\.3: needs 3 channels"):
        load(pets, augment, channels=1)


def test_mean_and_std_are_those_of_train_alone(tmp_path):
    for name, scale in (("train", 0.25), ("val", 1), ("test", 1)):
        for label, kind in enumerate(("cat", "dog")):
            for seed in range(3):
                pixels = noise(100 * len(name) + 10 * label + seed, (8, 8))
                write(tmp_path / name / kind / f"{seed}.png", (pixels * scale).astype(np.uint8))
    dataset = load(tmp_path)
    expected = dataset.train.pixels.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, expected.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, expected.std(axis=(0, 2, 3)), rtol=1e-12)
    assert max(dataset.mean) < 0.15  # val and test are four times as bright


def test_mean_and_std_of_the_file_are_used(pets):
    dataset = load(pets, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert dataset.mean == (0.1, 0.2, 0.3) and dataset.std == (0.4, 0.5, 0.6)


def test_a_channel_without_contrast_is_centred_and_not_scaled():
    pixels = np.full((5, 1, 4, 4), 51, np.uint8)
    images = decoded_images(pixels, np.zeros(5, np.int64))
    assert pixel_statistics(images) == ((0.2,), (1.0,))


def test_statistics_do_not_depend_on_chunks(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 6, 6), np.uint8)
    images = decoded_images(pixels, np.zeros(50, np.int64))
    whole = pixel_statistics(images)
    monkeypatch.setattr("imgcls.data.image_set.CHUNK_BYTES", 1000)
    assert len(list(images.chunks())) == 6
    assert pixel_statistics(images) == whole


def test_images_take_another_size_in_chunks_and_out_of_memory(monkeypatch, cache_folder):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 6, 6), np.uint8)
    images = decoded_images(pixels, np.zeros(50, np.int64))
    expected = resize_squares(pixels, 4)
    monkeypatch.setattr("imgcls.data.image_set.CHUNK_BYTES", 1000)
    small = decode_cache.resized(images.rows([*range(49, -1, -1)]), 4)
    assert isinstance(small.stored, np.memmap) and np.array_equal(small.pixels, expected[::-1])
    assert cached_files(cache_folder) == []
    assert decode_cache.resized(images, 6) is images
