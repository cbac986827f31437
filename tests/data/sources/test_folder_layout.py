"""Folders as people and archives leave them: what is a split, what is a class, and where every file went."""

import os
import unicodedata

import pytest

from imgcls.config.keys import DataConfig
from imgcls.data.sources.folder import ignored_in_words
from imgcls.errors import DataError, UnreadableImagesError
from tests.data.make import load, noise, open_source, write, write_class, write_classes

ALIKE = {"cat": 1, "dog": 1}
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
"""One name, as Linux and Windows write it and as macOS did."""


def folder_source(path, **settings):
    return open_source(DataConfig(source="folder", path=str(path), **settings), path)


def write_all(root, folders):
    for folder in folders:
        write_classes(root / folder, ALIKE)
    return root


# --- splits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("TRAIN", None, "TEST"),
        ("Training", None, "Testing"),
        ("train", "val", "TEST"),
        ("train", "valid", "test"),
        ("Training", "Validation", "Testing"),
        ("training_set", None, "test_set"),
        ("seg_train", None, "seg_test"),
        ("train_images", "val_images", "test_images"),
        ("train", "dev", "eval"),
        ("trainset", "valset", "testset"),
        ("train2017", "val2017", "test2017"),
        ("Train Data", "Validation-Data", "Test.Data"),
        ("train", None, "holdout"),
    ],
)
def test_split_folders_count_in_any_case_and_in_the_spellings_in_use(tmp_path, train, val, test):
    write_all(tmp_path, filter(None, (train, val, test)))
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog") and source.everything is None
    wanted = {split: name for split, name in (("train", train), ("val", val), ("test", test)) if name}
    assert {split: {key.split("/")[0] for key in table.keys} for split, table in source.given.items()} == {
        split: {name} for split, name in wanted.items()
    }
    assert source.folders == {split: f"{name}/" for split, name in wanted.items()}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["val", "test"], "test/, val/ but no train/"),
        (["TEST"], "TEST/ but no train/"),
        (["trainA", "trainB", "testA", "testB"], "called like splits, but none that can be taken as one"),
        (["train", "Train"], "Train/ and train/, which both name the train split"),
        (["train", "eval", "test"], "eval/ and test/, which both name the test split"),
        (["train", "val", "validation"], "val/ and validation/, which both name the val split"),
        (["cat", "dog", "test"], "test/ but no train/"),
        (["train", "val", "cat", "dog"], "cat/, dog/ beside train/, which has the same classes"),
    ],
)
def test_folders_called_like_splits_that_make_no_layout_are_refused(tmp_path, folders, message):
    if "cat" in folders:
        write_class(tmp_path / "cat", [1])
        write_class(tmp_path / "dog", [2])
    write_all(tmp_path, [name for name in folders if name not in ALIKE])
    with pytest.raises(DataError, match=message):
        folder_source(tmp_path)


@pytest.mark.parametrize(
    ("below", "is_read"),
    [
        ({"a": ("train", "test"), "b": ("train", "test")}, False),
        ({"a": ("Train", "Test"), "b": ("Train",)}, False),
        ({"dataset": ("train", "test")}, False),
        ({"morning": ("cat", "dog"), "evening": ("cat", "dog")}, False),
        ({"dataset": ("cat", "dog")}, False),
        ({"sick": ("p01", "p02"), "well": ("p03", "p04")}, True),
        ({"sick": ("2020", "2021"), "well": ("2020", "2021", "2022")}, True),
        ({"sick": ("images",), "well": ("images",)}, True),
    ],
)
def test_folders_below_classes_are_refused_where_they_may_be_splits_or_the_classes(tmp_path, below, is_read):
    for label, (name, folders) in enumerate(below.items()):
        for number, folder in enumerate(folders):
            write_class(tmp_path / "all" / name / folder, [10 * label + number])
    if is_read:
        assert folder_source(tmp_path / "all").class_names == tuple(below)
        return
    with pytest.raises(DataError, match=r"expected all/CLASS/IMAGE\.png, or all/train/CLASS/IMAGE\.png"):
        folder_source(tmp_path / "all")


def test_the_same_patients_in_every_class_are_fine_once_they_are_called_groups(tmp_path):
    for kind in ("sick", "well"):
        for number, patient in enumerate(("p1", "p2")):
            write_class(tmp_path / kind / patient, [10 * len(kind) + number + ord(kind[0])])
    with pytest.raises(DataError, match=r"with data\.groups"):
        folder_source(tmp_path)
    assert folder_source(tmp_path, groups="p[0-9]").class_names == ("sick", "well")


def test_a_split_below_the_classes_of_a_split_is_refused(tmp_path):
    write_all(tmp_path, ("train", "val"))
    write_class(tmp_path / "train" / "cat" / "test", [9])
    with pytest.raises(DataError, match="train/cat/test/: a split within a class"):
        folder_source(tmp_path)


def test_splits_within_train_are_not_its_classes(tmp_path):
    write_all(tmp_path, ("train/train", "train/test"))
    with pytest.raises(DataError, match="train/test/, train/train/: splits where classes are expected"):
        folder_source(tmp_path)


def test_a_split_among_the_classes_of_train_is_refused(tmp_path):
    write_all(tmp_path, ("train", "train/test"))
    with pytest.raises(DataError, match="train/test/: a split among the classes that it holds"):
        folder_source(tmp_path)


def test_files_that_are_no_images_do_not_hide_that_folders_are_the_same_in_every_class(tmp_path):
    for number, session in enumerate(("morning", "evening")):
        for name in ("cat", "dog"):
            write_class(tmp_path / session / name, [10 * number + len(name) + ord(name[0])])
        (tmp_path / session / "Thumbs.db").write_bytes(b"0")
    with pytest.raises(DataError, match="so these may be the classes"):
        folder_source(tmp_path)


@pytest.mark.parametrize("folders", [("train", "test"), ("cat", "dog")])
def test_a_folder_within_a_folder_is_named_as_the_path_to_write(tmp_path, folders):
    for number, name in enumerate(folders):
        write_classes(tmp_path / "archive" / name, {"cat": 1, "dog": 1} if "train" in folders else {"": number + 1})
    with pytest.raises(DataError, match=rf"or data\.path = '{tmp_path}/archive'"):
        folder_source(tmp_path)


def test_a_class_that_is_called_train_is_not_taken_for_a_split_in_silence(tmp_path):
    write_classes(tmp_path, {"car": 1, "plane": 1, "train": 1})
    with pytest.raises(DataError, match="train/ is taken as a split and not as a class; if it is a class, rename it"):
        folder_source(tmp_path)


def test_classes_whose_names_have_a_splits_word_in_them_are_classes(tmp_path):
    write_classes(tmp_path, {"train_station": 1, "test tube": 1, "street": 1})
    assert folder_source(tmp_path).class_names == ("street", "test tube", "train_station")


# --- names ------------------------------------------------------------------------------------------------------


def test_a_class_in_two_normal_forms_is_one_class(tmp_path):
    for split, name in (("train", DECOMPOSED), ("val", COMPOSED), ("test", DECOMPOSED)):
        write_class(tmp_path / split / name, [ord(split[0])])
        write_class(tmp_path / split / "thé", [ord(split[0]) + 1])
    source = folder_source(tmp_path)
    assert source.class_names == (COMPOSED, "thé")
    for table in source.given.values():
        assert table.labels.tolist() == [0, 1] and all(unicodedata.is_normalized("NFC", key) for key in table.keys)
        assert table.read(0).size == (12, 10)


def test_a_folder_of_an_archive_made_elsewhere_has_the_same_fingerprints(tmp_path):
    found = []
    for place, name in (("linux", COMPOSED), ("mac", DECOMPOSED)):
        write_class(tmp_path / place / name, range(8))
        write_class(tmp_path / place / "thé", range(10, 18))
        dataset = load(tmp_path / place)
        found.append((dataset.fingerprint, dataset.test.fingerprint(), dataset.val.keys))
    assert found[0] == found[1]


@pytest.mark.parametrize("place", ["class", "image"])
def test_names_that_fall_together_are_refused_with_their_code_points(tmp_path, place):
    write_classes(tmp_path, ALIKE)
    for seed, name in enumerate((COMPOSED, DECOMPOSED)):
        write(tmp_path / (f"{name}/1.png" if place == "class" else f"cat/{name}.png"), noise(seed))
    with pytest.raises(DataError, match=r"\(U\+0301\) and .* \(U\+00E9\) are the same name") as caught:
        folder_source(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_groups_are_compared_in_one_normal_form(tmp_path):
    for seed, name in enumerate((COMPOSED, DECOMPOSED)):
        write(tmp_path / "images" / "cat" / f"{name}_{seed}.png", noise(seed))
        write(tmp_path / "images" / "dog" / f"{name}_{seed}.png", noise(seed + 5))
    rows = [
        f"{kind}/{COMPOSED}_{seed}.png,{name}" for kind in ALIKE for seed, name in enumerate((COMPOSED, DECOMPOSED))
    ]
    (tmp_path / "groups.csv").write_text("\n".join(["image,group", *rows]), encoding="utf-8")
    from imgcls.data.groups import with_groups

    for setting in (tmp_path / "groups.csv", f"({DECOMPOSED})_"):
        table = with_groups(folder_source(tmp_path / "images"), setting).everything
        assert set(table.groups) == {COMPOSED}


def test_a_class_in_other_letters_is_asked_about(tmp_path):
    write_all(tmp_path, ("train", "val"))
    write_class(tmp_path / "val" / "Cat", [5])
    write_class(tmp_path / "val" / "dgo", [6])
    with pytest.raises(DataError) as caught:
        folder_source(tmp_path)
    assert f"{tmp_path / 'val' / 'Cat'}: a class that train/ lacks; did you mean cat?" in str(caught.value)
    assert f"{tmp_path / 'val' / 'dgo'}: a class that train/ lacks; did you mean dog?" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"), [("data/clothing", "data/clothings"), ("dta/clothings", "data/clothings"), ("Data", "data")]
)
def test_a_path_with_a_letter_missing_is_asked_about(tmp_path, written, meant):
    write_all(tmp_path, ("data/clothings",))
    with pytest.raises(
        DataError, match=rf"the folder {tmp_path}/{written} does not exist; did you mean {tmp_path}/{meant}\?"
    ):
        open_source(DataConfig(path=written), tmp_path)


def test_a_path_is_found_whichever_way_its_accents_are_written(tmp_path):
    write_classes(tmp_path / DECOMPOSED, ALIKE)
    assert open_source(DataConfig(path=COMPOSED), tmp_path).class_names == ("cat", "dog")


def test_a_letter_is_missing_below_a_folder_whose_accents_are_written_otherwise(tmp_path):
    write_classes(tmp_path / DECOMPOSED / "clothes" / "small", ALIKE)
    with pytest.raises(DataError, match=rf"did you mean {tmp_path}/{DECOMPOSED}/clothes/small\?"):
        open_source(DataConfig(path=f"{COMPOSED}/clothe/small"), tmp_path)


def test_an_archive_is_not_a_folder(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match=r"images\.zip is a file, not a folder; unpack it"):
        folder_source(tmp_path / "images.zip")


# --- every file -------------------------------------------------------------------------------------------------


def all_files(root):
    return sum(len(files) for _, _, files in os.walk(root))


def test_every_file_is_an_image_of_a_class_or_counted(tmp_path):
    write_all(tmp_path, ("train", "val"))
    write_class(tmp_path / "train" / "cat" / "__MACOSX", [50])
    write_class(tmp_path / "train" / "cat" / ".thumbnails", [51])
    write_class(tmp_path / "__MACOSX" / "train", [52, 53])
    write_class(tmp_path / "spare", [54, 55, 56])
    write(tmp_path / "overview.png", noise(57))
    write(tmp_path / "val" / "stray.jpg", noise(58))
    write(tmp_path / "x.png", noise(59)).rename(tmp_path / "train" / "dog" / "IMG 0001")  # without an ending
    write(tmp_path / "x.png", noise(60)).rename(tmp_path / "train" / "dog" / "photo.jpg?w=640")
    write(tmp_path / "x.png", noise(61)).rename(tmp_path / "train" / "dog" / "photo.jpg~")
    for name in ("README", "notes.txt", "train/labels.csv", "train/cat/a.xml", "train/cat/Thumbs.db", "val/.DS_Store"):
        (tmp_path / name).write_text("P3 is a letter and a digit")
    source = folder_source(tmp_path)
    assert ignored_in_words(source.ignored) == (
        "3 in __MACOSX/, 3 in spare/, 2 hidden, 1 .csv, 1 .db, 1 .jpg outside of the class folders, "
        "1 .png outside of the class folders, 1 .txt, 1 .xml, 1 without an ending, 1 ~"
    )
    assert sum(map(len, source.given.values())) + sum(source.ignored.values()) == all_files(tmp_path)
    assert [key for key in source.given["train"].keys if "png" not in key] == [
        "train/dog/IMG 0001",
        "train/dog/photo.jpg?w=640",
    ]


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints"])
def test_what_programs_leave_behind_is_no_class(tmp_path, name):
    write_classes(tmp_path, ALIKE)
    (tmp_path / name).mkdir()
    assert folder_source(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("suffix", [".gif", ".GIF", ".jfif", ".jpe", ".pbm", ".dib", ".apng", ".avif"])
def test_what_can_be_read_is_let_in(tmp_path, suffix):
    write_classes(tmp_path, ALIKE)
    write(tmp_path / "cat" / "more.png", noise(9)).rename(tmp_path / "cat" / f"more{suffix}")
    source = folder_source(tmp_path)
    assert f"cat/more{suffix}" in source.everything.keys and not source.ignored


@pytest.mark.parametrize(("suffix", "remedy"), [(".HEIC", "save it as PNG"), (".CR2", "convert it to PNG")])
def test_images_that_cannot_be_read_are_refused_by_name_and_left_out_on_request(tmp_path, suffix, remedy):
    write_class(tmp_path / "cat", range(6))
    write_class(tmp_path / "dog", range(10, 16))
    for number in range(4):
        (tmp_path / "dog" / f"{number}{suffix}").write_bytes(b"II*\0")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(UnreadableImagesError, match=rf"4 unreadable images: 4 \{suffix}\n") as caught:
        load(tmp_path)
    assert [remedy in line for line in caught.value.offenders] == [True] * 4
    assert load(tmp_path, skip_unreadable=True).num_skipped == 4


def test_a_class_without_an_image_says_what_it_has_instead(tmp_path):
    write_classes(tmp_path, ALIKE)
    for name in ("a.txt", "b.txt", "c.mp4"):
        (tmp_path / "films").mkdir(exist_ok=True)
        (tmp_path / "films" / name).write_text("x")
    with pytest.raises(DataError, match=r"films: no image in this class; it has 2 \.txt, 1 \.mp4"):
        folder_source(tmp_path)
