"""Looks are written down, counted by the images they share, and never taken twice by mistake."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import chdir

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.data.held_out import HeldOut
from imgcls.errors import DataError
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.ledger import as_text, past_looks
from imgcls.runs.announce import announce
from imgcls.search.sweep import Sweep
from imgcls.search.winner import flat
from imgcls.tracking import recorded_looks
from tests.data.make import picture, write


def judge(project, run_id, **options):
    return evaluate(run_id, project.tracker, **options)


def refuse(*_):
    raise AssertionError("the test split was opened")


def test_the_second_evaluation_of_a_run_gives_the_recorded_result(project, monkeypatch):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    first = judge(project, done.run_id)
    with monkeypatch.context() as sealed:
        sealed.setattr(HeldOut, "open", refuse)
        second = judge(project, done.run_id)
    assert second.is_recorded and not first.is_recorded
    assert (second.flat(), second.report) == (first.flat(), first.report)
    assert len(project.runs(kind="evaluation")) == 1


@pytest.mark.slow
def test_again_forces_a_further_look(project):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    first, second = judge(project, done.run_id), judge(project, done.run_id, again=True)
    assert (first.record.look, second.record.look) == (1, 2)
    assert second.test == first.test
    assert "look 2" in second.report.lower()
    assert judge(project, done.run_id).run_id == second.run_id


@pytest.mark.parametrize("metric", ["val/accuracy", pytest.param("val/macro_f1", marks=pytest.mark.slow)])
def test_the_description_of_the_run_judged_begins_with_its_test_score(project, metric):
    done = project.train("train.epochs=1", "train.warmup_epochs=0", f"search.metric={metric}")
    before = described(project, done.run_id)
    assert before.startswith(f"{metric} **")
    for look, again in ((1, False), (1, False), (2, True)):
        result = judge(project, done.run_id, again=again)
        first, _, rest = described(project, done.run_id).partition("\n\n")
        low, high = (result.record.metrics[f"test/accuracy_{end}"] for end in ("low", "high"))
        assert f"test/accuracy {result.test['accuracy']:.2f} ({low:.2f} to {high:.2f})" in first
        assert first.startswith(f"**test/{metric.removeprefix('val/')} 0.")
        assert first.endswith(f" on 449 test images, look {look}.") and rest == before
        assert described(project, result.run_id).partition("\n\n")[0] == first


def described(project, run_id):
    return project.client.get_run(run_id).data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_a_crashed_look_counts_and_has_no_result_to_give(project, monkeypatch):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    with monkeypatch.context() as crashing:
        crashing.setattr("imgcls.evaluation.judge._judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge(project, done.run_id)
    assert judge(project, done.run_id).record.look == 2
    crashed, whole = past_looks(project.tracker)
    assert (crashed.number, crashed.test) == (1, None)
    assert whole.number == 2 and whole.test is not None


@pytest.mark.slow
def test_neither_another_image_size_nor_another_experiment_starts_afresh(project):
    judge(project, project.trained("train.epochs=1", "train.warmup_epochs=0").run_id)
    other = project.train("train.epochs=1", "train.warmup_epochs=0", "data.image_size=12", "name=another")
    assert judge(project, other.run_id).record.look == 2


@pytest.fixture
def photographs(tmp_path):
    """Two data sets of two plain colours: `mine`, and `theirs`, whose test split holds one image of mine."""
    draws = np.random.default_rng(0)
    for name in ("mine", "theirs", "strangers"):
        for split, count in (("train", 8), ("test", 4)):
            for kind, colour in (("blue", (20, 20, 200)), ("red", (200, 20, 20))):
                folder = tmp_path / name / split / kind
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = np.clip(np.array(colour) + draws.normal(0, 20, (12, 12, 3)), 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
    Image.open(tmp_path / "mine/test/red/0.png").save(tmp_path / "theirs/test/red/9.bmp")
    return tmp_path


def look_at(project, folder):
    done = project.train(
        'data.source="folder"', f"data.path={folder}", "train.batch_size=4", "data.val_fraction=0.25",
        "train.epochs=1", "train.warmup_epochs=0",
    )  # fmt: skip
    return judge(project, done.run_id)


@pytest.mark.slow
def test_a_look_counts_where_any_test_image_is_shared(project, photographs):
    assert look_at(project, photographs / "mine").record.look == 1
    assert look_at(project, photographs / "strangers").record.look == 1
    assert look_at(project, photographs / "theirs").record.look == 2  # one image of mine, as another file


@pytest.mark.slow
def test_looks_that_cannot_be_told_apart_count(project, photographs):
    first = look_at(project, photographs / "mine")
    with project.tracker.fetch(first.run_id, "report/test_images.txt") as path:
        path.unlink()
    assert look_at(project, photographs / "strangers").record.look == 1, "the project remembers it"
    (project.root / "mlruns" / ".looks" / f"{first.run_id}.npz").unlink()
    assert look_at(project, photographs / "strangers").record.look == 3


@pytest.mark.slow
def test_the_ledger_lists_every_look_deleted_ones_too(project):
    assert as_text(past_looks(project.tracker)) == "no test split was ever opened in this store"
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    first, second = judge(project, done.run_id), judge(project, done.run_id, again=True)
    project.client.delete_run(first.run_id)
    shown = CliRunner().invoke(app, ["ledger"]).stdout
    header, *lines = shown.splitlines()
    assert "when (UTC)" in header and len(lines) == 2
    assert f"{first.run_id} (deleted)" in lines[0] and done.run_id in lines[0]
    assert second.run_id in lines[1]
    tags = project.tracker.get(second.run_id).tags
    assert f"{tags['mlflow.user']}@{tags['imgcls.host']}" in lines[1]
    assert f"{second.test['accuracy']:.2f}"[:3] in lines[1]


@pytest.fixture
def pictures(tmp_path):
    """Twelve train and eight test pictures with patches of light and shade, half of them of each class."""
    return draw(tmp_path / "pictures")


def draw(folder):
    for split, seeds in (("train", range(12)), ("test", range(100, 108))):
        for seed in seeds:
            write(folder / split / "ab"[seed % 2] / f"{seed}.png", picture(seed))
    return folder


@pytest.fixture(scope="module")
def _after_a_look(make_project, tmp_path_factory):
    made = make_project()
    with chdir(made.root):
        return made, look_at(made, draw(tmp_path_factory.mktemp("drawn") / "pictures"))


@pytest.fixture
def first(project, _after_a_look):
    """The first look, at pictures like `pictures`, which is in the record of `project`."""
    kept, look = _after_a_look
    project.become(kept)
    assert look.record.look == 1
    return look


def changed(pictures, folder, change):
    """The same images, those of test changed."""
    shutil.copytree(pictures, folder)
    for path in sorted((folder / "test").rglob("*.png")):
        with Image.open(path) as image:
            change(image.copy(), path)
    return folder


def save_as_jpeg(image, path):
    path.unlink()
    image.save(path.with_suffix(".jpg"), quality=100)


def cut_a_column(image, path):
    image.crop((1, 0, *image.size)).save(path)


@pytest.mark.parametrize("change", [save_as_jpeg, cut_a_column])
@pytest.mark.usefixtures("first")
def test_changing_the_files_does_not_start_the_count_again(project, pictures, tmp_path, change):
    assert look_at(project, changed(pictures, tmp_path / "changed", change)).record.look == 2


@pytest.mark.slow
def test_a_few_images_that_look_alike_are_said_and_no_further_look(project, pictures, tmp_path):
    look_at(project, pictures)
    few = changed(pictures, tmp_path / "few", lambda _, path: write(path, picture(200 + int(path.stem))))
    write(few / "test" / "a" / "copy.jpg", picture(100), quality=90)
    result = look_at(project, few)
    assert result.record.look == 1 and "1 of its images looks like images which earlier looks opened" in result.report
    assert project.tracker.get(result.run_id).tags["imgcls.num_test_alike"] == "1"


def test_looks_survive_their_runs(project, pictures, first):
    folder = project.tracker.get(first.run_id).folder
    project.client.delete_run(first.run_id)
    with sqlite3.connect(project.root / "mlflow.db") as database:  # as `mlflow gc` does, which takes seconds to start
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (first.run_id,))
    shutil.rmtree(folder)
    assert look_at(project, pictures).record.look == 2


@pytest.mark.slow
def test_looks_survive_mlflows_own_garbage_collection(project, pictures, tmp_path):
    first = look_at(project, pictures)
    folder = project.tracker.get(first.run_id).folder
    project.client.delete_run(first.run_id)
    store = f"sqlite:///{project.root / 'mlflow.db'}"
    collect = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store, "--tracking-uri", store]
    done = subprocess.run(collect, cwd=project.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(MlflowException, match="not found"):
        project.client.get_run(first.run_id)
    assert not folder.exists()
    CliRunner().invoke(app, ["clean", "--yes"], catch_exceptions=False)
    result = look_at(project, changed(pictures, tmp_path / "again", save_as_jpeg))
    assert result.record.look == 2 and result.flat()["imgcls.test_look"] == 2
    assert "this test split had been opened once before" in result.report
    assert "no earlier opening" not in result.report


@pytest.mark.usefixtures("first")
def test_images_that_were_opened_before_are_said_from_the_start(project, pictures, caplog, monkeypatch):
    (pictures / "test").rename(pictures.parent / "more")
    for path in (pictures.parent / "more").rglob("*.png"):
        with Image.open(path) as image:
            image.save(pictures / "train" / path.parent.name / f"more{path.stem}.jpg", quality=95)
    settings = (
        'data.source="folder"',
        f"data.path={pictures}",
        "train.batch_size=4",
        "train.epochs=1",
        "train.warmup_epochs=0",
    )
    done = project.train(*settings, "data.test_fraction=0")
    tags = project.client.get_run(done.run_id).data.tags
    assert tags["imgcls.num_opened_before"] == "8" and done.caution_tags["imgcls.num_opened_before"] == "8"
    assert "8 train and val images were opened as test images" in tags["mlflow.note.content"]
    with monkeypatch.context() as searched:  # which takes minutes for a large data set, and every trial asks
        searched.setattr(recorded_looks, "copies", pytest.fail)
        again = project.train(*settings, "data.test_fraction=0", "train.seed=1")
    assert again.caution_tags == done.caution_tags
    announce(project.prepare(*settings), project.tracker, runs="1 run")
    assert "8 train and val images were opened as test images" in caplog.text


@pytest.mark.slow
def test_without_a_test_split_what_was_opened_before_stands_in_every_word_about_the_winner(project, caplog):
    """The digits that were judged go into train and val."""
    quick = ("train.epochs=1", "train.warmup_epochs=0", "model.width=4")
    judged = judge(project, project.trained(*quick).run_id)
    space = ("search.space.model.depth=[8]", "search.space.train.warmup_epochs=[0]", "search.trials=1")
    experiment = project.experiment(*quick, *space, "data.test_fraction=0")
    caplog.set_level("INFO")
    found = Sweep(experiment, project.tracker).run()
    assert "digits: 10 classes; " in caplog.text and ", no test; " in caplog.text
    num_opened = int(project.client.get_run(found.run_id).data.tags["imgcls.num_opened_before"])
    num_test = int(project.tracker.get(judged.run_id).tags["imgcls.num_test"])
    assert num_test <= num_opened <= 1.02 * num_test  # and those that look like one
    said = f"{num_opened} train and val images were opened as test images by an earlier evaluation in this store"
    assert said in caplog.text
    for run_id in (found.run_id, found.best_run_id):
        data = project.client.get_run(run_id).data
        assert data.tags["imgcls.num_opened_before"] == str(num_opened) and said in data.tags["mlflow.note.content"]
    report = project.tracker.read_text(found.run_id, "report/report.md")
    assert said in report and "never" not in report
    assert flat(project.tracker.get(found.run_id))["imgcls.num_opened_before"] == num_opened
    with pytest.raises(DataError, match="no test split"):
        judge(project, found.run_id)
