"""Experiments of the library: from a name, a file or a mapping, with overrides like `--set`."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

import imgcls
from imgcls.config.load import load_experiment as load_file
from tests.conftest import TINY

TABLES = tomllib.loads(TINY)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("how", ["tiny", "experiments/tiny.toml", Path("experiments/tiny.toml"), TABLES])
def test_name_path_and_mapping_give_the_same(project, how):
    loaded = imgcls.load_experiment(how)
    assert loaded.to_toml() == str(loaded) == project.experiment().to_toml()
    assert loaded.project.root == project.root.resolve()


OVERRIDES = [
    ({"train": {"lr": 3e-3}}, ["train.lr=3e-3"]),
    ({"train.lr": 3e-3}, ["train.lr=3e-3"]),
    ({"train.lr": 1}, ["train.lr=1"]),
    ({"train.lr": np.float32(0.5), "train.epochs": np.int64(7)}, ["train.lr=0.5", "train.epochs=7"]),
    ({"data": {"source": "folder", "path": Path("images")}}, ["data.source=folder", "data.path=images"]),
    ({"augment": {"random_resized_crop": (0.5, 1)}}, ["augment.random_resized_crop=[0.5, 1]"]),
    ({"search": {"trials": 5, "space": {"train.lr": [1e-3, 1e-2]}}}, ["search.trials=5",
                                                                     'search.space={"train.lr" = [1e-3, 1e-2]}']),
    ({"name": "other"}, ["name=other"]),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "options"), OVERRIDES)
def test_overrides_are_those_of_the_shell(project, overrides, options):
    expected = load_file(project.root / "experiments" / "tiny.toml", options)
    assert imgcls.load_experiment("tiny", **overrides).to_toml() == expected.to_toml()
    assert imgcls.load_experiment("tiny").replace(overrides).to_toml() == expected.to_toml()


MISTAKES = [
    ({"train": {"learning_rate": 1e-3}}, "train.learning_rate = 0.001: unknown key; did you mean 'train.lr'?"),
    ({"train.lr": -1}, "train.lr = -1: must be greater than 0"),
    ({"train.lr": "3e-3"}, 'train.lr = "3e-3": must be a number'),
    ({"train.lr": None}, "train.lr = None: no key takes a NoneType"),
    ({"model.depth": np.arange(3)}, "no key takes a ndarray"),
]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_a_mistaken_override_is_explained(overrides, message):
    with pytest.raises(imgcls.errors.ConfigError) as caught:
        imgcls.load_experiment("tiny", **overrides)
    assert message in str(caught.value)


def test_a_mapping_is_left_as_it_was_and_checked_like_a_file():
    tables = {"name": "x", "train": {"lr": np.float64(0.1)}}
    assert imgcls.load_experiment(tables, **{"train.lr": 0.2}).train.lr == 0.2
    assert tables["train"]["lr"] == 0.1
    for wrong, message in (({}, "name"), ({"name": "x", "trian": {}}, "trian"), ({"name": "x", "train": 3}, "a table")):
        with pytest.raises(imgcls.errors.ConfigError, match=message):
            imgcls.load_experiment(wrong)


def test_the_project_is_that_of_the_moment_of_loading(project, empty):
    """The working folder may change between two calls."""
    path = project.root / "experiments" / "tiny.toml"
    assert imgcls.load_experiment(path).replace({"train.lr": 0.1}).project.root == project.root.resolve()
    assert imgcls.load_experiment(TABLES).project.root == empty.resolve()


@pytest.mark.usefixtures("empty")
def test_an_experiment_that_is_not_there_is_explained():
    with pytest.raises(imgcls.errors.ConfigError, match=r"no experiment 'digits'.*holds no experiment"):
        imgcls.load_experiment("digits")
