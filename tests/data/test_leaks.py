"""Planted leaks of every kind are found, said and stopped on; and what only looks like one is not."""

import json
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgcls.data import leaks
from imgcls.data.image_set import HashedImages, Hashes
from imgcls.data.leaks import Leaks, Near, Spanning, find_leaks, near_duplicates_csv
from imgcls.data.sketches import sketches
from imgcls.errors import DataError
from tests.data.make import load, noise, picture, write, write_class

SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path):
    """Given splits that share nothing."""
    for start, split in ((0, "train"), (100, "val"), (200, "test")):
        for label, kind in enumerate(("cat", "dog")):
            write_class(tmp_path / split / kind, range(start + 10 * label, start + 10 * label + 4))
    return tmp_path


def refusal(root, **settings):
    with pytest.raises(DataError) as caught:
        load(root, **settings)
    return str(caught.value)


# --- planted in files -------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_leaks(root, caplog):
    found = load(root).leaks
    assert found == Leaks({"train": 8, "val": 8, "test": 8}) and found.summary == "" and found.num_leaked == 0
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("first", "second", "summary"),
    [
        ("train", "test", "1 of 9 test images stand in train or val, pixel by pixel"),
        ("val", "test", "1 of 9 test images stand in train or val, pixel by pixel"),
        ("train", "val", "1 of 9 val images stand in train, pixel by pixel"),
    ],
)
def test_an_image_in_two_splits_stops_the_run_whatever_its_file_format(root, first, second, summary):
    write(root / first / "cat" / "one.bmp", noise(999))
    write(root / second / "dog" / "other.png", noise(999), compress_level=1)
    message = refusal(root)
    assert message.split("\n")[:2] == [
        f"splits leak: {summary} (paths in {root}):",
        f"  {first} {first}/cat/one.bmp = {second} {second}/dog/other.png",
    ]
    assert all(remedy in message for remedy in ("remove them", "carve the splits itself", "data.allow_leaks = true"))


def test_every_pair_is_named(root):
    for seed in range(30):
        write(root / "train" / "cat" / f"in train {seed}.png", noise(1000 + seed))
        write(root / "test" / "cat" / f"in test {seed}.png", noise(1000 + seed))
    write(root / "test" / "dog" / "once more.png", noise(1000))
    message = refusal(root)
    assert "31 of 39 test images" in message
    for seed in range(1, 30):
        assert f"  train train/cat/in train {seed}.png = test test/cat/in test {seed}.png\n" in message
    assert "train/cat/in train 0.png = test test/cat/in test 0.png, test/dog/once more.png\n" in message


def test_allowed_leaks_are_said_and_the_run_goes_on(root, caplog):
    write(root / "test" / "cat" / "copy.bmp", noise(0))
    write(root / "test" / "cat" / "copy of the copy.bmp", noise(0))
    write(root / "val" / "cat" / "copy.bmp", noise(0))
    dataset = load(root, allow_leaks=True)
    assert dataset.leaks.num_leaked == 2
    assert dataset.leaks.summary == (
        "2 of 10 test images stand in train or val, pixel by pixel; 1 of 9 val images stand in train, pixel by pixel"
    )
    assert f"data.allow_leaks: {dataset.leaks.summary}" in caplog.text
    assert "train train/cat/0000.png = val val/cat/copy.bmp" in caplog.text


def test_a_split_carved_here_keeps_copies_together_and_goes_on(tmp_path):
    write_class(tmp_path / "train" / "cat", range(12))
    write_class(tmp_path / "train" / "dog", range(20, 32))
    for seed in (*range(12), *range(20, 32)):
        write(tmp_path / "train" / ("cat" if seed < 12 else "dog") / f"copy of {seed}.bmp", noise(seed))
    assert load(tmp_path, val_fraction=0.3).leaks.summary == ""


def test_near_duplicates_stop_nothing_and_are_named(root, caplog):
    write(root / "train" / "cat" / "one.png", picture(0))
    write(root / "val" / "cat" / "saved again.jpg", picture(0), quality=90)
    write(root / "test" / "dog" / "darker.png", (picture(0) * 0.95).astype(np.uint8))
    dataset = load(root)
    assert dataset.leaks.summary == "" and dataset.leaks.num_leaked == 0 and dataset.leaks.num_near_leaked == 2
    assert dataset.leaks.near == (
        Near(("train", "val"), (("train/cat/one.png", "val/cat/saved again.jpg"),)),
        Near(("train", "test"), (("train/cat/one.png", "test/dog/darker.png"),)),
        Near(("val", "test"), (("val/cat/saved again.jpg", "test/dog/darker.png"),)),
    )
    assert "1 pair of train and val images looks alike" in caplog.text
    assert "train/cat/one.png ~ test/dog/darker.png" in caplog.text
    assert near_duplicates_csv(dataset.leaks).splitlines() == [
        "split,image,other_split,other_image",
        "train,train/cat/one.png,val,val/cat/saved again.jpg",
        "train,train/cat/one.png,test,test/dog/darker.png",
        "val,val/cat/saved again.jpg,test,test/dog/darker.png",
    ]


def test_a_test_split_of_encoded_copies_is_counted_whole(root):
    for split, suffix in (("train", "png"), ("test", "jpg")):
        for label, kind in enumerate(("cat", "dog")):
            for seed in range(20 * label, 20 * label + 20):
                write(root / split / kind / f"photo{seed}.{suffix}", picture(seed))
    found = load(root).leaks
    assert (found.num_leaked, found.num_near_leaked) == (0, 40)


def test_flat_images_are_near_to_none_and_counted_as_not_compared(root):
    for level, split in enumerate(SPLITS):
        for copy in range(3):
            write(root / split / "cat" / f"{copy}.png", np.full((20 + copy, 30, 3), 50 + level, np.uint8))
    found = load(root).leaks
    assert found.near == () and found.num_near_leaked == 0 and found.num_not_compared == 6
    assert replace(found, num_not_compared=sum(found.num_images[split] for split in SPLITS[1:])).num_near_leaked is None


@pytest.mark.parametrize("split", SPLITS)
def test_copies_in_a_split_that_disagree_on_their_class_are_listed(root, caplog, split):
    first = {"train": "0002", "val": "0102", "test": "0202"}[split]
    write(root / split / "dog" / "mistake.bmp", noise(int(first)))
    dataset = load(root)
    assert dataset.leaks.conflicts == {split: ((f"{split}/cat/{first}.png (cat)", f"{split}/dog/mistake.bmp (dog)"),)}
    assert f"identical {split} images have different classes; imgcls has one label an image, so keep" in caplog.text
    assert f"  {split}/cat/{first}.png (cat) = {split}/dog/mistake.bmp (dog)" in caplog.text


@pytest.mark.parametrize("split", SPLITS)
def test_copies_in_a_split_that_look_alike_and_disagree_on_their_class_are_listed(root, caplog, split):
    write(root / split / "cat" / "one.png", picture(0))
    write(root / split / "dog" / "mirrored.jpg", picture(0)[:, ::-1], quality=90)
    write(root / split / "cat" / "saved again.jpg", picture(0), quality=80)
    leaks = load(root).leaks
    (found,) = leaks.disagreeing
    names = ("cat/one.png", "cat/saved again.jpg", "dog/mirrored.jpg")
    one, again, dog = (f"{split}/{name}" for name in names)
    assert found.split == split and leaks.num_near_leaked == 0
    assert {frozenset(pair) for pair in found.pairs} == {frozenset((one, dog)), frozenset((again, dog))}
    assert all(sorted(classes) == ["cat", "dog"] for classes in found.classes)
    assert f"2 pairs of {split} images look alike, but the two have different classes" in caplog.text
    assert f"{dog} (dog)" in caplog.text
    rows = [row.split(",") for row in near_duplicates_csv(leaks).splitlines()[1:]]
    assert [(one, other) for _, one, _, other in rows] == list(found.pairs)
    assert {(first, second) for first, _, second, _ in rows} == {(split, split)}


# --- groups -----------------------------------------------------------------------------------------------------


def test_a_group_across_given_splits_stops_the_run(root):
    for start, split, num in ((1000, "train", 3), (2000, "test", 2)):
        for i in range(num):
            write(root / split / "cat" / f"patient7_{i}.png", noise(start + i))
    message = refusal(root, groups=r"(patient\d+|\d{4})")
    assert "splits leak: 1 group spans splits" in message and "  group patient7: 3 in train, 2 in test\n" in message
    allowed = load(root, groups=r"(patient\d+|\d{4})", allow_leaks=True)
    assert allowed.leaks.spanning == (Spanning("patient7", {"train": 3, "test": 2}),)
    assert allowed.leaks.summary == "1 group spans splits" and allowed.leaks.num_leaked == 0


def test_groups_of_a_file_are_searched_too(root, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "groups.csv"
    keys = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    shared = {"train/cat/0000.png": "a", "val/dog/0110.png": "a", "train/dog/0010.png": "b", "test/cat/0200.png": "b"}
    table.write_text("group,image\n" + "".join(f"{shared.get(key, key)},{key}\n" for key in keys))
    message = refusal(root, groups=str(table))
    assert "2 groups span splits" in message
    assert "group a: 1 in train, 1 in val\n" in message and "group b: 1 in train, 1 in test\n" in message


# --- splits without files -----------------------------------------------------------------------------------------


def hashed(keys, labels, digests, sketches, groups=()):
    hashes = Hashes.zeros(len(keys))._replace(digests=digests, sketches=sketches)
    return HashedImages(keys, labels, hashes, groups=groups)


def split_of(rows):
    """A split of (content, label) rows; equal contents are equal pixels, and look like nothing else."""
    digests = np.array([np.random.default_rng(content).integers(0, 256, 32, np.uint8) for content, _ in rows])
    thumbnails = np.stack([np.random.default_rng(content).normal(0, 50, (32, 32)) for content, _ in rows])
    return hashed(
        tuple(f"image {i}" for i in range(len(rows))),
        np.array([label for _, label in rows], np.int64),
        digests.reshape(-1, 32),
        sketches(thumbnails.astype(np.float32), np.full(len(rows), 100)),
    )


def searched(**splits):
    """Findings that are not kept, so that hypothesis leaves no hundreds of files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks.cache_folder, "remember", lambda _, make: make())
        return find_leaks(splits, ("cat", "dog"))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(draws=st.data())
@pytest.mark.slow
def test_the_search_finds_what_comparing_everything_finds(draws):
    row = st.tuples(st.integers(0, 12), st.integers(0, 1))
    rows = {split: draws.draw(st.lists(row, min_size=1, max_size=12)) for split in SPLITS}
    found = searched(**{split: split_of(of_split) for split, of_split in rows.items()})
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        pairs = list(product(enumerate(rows[first]), enumerate(rows[second])))
        named = {
            (int(i.split()[1]), int(j.split()[1]))
            for leak in found.identical
            if leak.splits == (first, second)
            for i, j in product(leak.first, leak.second)
        }
        assert named == {(i, j) for (i, one), (j, other) in pairs if one[0] == other[0]}
    known = {content for split in ("train", "val") for content, _ in rows[split]}
    assert found.num_leaked == sum(content in known for content, _ in rows["test"])
    assert found.near == () and found.num_near_leaked == 0 and found.disagreeing == ()
    for split in SPLITS:
        labels = Counter(content for content, _ in set(rows[split]))
        assert len(found.conflicts.get(split, ())) == sum(num > 1 for num in labels.values())


# --- searched once ----------------------------------------------------------------------------------------------


def test_findings_are_kept_for_later_runs(root, cache_folder, monkeypatch):
    write(root / "train" / "cat" / "one.png", picture(0))
    write(root / "val" / "cat" / "saved again.jpg", picture(0), quality=90)
    write(root / "test" / "cat" / "copy.bmp", noise(0))
    before = load(root, allow_leaks=True).leaks
    (kept,) = cache_folder.glob("leaks-*.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["identical"][0]["second"] == ["test/cat/copy.bmp"]

    def refuse(*_):
        raise AssertionError("searched again")

    monkeypatch.setattr(leaks, "_search", refuse)
    assert load(root, allow_leaks=True, mean=(0.5,) * 3).leaks == before
    assert "copy.bmp" in refusal(root)
    (root / "test" / "cat" / "copy.bmp").rename(root / "test" / "cat" / "renamed.bmp")
    with pytest.raises(AssertionError, match="searched again"):
        load(root, allow_leaks=True)


@pytest.mark.parametrize(
    "change",
    [
        {"keys": ("a", "c")},
        {"labels": np.array([0, 0])},
        {"sketches": np.ones((2, 272), np.uint8)},
        {"groups": ("g", "g")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_kept_findings_are_of_exactly_these_images(cache_folder, change):
    settings = {
        "keys": ("a", "b"),
        "labels": np.array([0, 1]),
        "sketches": np.zeros((2, 272), np.uint8),
        "groups": ("g", "h"),
        "digests": np.arange(64, dtype=np.uint8).reshape(2, 32),
    }
    for of_train in (settings, settings, settings | change):
        find_leaks({"train": hashed(**of_train), "val": hashed(**settings)}, ("cat", "dog"))
    assert len(list(cache_folder.iterdir())) == 2


def test_the_order_of_files_changes_nothing(cache_folder):
    train, val = split_of([(i % 7, i % 2) for i in range(20)]), split_of([(i, 0) for i in range(5, 15)])
    shuffled = np.random.default_rng(0).permutation(20)
    other = hashed(
        tuple(train.keys[i] for i in shuffled),
        train.labels[shuffled],
        train.digests[shuffled],
        train.sketches[shuffled],
    )
    found = [find_leaks({"train": one, "val": val}, ("cat", "dog")) for one in (train, other)]
    assert found[0] == found[1] and found[0].identical and found[0].conflicts
    assert len(list(cache_folder.iterdir())) == 1
