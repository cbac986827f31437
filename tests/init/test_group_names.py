"""Names that suggest groups, and names that do not."""

import re

import pytest

from imgcls.init.group_names import suggested_groups


def keys_of(pattern, groups, counters, classes=("cat", "dog")):
    names = [pattern.format(group=group, counter=counter) for group in groups for counter in counters]
    return [f"{classes[at % len(classes)]}/{name}" for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("keys", "num_groups", "of_first"),
    [
        (keys_of("patient{group:03}_{counter:02}.jpg", range(1, 9), range(4)), 8, "patient001"),
        (keys_of("IMG_{group}_burst{counter}.JPG", range(2041, 2049), range(3)), 8, "IMG_2041"),
        (keys_of("scan {group} slice {counter}.png", range(1, 7), range(5)), 6, "scan 1"),
        (keys_of("subject-{group}/{counter}.png", range(10, 17), range(4)), 7, "subject-10"),
        (keys_of("anna{group}/{counter}.png", range(8), ("x", "y", "z")), 8, "anna0"),
    ],
)
def test_names_of_patients_and_bursts_suggest_their_groups(keys, num_groups, of_first):
    found = suggested_groups(keys, [key.startswith("dog") for key in keys], num_folders=1)
    assert found is not None
    assert (found.num_groups, re.search(found.expression, keys[0])[1]) == (num_groups, of_first)
    assert len(found.expression) < 60
    assert all(re.search(found.expression, key) for key in keys)


@pytest.mark.parametrize(
    "keys",
    [
        [f"{kind}/{kind}_{number:03}.jpg" for kind in ("cat", "dog") for number in range(30)],
        [f"{digit}/{digit}_{number}.png" for digit in range(10) for number in range(20)],
        [f"cat/cell{number:04}.png" for number in range(50)],
        [f"cat/{name}.jpg" for name in ("d116fe9a-a72b-49e2", "c399e385-258a-465c", "a762dfc0-8da7-46d4")],
        [f"cat/IMG_{number}.jpg" for number in range(2041, 2080)],
        ["cat/a.jpg", "dog/b.jpg"],
    ],
    ids=["counter of a class", "label and counter", "counter", "uuid", "camera", "letters"],
)
def test_other_names_suggest_none(keys):
    classes = sorted({key.split("/")[0] for key in keys})
    assert suggested_groups(keys, [classes.index(key.split("/")[0]) for key in keys], num_folders=1) is None


@pytest.mark.parametrize(
    "pattern", ["{}.jpg", "IMG_{:04}.jpg", "photo-{}.png", "{}_small.jpg"], ids=["bare", "camera", "words", "ending"]
)
@pytest.mark.parametrize("splits", [(), ("train", "val")])
def test_a_counter_that_begins_anew_in_every_class_names_no_groups(pattern, splits):
    names = [f"class{kind:03}/{pattern.format(number)}" for kind in range(12) for number in range(10)]
    keys = [f"{split}/{name}" for split in splits for name in names] or names
    labels = [int(key.rpartition("/")[0][-3:]) for key in keys]
    assert suggested_groups(keys, labels, num_folders=1 + bool(splits)) is None


def test_patients_may_have_images_of_several_classes():
    keys = [f"{kind}/patient{number:02}.png" for kind in ("ill", "well") for number in range(9)]
    found = suggested_groups(keys, [key.startswith("well") for key in keys], num_folders=1)
    assert found is not None
    assert (found.num_groups, found.largest) == (9, 2)


@pytest.mark.parametrize("pattern", ["patient{group:03}_{counter:02}.jpg", "IMG_{group}_of{counter}.JPG"])
@pytest.mark.parametrize(("num_others", "is_asked"), [(1, True), (4, True), (9, False)])
def test_a_few_names_without_a_group_are_groups_of_their_own(pattern, num_others, is_asked):
    others = [f"cat/cover {letter}.jpg" for letter in "abcdefghi"[:num_others]]
    keys = [*keys_of(pattern, range(10), range(4)), *others]
    found = suggested_groups(keys, [key.startswith("dog") for key in keys], num_folders=1)
    assert (found is not None) == is_asked
    if found:
        assert (found.num_groups, found.num_alone) == (10, num_others)
        assert len(found.expression) < 95
        names = [re.search(found.expression, key)[1] for key in keys]
        assert names[-num_others:] == others
        assert len(set(names)) == 10 + num_others
