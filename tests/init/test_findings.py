"""What is told of a folder, in its rows and on the drawing of its classes."""

import numpy as np
import pytest

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.init.findings import findings, flat, unreadable_files
from imgcls.init.look import list_folder, look_through
from imgcls.init.page import MOST_UNREADABLE, bars_figure
from imgcls.init.page import _bars as bars
from imgcls.init.page import _unreadable as unreadable_on_page
from imgcls.project import Project
from tests.data.make import write_class, write_classes


def look_at(folder):
    data = DataConfig(path=str(folder), image_size=8)
    return look_through(list_folder(data, Project(folder)), data, AugmentConfig())


def spoil(folder, num):
    for number in range(num):
        (folder / f"broken{number:03}.jpg").write_bytes(b"no image")


@pytest.mark.parametrize(("num", "more"), [(1, ""), (3, ""), (5, " and 2 more; the page has the reasons")])
def test_unreadable_files_are_named(tmp_path, num, more):
    write_classes(tmp_path, {"cat": 20, "dog": 20})
    spoil(tmp_path / "cat", num)
    look = look_at(tmp_path)
    row = dict(findings(look))["Unreadable"]
    named = ", ".join(f"cat/broken{number:03}.jpg" for number in range(min(3, num)))
    assert row.endswith(f": {num} .jpg: {named}{more}")
    files = dict(unreadable_files(look))
    assert sorted(files) == [f"cat/broken{number:03}.jpg" for number in range(num)]
    assert all(files.values())
    (table,) = unreadable_on_page(look)
    assert all(path in table.replace("\\", "") for path in files)


def test_the_page_says_how_many_unreadable_files_it_leaves_out(tmp_path):
    write_classes(tmp_path, {"cat": 20, "dog": 20})
    spoil(tmp_path / "dog", MOST_UNREADABLE + 7)
    first, table = unreadable_on_page(look_at(tmp_path))
    assert "7 more are left out" in first
    assert table.count(".jpg") >= MOST_UNREADABLE


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """45 classes of two images."""
    return look_at(write_classes(tmp_path_factory.mktemp("equal"), {f"class {number:03}": 2 for number in range(45)}))


def test_classes_that_val_cannot_judge_are_counted(equal):
    num_none = flat(equal)["num_classes_without_val"]
    assert num_none == 45 - len(np.unique(equal.dataset.val.labels))
    assert dict(findings(equal))["Val"] == (
        f"{num_none} of 45 classes have no val image; {45 - num_none} of 45 classes have fewer than 5, so that val "
        "cannot judge these classes. Add images, or set a larger data.val_fraction"
    )


def test_a_val_folder_with_few_images_needs_more(tmp_path):
    for split, sizes in (("train", (12, 12)), ("val", (9, 4))):
        for kind, size in zip(("cat", "dog"), sizes, strict=True):
            start = 1000 * len(split) + 100 * len(kind) + 10 * ord(kind[0])
            write_class(tmp_path / split / kind, range(start, start + size))
    row = dict(findings(look_at(tmp_path)))["Val"]
    assert row == "1 of 2 classes has fewer than 5, so that val cannot judge these classes. Add images to val"


def test_classes_with_many_val_images_are_not_told_of(tmp_path):
    assert "Val" not in dict(findings(look_at(write_classes(tmp_path, {"cat": 50, "dog": 50}))))


def test_equal_classes_have_no_largest(equal):
    drawn = bars(equal)
    assert drawn.caption == "Shown are 40 of the 45 classes; each of the 45 classes has 2."
    assert "largest" not in drawn.alt


def test_the_legend_lies_on_no_bar(equal):
    figure = bars_figure(equal, np.arange(10))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1
