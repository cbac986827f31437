"""Groups by pattern and by file, and splits that part none of them."""

import logging
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgcls.config.keys import DataConfig
from imgcls.data import decode_cache
from imgcls.data.groups import CLASS_TOLERANCE, SHARE_TOLERANCE, carve_groups, with_groups
from imgcls.data.held_out import Look
from imgcls.errors import DataError
from imgcls.project import Project
from tests.data.make import digests, load, noise, open_source, write


@pytest.fixture
def clinic(tmp_path):
    """40 patients of 1 to 5 images; two in three have images of both classes, and names that say nothing of content."""
    sizes = np.random.default_rng(0).integers(1, 6, 40).tolist()
    for patient, size in enumerate(sizes):
        for i in range(size):
            kind = "sick" if patient % 3 == 0 or (patient % 3 == 1 and i % 2) else "well"
            write(tmp_path / "clinic" / kind / f"p{patient:02d}_{i}.png", noise(100 * patient + i))
    return tmp_path / "clinic"


def patients(images):
    return {key.split("/")[1].split("_")[0] for key in images.keys}


def everything(root, groups, project="/"):
    config = DataConfig(source="folder", path=str(root), groups=groups)
    project = Project(root.parent if project == "/" else project)
    return with_groups(open_source(config, root), project.groups(config)).everything


def write_csv(path, rows, header="image,group"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


# --- who belongs together ---------------------------------------------------------------------------------------


def test_the_first_group_of_a_pattern_names_or_all_that_it_matches(clinic):
    by_group, by_match = everything(clinic, r"/p(\d+)_"), everything(clinic, r"p\d+")
    assert [f"p{name}" for name in by_group.groups] == list(by_match.groups)
    assert list(by_match.groups) == [key.split("/")[1].split("_")[0] for key in by_match.keys]
    assert set(everything(clinic, "^[^/]*").groups) == {"sick", "well"}
    assert everything(clinic, "").groups == ()


def test_a_file_names_groups_relative_to_the_project_and_to_the_images(clinic):
    keys = everything(clinic, "").keys
    write_csv(clinic.parent / "groups.csv", [(f"./{key}", f" {key.split('_')[0][-2:]} ") for key in reversed(keys)])
    assert list(everything(clinic, "groups.csv").groups) == [key.split("_")[0][-2:] for key in keys]


def test_rows_keep_their_group(clinic):
    dataset = load(clinic, groups=r"p\d+")
    for images in (dataset.train, dataset.val, dataset.train.rows([4, 2]), decode_cache.resized(dataset.val, 5)):
        assert list(images.groups) == [key.split("/")[1].split("_")[0] for key in images.keys]


@pytest.mark.parametrize("expression", [r"/p0\d_", r"/p0\d(x?)", r"/(?:p0\d|(p9))"])
def test_images_without_a_group_are_listed(clinic, expression):
    keys = everything(clinic, "").keys
    with pytest.raises(DataError) as caught:
        everything(clinic, expression)
    headline, *lines = str(caught.value).split("\n")
    nameless = [key for key in keys if not key.split("/")[1].startswith("p0")] if expression == r"/p0\d_" else keys
    assert headline == (
        f"data.groups = {expression!r} finds no group in {len(nameless)} of {len(keys)} paths, such as:"
    )
    assert lines == [*(f"  {key}" for key in nameless[:20]), f"  and {len(nameless) - 20} more"]


def test_everything_wrong_with_a_file_is_listed(clinic):
    keys = everything(clinic, "").keys
    rows = [(key, "g") for key in keys[3:]]
    rows += [("sick/p99_0.png", "g"), (keys[0], " "), (keys[3], "another"), (keys[4], "g")]
    path = write_csv(clinic.parent / "groups.csv", rows)
    with pytest.raises(DataError) as caught:
        everything(clinic, "groups.csv")
    line = len(keys) - 1  # of the first of the four, below the header and all images but three
    assert str(caught.value).split("\n") == [
        f"data.groups: {path} does not fit the images:",
        f"  line {line}: there is no image 'sick/p99_0.png'",
        f"  line {line + 1}: {keys[0]} has no group",
        f"  line {line + 2}: {keys[3]} is in group 'g' already",
        f"  {keys[1]} is missing",
        f"  {keys[2]} is missing",
    ]


def test_a_long_list_is_cut_and_counted(clinic):
    write_csv(clinic.parent / "groups.csv", [("none.png", "g")])
    with pytest.raises(DataError) as caught:
        everything(clinic, "groups.csv")
    num = len(everything(clinic, "").keys) + 1
    assert len(str(caught.value).split("\n")) == 22 and str(caught.value).endswith(f"  and {num - 20} more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,patient\na,b\n", "must have the columns image and group, and has 'image', 'patient'"),
        (b"image,group,age\na,b,9\n", "and has 'image', 'group', 'age'"),
        (b"", "and has none"),
        (b"image,group\nsick/a, b.png,g\n", "line 2: 3 values for 2 columns"),
        (b"image,group\n\xff,g\n", "is not a CSV file in UTF-8"),
        (b'image,group\n"a"b,g\n', "is not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_of_groups_is_refused(clinic, content, message):
    (clinic.parent / "groups.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        everything(clinic, "groups.csv")


def test_a_file_that_is_not_there_is_named(clinic):
    with pytest.raises(DataError, match=r"data\.groups: .*missing\.csv: No such file"):
        everything(clinic, "missing.csv")


def test_a_file_of_a_spreadsheet_is_read(clinic):
    """With a byte order mark, Windows's line ends and an empty line."""
    keys = everything(clinic, "").keys
    content = "\r\n".join(["image,group", *(f'"{key}",g' for key in keys), "", ""])
    (clinic.parent / "groups.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert set(everything(clinic, "groups.csv").groups) == {"g"}


# --- carved -----------------------------------------------------------------------------------------------------


def test_no_group_is_parted_and_splits_are_nearly_stratified(clinic):
    dataset = load(clinic, groups=r"p\d+")
    test = dataset.test.open(Look("a run", 1, lambda: True))
    splits = {"train": dataset.train, "val": dataset.val, "test": test}
    owners = {split: patients(images) for split, images in splits.items()}
    assert not owners["train"] & owners["val"] and not (owners["train"] | owners["val"]) & owners["test"]
    assert len(set().union(*owners.values())) == 40
    num = sum(map(len, splits.values()))
    assert abs(len(test) / num - 0.25) <= SHARE_TOLERANCE
    assert abs(len(dataset.val) / (num - len(test)) - 0.15) <= SHARE_TOLERANCE
    for split, fraction, among in (("test", 0.25, splits), ("val", 0.15, ("train", "val"))):
        counts = {name: np.bincount(splits[name].labels, minlength=2) for name in among}
        assert (np.abs(counts[split] / sum(counts.values()) - fraction) <= CLASS_TOLERANCE).all(), counts
    assert dataset.leaks.summary == ""


def test_names_of_files_and_groups_change_nothing(clinic):
    before = load(clinic, groups=r"p\d+")
    for path in sorted(clinic.rglob("*.png")):
        patient, i = path.stem[1:].split("_")
        path.rename(path.with_name(f"{i} of case {99 - int(patient)}.png"))
    after = load(clinic, groups=r"case \d+")
    assert (after.fingerprint, after.test.fingerprint()) == (before.fingerprint, before.test.fingerprint())
    assert digests(after.val.digests) == digests(before.val.digests)


def test_data_seed_moves_val_and_never_test(clinic):
    found = [load(clinic, groups=r"p\d+", seed=seed) for seed in range(4)]
    assert len({dataset.test.fingerprint() for dataset in found}) == 1
    assert len({dataset.fingerprint for dataset in found}) >= 3


def test_another_grouping_is_another_test_split_and_none_of_its_pixels_stay(clinic):
    """Each way of grouping has an entry of its own, so that none is served pixels that it holds back."""
    by_patient, alone = load(clinic, groups=r"p\d+"), load(clinic)
    assert by_patient.test.fingerprint() != alone.test.fingerprint()
    for dataset in (by_patient, alone, load(clinic, groups=r"p\d\d_\d"), load(clinic, groups=r"p\d")):
        known = set(digests(dataset.train.digests)) | set(digests(dataset.val.digests))
        assert not known & set(digests(dataset.test.hashes().digests))
        assert len(dataset.train.stored) == len(dataset.train) + len(dataset.val)


def test_groups_that_share_an_image_are_one(clinic):
    for patient in range(0, 40, 2):
        write(next(clinic.rglob(f"p{patient:02d}_0.png")).with_name(f"p{patient + 1:02d}_9.bmp"), noise(100 * patient))
    for seed in range(3):
        dataset = load(clinic, groups=r"p\d+", seed=seed)
        pairs = [{int(name[1:]) // 2 for name in patients(images)} for images in (dataset.train, dataset.val)]
        pairs.append({int(name[1:]) // 2 for name in patients(dataset.test.open(Look("a run", 1, lambda: True)))})
        assert sum(map(len, pairs)) == len(set().union(*pairs)) == 20
        assert dataset.leaks.summary == ""


def test_val_alone_is_carved_by_groups_where_test_is_given(clinic):
    (clinic / "train").mkdir()
    for kind in ("sick", "well"):
        (clinic / kind).rename(clinic / "train" / kind)
    write(clinic / "test" / "sick" / "p77_0.png", noise(7700))
    dataset = load(clinic, groups=r"p\d+")
    assert not {key.split("_")[0][-3:] for key in dataset.train.keys} & {
        key.split("_")[0][-3:] for key in dataset.val.keys
    }
    assert dataset.leaks.spanning == ()


ROWS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12), st.integers(0, 2)), min_size=2, max_size=60)
"""(content, group, label) of images; labels go with neither."""


def carved(rows, fraction, salt="salt"):
    contents = np.array([np.random.default_rng(content).integers(0, 256, 32, np.uint8) for content, _, _ in rows])
    labels = np.array([label for _, _, label in rows])
    return carve_groups(contents, labels, [f"group {group}" for _, group, _ in rows], fraction, salt)


def families(rows):
    """Sets of rows that hang together by group or content, found by merging until nothing changes."""
    found = []
    for row, (content, group, _) in enumerate(rows):
        marks = {("content", content), ("group", group)}
        touched = [family for family in found if family[0] & marks]
        found = [family for family in found if not family[0] & marks]
        found.append((marks.union(*(f[0] for f in touched)), {row}.union(*(f[1] for f in touched))))
    return [members for _, members in found]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=ROWS, fraction=st.floats(0.05, 0.6), shuffle=st.randoms(use_true_random=False))
def test_carving_parts_nothing_and_is_a_function_of_content(rows, fraction, shuffle):
    try:
        chosen = carved(rows, fraction)
    except DataError:
        chosen = None
    homes = defaultdict(list)
    for family in families(rows):
        for label in {rows[row][2] for row in family}:
            homes[label].append(family)
    # Refused where, and only where, each family is the only home of a class.
    needed = [any(len(homes[rows[row][2]]) == 1 for row in family) for family in families(rows)]
    assert (chosen is None) == all(needed)
    if chosen is None:
        return
    assert chosen.any() and not chosen.all()
    for family in families(rows):
        assert len({bool(chosen[row]) for row in family}) == 1
    assert {rows[i][2] for i in np.flatnonzero(~chosen)} == {label for _, _, label in rows}
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    renamed = [(rows[i][0], 12 - rows[i][1], rows[i][2]) for i in order]
    assert carved(renamed, fraction).tolist() == chosen[order].tolist()


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.15, 0.25, 0.4])
def test_many_small_groups_give_the_share_that_was_asked_for(fraction):
    draws = np.random.default_rng(1)
    rows = [
        (1000 * group + i, group, int(draws.integers(3))) for group in range(120) for i in range(draws.integers(1, 6))
    ]
    chosen = carved(rows, fraction)
    labels = np.array([label for _, _, label in rows])
    assert abs(chosen.mean() - fraction) <= SHARE_TOLERANCE
    for label in range(3):
        assert abs(chosen[labels == label].mean() - fraction) <= CLASS_TOLERANCE


def test_another_salt_another_choice():
    rows = [(10 * group + i, group, group % 2) for group in range(40) for i in range(3)]
    choices = {carved(rows, 0.25, f"val {seed}").tobytes() for seed in range(5)}
    assert len(choices) == 5


# --- what groups cannot give ------------------------------------------------------------------------------------


def test_groups_that_are_classes_cannot_be_carved(clinic):
    with pytest.raises(
        DataError, match=r"of 2 groups, none can be spared for a split of 25\.0%.* hold \d+\.\d%, \d+\.\d%"
    ):
        load(clinic, groups="sick|well")


def test_one_group_cannot_be_carved(clinic):
    with pytest.raises(DataError, match=r"of 1 groups, none can be spared .*hold 100\.0% of the images"):
        load(clinic, groups="p")


def test_no_class_loses_its_last_group(tmp_path):
    """Twelve classes of two groups each, and one of a single one."""
    for label in range(12):
        for group in range(2):
            for i in range(3):
                write(
                    tmp_path / f"class {label:02d}" / f"g{label}.{group}_{i}.png", noise(100 * label + 10 * group + i)
                )
    for i in range(3):
        write(tmp_path / "single" / f"g99.0_{i}.png", noise(9900 + i))
    dataset = load(tmp_path, groups=r"g\d+\.\d")
    assert set(dataset.train.labels.tolist()) == set(range(13))
    assert len(dataset.test) >= 12 and len(dataset.val) >= 3


def test_a_share_that_groups_cannot_give_is_warned_of(tmp_path, caplog):
    """One patient has 30 of 42 images, so no choice of patients is near to a half."""
    for patient, size in enumerate((30, 4, 4, 4)):
        for i in range(size):
            write(tmp_path / ("sick", "well")[i % 2] / f"p{patient}_{i}.png", noise(100 * patient + i))
    with caplog.at_level(logging.WARNING):
        dataset = load(tmp_path, groups=r"p\d", test_fraction=0.5, val_fraction=0.1)
    share = len(dataset.test) / 42
    assert f"test has {share:.1%} of the images where data.test_fraction = 0.5 was asked for" in caplog.text
