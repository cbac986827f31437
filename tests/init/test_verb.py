"""From real folders to an experiment file that works: what is found, what is chosen, and what is refused."""

import json
import re
import shutil
from collections import Counter
from itertools import takewhile

import numpy as np
import pytest
from PIL import Image

from imgcls.config.load import load_experiment
from imgcls.errors import ConfigError, DataError, InputError
from imgcls.init.verb import init
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from imgcls.tracking.find_run import find_run, trained_record
from tests.data.make import noise, picture, write, write_class, write_classes

CLASSES = {'it\'s a "cat"': 44, "Hündin 犬": 24, "rare # one": 9}
FOLDER = 'my "pictures" # 1'


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def made(make_project):
    """A project without experiments/, and what init made of a folder in it."""
    project = make_project()
    shutil.rmtree(project.root / "experiments")
    folder = write_classes(project.root / FOLDER, CLASSES)
    shutil.copy(folder / "rare # one" / "0068.png", folder / "rare # one" / "again.png")
    (folder / "notes.txt").write_text("no image")
    before = contents(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        result = init("pets", folder, 120.0, project.root)
    return project, result, before


def test_the_file_holds_what_was_chosen_and_loads(made):
    project, result, _ = made
    loaded = load_experiment(project.root / "experiments" / "pets.toml")
    assert loaded == result.proposal.experiment
    assert loaded.data.path == FOLDER
    assert (loaded.train.class_weights, loaded.search.metric) == ("auto", "val/macro_f1")
    assert (loaded.model.name, loaded.data.image_size) == ("resnet", 10)


def test_every_value_stands_right_below_its_own_reason(made):
    _, result, _ = made
    check_reasons(result)


def check_reasons(result):
    lines = result.experiment.read_text().splitlines()
    assert max(map(len, lines)) <= 110
    lines = lines[lines.index("[data]") :]
    told = []
    for at, line in enumerate(lines):
        if " = " in line and not line.startswith("# "):
            above = list(takewhile(lambda each: each.startswith("# "), reversed(lines[:at])))
            told.append((line.partition(" = ")[0], " ".join(each.removeprefix("# ") for each in reversed(above))))
    chosen = [choice for choice in result.proposal.choices if not choice.is_question]
    space = "search.space."
    names = [f'"{key.removeprefix(space)}"' if key.startswith(space) else key.rpartition(".")[2]
             for key in (choice.key for choice in chosen)]  # fmt: skip
    assert [key for key, _ in told] == names
    for (_, reason), choice in zip(told, chosen, strict=True):
        assert choice.reason.strip()
        assert reason.endswith(" ".join(choice.reason.split()))


def test_the_folder_is_untouched(made):
    project, _, before = made
    assert contents(project.root / FOLDER) == before


def test_what_is_told_is_what_a_run_gets(made):
    project, result, _ = made
    dataset = prepare(load_experiment(result.experiment), Project(project.root)).dataset
    assert result.facts["num_train"] == len(dataset.train)
    assert result.facts["num_val"] == len(dataset.val)
    assert result.facts["num_test"] == len(dataset.test)
    assert result.facts["num_images"] == sum(CLASSES.values()) + 1
    assert result.facts["num_ignored"] == 1
    told = dict(result.found)
    assert "rare # one 10" in told["Classes"]
    assert told["Not images"] == "1 .txt"


def test_the_run_holds_the_page_and_the_file(made):
    project, result, _ = made
    run = project.client.get_run(result.run_id)
    assert (run.data.tags["imgcls.kind"], run.info.status) == ("init", "FINISHED")
    assert run.data.metrics == {}
    paths = project.client.list_artifacts(result.run_id, "report")
    assert [path.path for path in paths] == ["report/images.html"]
    page = result.page.read_text()
    with project.tracker.fetch(result.run_id, "report/images.html") as path:
        assert path.read_text() == page
    with project.tracker.fetch(result.run_id, "experiment.toml") as path:
        assert path.read_text() == result.experiment.read_text()
    assert "https://" not in page
    assert "Hündin 犬: 8 of" in page
    assert page.count("<img ") >= len(CLASSES) + 4


def test_the_run_is_never_last_nor_best_and_has_no_model(made):
    project, result, _ = made
    for word in ("last", "best"):
        with pytest.raises(InputError, match="so there is no"):
            find_run(word, project.tracker)
    with pytest.raises(InputError, match="trained nothing"):
        trained_record(result.run_id, project.tracker)


def test_nothing_is_overwritten(made):
    project, result, _ = made
    text = result.experiment.read_text()
    with pytest.raises(ConfigError, match="exists, and init overwrites nothing; give another NAME"):
        init("pets", project.root / FOLDER, 120.0, project.root)
    assert result.experiment.read_text() == text


@pytest.mark.parametrize("name", ["", "a/b", "../pets", "-x", "a b", "x" * 101, "näh"])
def test_a_name_that_no_experiment_can_have_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="NAME"):
        init(name, tmp_path, 120.0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def nothing(root):
    root.mkdir()


def a_file(root):
    root.write_text("no folder")


def absent(root):
    del root


def one_class(root):
    write_class(root / "cat", range(3))


def images_in_it(root):
    write_class(root, range(3))


def no_image_can_be_read(root):
    for kind in ("cat", "dog"):
        for number in range(3):
            path = root / kind / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image")


def deeper(root):
    for day in ("morning", "evening"):
        write_classes(root / day, {"cat": 2, "dog": 2})


def a_line_break(root):
    write_classes(root, {"cat": 2, "two\nlines": 2})


def a_link_out(root):
    elsewhere = root.parent / "elsewhere"
    write_class(elsewhere, range(3))
    write_class(root / "cat", range(3))
    (root / "dog").symlink_to(elsewhere)


def an_empty_class(root):
    write_classes(root, {"cat": 2})
    (root / "dog").mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, "has no class folders"),
        (a_file, "is a file, not a folder"),
        (absent, "does not exist"),
        (one_class, "only one class, cat; a classifier needs two"),
        (images_in_it, "images that lie in it directly have no class"),
        (no_image_can_be_read, "none of its 6 images can be read"),
        (deeper, "these may be the classes"),
        (a_line_break, "classes that must be renamed"),
        (a_link_out, "links that lead out of it"),
        (an_empty_class, "no image in this class"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_and_nothing_is_written(tmp_path, make, message):
    make(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        init("pets", tmp_path / "images", 120.0, tmp_path)
    assert not (tmp_path / "experiments").exists()
    assert not (tmp_path / "mlflow.db").exists()


def two_of_a_class(root):
    write_classes(root, {"cat": 2, "dog": 2})
    return {"data.val_fraction": 0.25, "data.test_fraction": 0.25}


def many_classes(root):
    write_classes(root, {f"class {number:03}": 2 for number in range(60)})
    return {"search.metric": "val/accuracy"}


def one_unreadable(root):
    write_classes(root, {"cat": 20, "dog": 20})
    (root / "cat" / "broken.jpg").write_bytes(b"no image")
    return {"data.skip_unreadable": True}


def leaking_splits(root):
    for split, start in (("Train", 0), ("val", 100), ("TEST", 200)):
        for at, kind in enumerate(("cat", "dog")):
            write_class(root / split / kind, range(start + 20 * at, start + 20 * at + 12))
    write(root / "TEST" / "cat" / "copy.png", noise(0))
    return {"data.allow_leaks": True}


def circle_of_links(root):
    write_classes(root, {"cat": 12, "dog": 12})
    (root / "cat" / "again").symlink_to(root)
    return {}


def mixed_endings(root):
    for at, suffix in enumerate((".PNG", ".Jpg", ".bmp", ".TIFF")):
        write_class(root / "cat", range(10 * at, 10 * at + 5), suffix)
        write_class(root / "dog", range(100 + 10 * at, 100 + 10 * at + 5), suffix)
    return {}


def long_images(root):
    for at, kind in enumerate(("cat", "dog")):
        for number in range(12):
            write(root / kind / f"{number}.png", picture(20 * at + number, (60, 20)))
    return {"data.fit": "pad"}


def patients(root):
    for number in range(8):
        for visit in range(3):
            write(root / ("cat", "dog")[number % 2] / f"patient{number:02}_{visit}.png", noise(10 * number + visit))
    return {"groups": True}


@pytest.mark.parametrize(
    "make",
    [
        two_of_a_class, many_classes, one_unreadable, leaking_splits, circle_of_links, mixed_endings, long_images,
        patients,
    ],
)  # fmt: skip
def test_a_difficult_folder_gets_a_file_that_works(make_project, monkeypatch, make):
    project = make_project()
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("imgcls.init.recipe.LEAST_SIDE_TO_ENLARGE", 1000)  # a small network, which is quick
    expected = make(project.root / "images")
    result = init("hard", project.root / "images", 60.0, project.root)
    check_reasons(result)
    loaded = load_experiment(result.experiment)
    assert loaded == result.proposal.experiment
    dataset = prepare(loaded, Project(project.root)).dataset
    assert len(dataset.train) == result.facts["num_train"]
    if expected.pop("groups", False):
        (line,) = re.findall(r"^# groups = .*$", result.experiment.read_text(), re.MULTILINE)
        grouped = result.experiment.with_name("grouped.toml")
        grouped.write_text(result.experiment.read_text().replace(line, line.removeprefix("# ")))
        assert len(set(prepare(load_experiment(grouped), Project(project.root)).dataset.train.groups)) > 2
    assert expected.items() <= json.loads(json.dumps(flat(loaded))).items()


def flat(experiment):
    return {f"{table}.{key}": value for table in ("data", "search") for key, value in getattr(experiment, table)
            if isinstance(value, (str, bool, float))}  # fmt: skip


def test_grey_images_are_told_and_taken_as_grey(make_project, monkeypatch):
    project = make_project()
    monkeypatch.chdir(project.root)
    for at, kind in enumerate(("cat", "dog")):
        for number in range(30):
            grey = Image.fromarray(noise(100 * at + number)[..., 0])
            path = project.root / "images" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey.save(path)
    result = init("grey", project.root / "images", 60.0, project.root)
    assert result.facts["is_grey"]
    assert load_experiment(result.experiment).data.channels == 1


def test_a_folder_elsewhere_is_named_by_its_whole_path(make_project, tmp_path, monkeypatch):
    project = make_project()
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "images", {"cat": 12, "dog": 12})
    result = init("far", type(tmp_path)("images"), 60.0, project.root)
    assert load_experiment(result.experiment).data.path == str(tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_sample_of_many_images_is_called_one(make_project, monkeypatch):
    project = make_project()
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("imgcls.init.look.LOOK_SECONDS", 0.005)
    write_classes(project.root / "images", {"cat": 90, "dog": 60})
    result = init("many", project.root / "images", 60.0, project.root)
    assert result.facts["num_decoded"] < result.facts["num_images"] == 150
    assert "a sample" in dict(result.found)["Images"]
    assert sum(result.facts[f"num_{split}"] for split in ("train", "val", "test")) == 150
    assert Counter(np.sign(list(map(result.facts.get, ("num_train", "num_val", "num_test"))))) == {1: 3}


@pytest.mark.parametrize("inside", [".", "cat"])
def test_a_project_in_the_folder_of_images_is_refused(tmp_path, inside):
    write_classes(tmp_path / "images", {"cat": 12, "dog": 12})
    before = contents(tmp_path)
    with pytest.raises(InputError, match="go to a folder outside of it, such as"):
        init("pets", tmp_path / "images", 60.0, tmp_path / "images" / inside)
    assert contents(tmp_path) == before


def no_run(project):
    """MLflow refuses a run in an experiment that was deleted."""
    number = project.client.create_experiment("pets")
    project.client.delete_experiment(number)
    return lambda: project.client.restore_experiment(number)


def no_page(project):
    place = project.root / "mlruns" / ".init"
    place.parent.mkdir(exist_ok=True)
    place.write_text("a file")
    return place.unlink


@pytest.mark.parametrize("hinder", [no_run, no_page])
def test_a_failed_init_leaves_no_file_and_can_be_repeated(make_project, monkeypatch, hinder):
    project = make_project()
    monkeypatch.chdir(project.root)
    write_classes(project.root / "images", {"cat": 12, "dog": 12})
    undo = hinder(project)
    with pytest.raises(Exception, match=r"pets|\.init"):
        init("pets", project.root / "images", 60.0, project.root)
    assert [path.name for path in (project.root / "experiments").iterdir()] == ["tiny.toml"]
    undo()
    result = init("pets", project.root / "images", 60.0, project.root)
    assert result.experiment.is_file()
    assert result.page.is_file()


def test_labels_of_test_images_stay_out_of_the_findings(make_project, monkeypatch):
    project = make_project()
    monkeypatch.chdir(project.root)
    for start, split in ((0, "train"), (100, "test")):
        folder = project.root / "images" / split
        (twice, *_), _ = (write_class(folder / kind, range(start + at, start + at + 12))
                          for kind, at in (("cat", 0), ("dog", 20)))  # fmt: skip
        shutil.copy(twice, folder / "dog" / "again.png")
    result = init("pets", project.root / "images", 60.0, project.root)
    assert dict(result.found)["Conflicting labels"].startswith("1 picture of train or val")


@pytest.mark.slow
def test_the_sweep_works_as_it_stands(made, monkeypatch):
    from imgcls.search.sweep import sweep

    project, result, _ = made
    monkeypatch.chdir(project.root)
    done = sweep(load_experiment(result.experiment).replace({"search.trials": 2}), project.tracker)
    assert project.client.get_run(done.run_id).info.status == "FINISHED"
    assert find_run("last", project.tracker).run_id == done.run_id
