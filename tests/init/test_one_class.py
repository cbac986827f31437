"""Folders with one class by mistake: the error says what they probably are, and what to do."""

import re
import runpy
from pathlib import Path

import pytest

from imgcls.config.keys import DataConfig
from imgcls.errors import DataError
from imgcls.init.look import list_folder
from imgcls.project import Project
from tests.data.make import write_class, write_classes


def listing_of(folder):
    return list_folder(DataConfig(path=str(folder)), Project(folder.parent))


def message_of(folder):
    with pytest.raises(DataError, match="has only one class") as refused:
        listing_of(folder)
    return str(refused.value)


@pytest.mark.parametrize(
    ("below", "remedy"),
    [
        ("a/b", "{root}/a/b holds hat, pants: if these are the classes, give that folder"),
        ("a/ä/b", "{root}/a/ä/b holds hat, pants: if these are the classes, give that folder"),
        ("train/a/b", "{root}/train/a/b holds hat, pants: if these are the classes, move them into {root}/train"),
    ],
)
def test_classes_that_lie_deeper_are_named(tmp_path, below, remedy):
    root = tmp_path / "nested"
    write_classes(root / below, {"hat": 3, "pants": 3})
    for split in ("val", "test"):
        if below.startswith("train"):
            write_classes(root / split / "a" / "b", {"hat": 3, "pants": 3})
    assert remedy.format(root=root) in message_of(root)


@pytest.mark.parametrize("place", ["labels.csv", "images/Labels.TSV", "annotations.json"])
def test_a_table_of_labels_is_said_not_to_be_read(tmp_path, place):
    root = tmp_path / "photographs"
    write_class(root / "images", range(6))
    (root / place).write_text("image,label\n0000.png,hat\n")
    message = message_of(root)
    assert f"labels are not read from {Path(place).name}: make one folder per class" in message
    assert "docs/init.md" in message


def test_the_script_of_the_page_makes_a_folder_per_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "photographs"
    paths = write_class(root / "images", range(6))
    rows = [f"{path.name},{('hat', 'pants')[at % 2]}" for at, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(["image,label", *rows]))
    page = (Path(__file__).parents[2] / "docs" / "init.md").read_text()
    (script,) = re.findall(r"```python\n(import csv.*?)```", page, re.DOTALL)
    (tmp_path / "script.py").write_text(script)
    runpy.run_path(str(tmp_path / "script.py"))
    assert listing_of(tmp_path / "by_class").counts.tolist() == [3, 3]


def test_one_class_of_images_needs_another(tmp_path):
    write_class(tmp_path / "images" / "cat", range(3))
    assert message_of(tmp_path / "images").endswith("a classifier needs two or more, each a folder of its own")
