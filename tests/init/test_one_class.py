"""Folders with one class by mistake: the error says what they probably are, and what to do."""

import re
import runpy
from pathlib import Path

import pytest

from imgcls.config.keys import DataConfig
from imgcls.errors import DataError
from imgcls.init.look import list_folder
from imgcls.project import Project
from tests.data.make import picture, write, write_class, write_classes


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


def a_table(path, columns, separator=","):
    """Writes a table of six images; `columns`: title -> cell of each image by its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[cell(number) for cell in columns.values()] for number in range(6)]
    lines = [separator.join(map(str, row)) for row in ([list(columns)] if "" not in columns else []) + rows]
    path.write_text("\n".join(lines))


def name(number):
    return f"{number:04}.png"


def kind(number):
    return ("hat", "pants")[number % 2]


def stem(number):
    return f"{number:04}"


def below(number):
    return f"x/{number:04}.png"


def part(number):
    del number
    return "part_1"


def digit(number):
    return number % 2


def first(number):
    return f"{number}.png"


TABLES = [
    ("photographs", "photographs/labels.csv", {"image": name, "label": kind}, ",", (1, 2)),
    ("photographs", "labels.csv", {"filename": name, "label": kind}, ",", (1, 2)),
    ("photographs/images", "photographs/train.csv", {"id": stem, "category": kind}, ",", (1, 2)),
    ("photographs/train", "photographs/train.csv", {"image_id": stem, "target": digit}, ";", (1, 2)),
    ("photographs", "photographs/a.tsv", {"species": kind, "width": digit, "path": below}, "\t",
     (3, 1)),
    ("photographs", "photographs/list.csv", {"": name, 1: kind}, ",", (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("images", "place", "columns", "separator", "numbers"), TABLES)
def test_a_table_beside_loose_images_is_named_with_its_columns_and_the_script_takes_them(
    tmp_path, monkeypatch, images, place, columns, separator, numbers
):
    monkeypatch.chdir(tmp_path)
    write_class(tmp_path / images, range(6))
    a_table(tmp_path / place, columns, separator)
    with pytest.raises(DataError, match=f"labels are not read from {Path(place).name}") as refused:
        listing_of(tmp_path / "photographs")
    image, label = numbers
    titles = [f" ({title})" if "" not in columns else "" for title in columns]
    assert f"IMAGE = {image}{titles[image - 1]} and LABEL = {label}{titles[label - 1]}, which has 2 values" in str(
        refused.value
    )
    table, where = re.findall(r'(?:TABLE|IMAGES) = Path\("(.*?)"\)', str(refused.value))
    run_script(tmp_path, {r"TABLE, IMAGES = .*": f'TABLE, IMAGES = Path("{table}"), Path("{where}")',
                          r"IMAGE, LABEL = .*": f"IMAGE, LABEL = {image}, {label}"})  # fmt: skip
    assert listing_of(tmp_path / "by_class").counts.tolist() == [3, 3]


def test_labels_that_are_also_names_of_images_are_still_the_labels(tmp_path):
    for number in range(6):
        write(tmp_path / "photographs" / first(number), picture(number))
    a_table(tmp_path / "photographs" / "labels.csv", {"label": digit, "id": first})
    with pytest.raises(DataError, match=r"IMAGE = 2 \(id\) and LABEL = 1 \(label\)"):
        listing_of(tmp_path / "photographs")


def test_a_short_last_row_hides_no_column(tmp_path):
    write_class(tmp_path / "photographs", range(6))
    a_table(tmp_path / "photographs" / "labels.csv", {"image": name, "label": kind})
    with (tmp_path / "photographs" / "labels.csv").open("a") as file:
        file.write("\nend")
    with pytest.raises(DataError, match=r"IMAGE = 1 \(image\) and LABEL = 2 \(label\), which has 2 values"):
        listing_of(tmp_path / "photographs")


def test_of_a_long_table_only_the_least_number_of_labels_is_known(tmp_path):
    write_class(tmp_path / "photographs", range(6))
    rows = [f"{number:04}.png,{number // 500}" for number in range(5000)]
    (tmp_path / "photographs" / "labels.csv").write_text("\n".join(["image,label", *rows]))
    with pytest.raises(DataError, match=r"LABEL = 2 \(label\), which has at least 4 values"):
        listing_of(tmp_path / "photographs")


@pytest.mark.parametrize("place", ["photographs/labels.xlsx", "labels.xlsx", "photographs/train_labels.parquet"])
def test_a_table_of_another_kind_is_to_be_saved_as_csv(tmp_path, place):
    write_class(tmp_path / "photographs", range(6))
    (tmp_path / place).write_bytes(b"PK")
    with pytest.raises(DataError, match=rf"not read from {Path(place).name}: .* Save the table as CSV first"):
        listing_of(tmp_path / "photographs")


def test_loose_images_beside_one_class_folder(tmp_path):
    root = tmp_path / "photographs"
    write_class(root, range(6))
    write_class(root / "hat", range(6, 9))
    a_table(root / "labels.csv", {"image": name, "label": kind})
    assert "labels are not read from labels.csv" in message_of(root)


def test_tables_that_name_no_image_above_the_folder_are_none_of_labels(tmp_path):
    write_class(tmp_path / "photographs", range(6))
    a_table(tmp_path / "results.csv", {"run": lambda n: f"run {n}", "label": kind})
    (tmp_path / "costs.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"images that lie in it directly have no class$"):
        listing_of(tmp_path / "photographs")


@pytest.mark.parametrize(("title", "cell", "is_told"), [("dx", kind, True), ("width", kind, False),
                                                       ("label", part, False)])  # fmt: skip
def test_a_table_with_other_labels_than_the_folders_is_told(tmp_path, title, cell, is_told):
    root = tmp_path / "photographs"
    for part in (1, 2):
        write_class(root / f"part_{part}", range(3 * part - 3, 3 * part))
    a_table(root / "metadata.csv", {"image": name, title: cell})
    told = listing_of(root).other_labels
    assert told.startswith("metadata.csv names these images, and its column dx has 2 values") if is_told else not told


def run_script(folder, changes):
    page = (Path(__file__).parents[2] / "docs" / "init.md").read_text()
    (script,) = re.findall(r"```python\n(import csv.*?)```", page, re.DOTALL)
    for pattern, line in changes.items():
        script, num = re.subn(f"(?m)^{pattern}$", lambda _, line=line: line, script)
        assert num == 1
    (folder / "script.py").write_text(script)
    runpy.run_path(str(folder / "script.py"))


def test_the_script_of_the_page_makes_a_folder_per_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "photographs"
    paths = write_class(root / "images", range(6))
    rows = [f"{path.name},{('hat', 'pants')[at % 2]}" for at, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(["image,label", *rows]))
    run_script(tmp_path, {})
    assert listing_of(tmp_path / "by_class").counts.tolist() == [3, 3]


def test_the_script_tells_images_of_one_name_in_two_folders_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "photographs"
    paths = {kind: write_class(root / "images" / kind, [at]) for at, kind in enumerate("ab")}
    for kind, (path,) in paths.items():
        path.rename(root / "images" / kind / "1.png")
        (root / "images" / kind / "1.txt").write_text("a note")
    (root / "labels.csv").write_text("image,label\na/1.png,hat\nb\\1.png,shoe\n1.png,hat\n")
    run_script(tmp_path, {})
    for label, kind in (("hat", "a"), ("shoe", "b")):
        (copied,) = (tmp_path / "by_class" / label).iterdir()
        assert copied.read_bytes() == (root / "images" / kind / "1.png").read_bytes()
    assert "2 images copied; 2 rows name no image, or several" in capsys.readouterr().out


def test_one_class_of_images_needs_another(tmp_path):
    write_class(tmp_path / "images" / "cat", range(3))
    assert message_of(tmp_path / "images").endswith("a classifier needs two or more, each a folder of its own")
