"""Folds: every image is val once, classes are spread, and what belongs together stays together."""

import shutil

import numpy as np
import pytest
from PIL import Image

from imgcls.errors import ConfigError, DataError
from tests.data.make import digests, load, picture, write, write_class, write_classes


def in_folds(root, folds=4, **options):
    return load(root, folds=folds, **options)


def fold_of(dataset):
    """Name of the image's file -> its fold."""
    return dict(zip(dataset.train.keys, dataset.folds.tolist(), strict=True))


@pytest.fixture
def pets(tmp_path):
    """12 cats and 8 dogs for train and val, and more of each for test."""
    return write_classes(tmp_path / "pets", {"cat": 16, "dog": 11})


def test_every_image_but_those_of_test_is_val_of_exactly_one_model(pets):
    whole, plain = in_folds(pets), load(pets)
    assert {*digests(whole.train.digests)} == {*digests(plain.train.digests), *digests(plain.val.digests)}
    assert whole.test.fingerprint() == plain.test.fingerprint()
    models = [whole.of_fold(number) for number in range(1, 5)]
    assert sorted(key for model in models for key in model.val.keys) == sorted(whole.train.keys)
    for model in models:
        assert {*model.train.keys} == {*whole.train.keys} - {*model.val.keys}
        assert np.bincount(model.val.labels).tolist() == [3, 2]
    assert len({model.fingerprint for model in models} | {whole.fingerprint}) == 5


def test_neither_names_nor_folders_move_a_fold_and_the_seed_does(pets, tmp_path):
    whole = in_folds(pets)
    renamed = tmp_path / "renamed"
    shutil.copytree(pets, renamed)
    for path in (renamed / "cat").iterdir():
        path.rename(path.with_name(f"z{path.name[::-1].removeprefix('gnp.')}.png"))
    assert in_folds(renamed).fingerprint == whole.fingerprint
    assert in_folds(pets, seed=1).fingerprint != whole.fingerprint


def test_a_val_folder_is_joined_to_train(tmp_path):
    for split, seeds in (("train", range(8)), ("val", range(8, 12)), ("test", range(12, 14))):
        for place, name in enumerate(("cat", "dog")):
            write_class(tmp_path / split / name, [100 * place + seed for seed in seeds])
    whole = in_folds(tmp_path)
    assert len(whole.train) == len(whole.val) == 24
    assert {key.split("/")[0] for key in whole.train.keys} == {"train", "val"}
    assert whole.origins["val"] == "4 folds of train and val"
    assert np.array_equal(whole.val.pixels, load(tmp_path, folds=3).val.pixels)  # each is in its own place


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: image.rotate(90, expand=True), id="turned"),
        pytest.param(lambda image: image.resize((120, 90)), id="resized"),
        pytest.param(lambda image: image, id="identical"),
    ],
)
def test_images_that_look_alike_share_a_fold(tmp_path, change):
    for place, name in enumerate(("cat", "dog")):
        for seed in range(8):
            path = write(tmp_path / name / f"{seed}.png", picture(100 * place + seed))
            with Image.open(path) as image:
                change(image).save(tmp_path / name / f"{seed}-again.png")
    fold = fold_of(in_folds(tmp_path, test_fraction=0.0))
    for name in ("cat", "dog"):
        assert all(fold[f"{name}/{seed}.png"] == fold[f"{name}/{seed}-again.png"] for seed in range(8))
        assert {fold[f"{name}/{seed}.png"] for seed in range(8)} == {1, 2, 3, 4}


def test_a_group_shares_a_fold(pets):
    fold = fold_of(in_folds(pets, folds=2, groups=r"(\d)\.png", test_fraction=0.0))
    of_group = {}
    for key, number in fold.items():
        of_group.setdefault(key[-5], set()).add(number)
    assert all(len(folds) == 1 for folds in of_group.values()) and len(of_group) == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 9}, "class 'dog' has 8 images in train and val, and every fold needs one of each class; lower "
                       "data.folds to 8"),
        ({"folds": 11, "groups": r"(\d)\.png", "test_fraction": 0.0}, "which stand for 10 because those that belong"),
        ({"folds": 2, "groups": r"(.*)/", "test_fraction": 0.0}, "add images, or set data.folds = 0"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_in_every_fold_are_refused_with_what_would_do(pets, options, said):
    with pytest.raises(DataError) as refused:
        load(pets, **options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.folds=1"], "would leave nothing to train on"),
        (["data.folds=-1"], "must be at least 0"),
        (["data.fold=1"], "is not one of data.folds = 0"),
        (["data.folds=3", "data.fold=4"], "is not one of data.folds = 3"),
        (["data.folds=3", "train.patience=2"], "train.patience = 2 would end each of the folds"),
    ],
)
def test_impossible_keys_are_refused(project, overrides, said):
    with pytest.raises(ConfigError) as refused:
        project.prepare(*overrides)
    assert said in str(refused.value)
