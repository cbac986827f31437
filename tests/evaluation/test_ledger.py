"""Looks are written down, counted by the images they share, and never taken twice by mistake."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.data.held_out import HeldOut
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.ledger import as_text, past_looks


def judge(project, run_id, **options):
    return evaluate(run_id, project.tracker, project.root, **options)


def refuse(*_):
    raise AssertionError("the test split was opened")


def test_the_second_evaluation_of_a_run_gives_the_recorded_result(project, monkeypatch):
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    first = judge(project, done.run_id)
    with monkeypatch.context() as sealed:
        sealed.setattr(HeldOut, "open", refuse)
        second = judge(project, done.run_id)
    assert second.is_recorded and not first.is_recorded
    assert (second.flat(), second.report) == (first.flat(), first.report)
    assert len(project.runs(kind="evaluation")) == 1


def test_again_forces_a_further_look(project):
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    first, second = judge(project, done.run_id), judge(project, done.run_id, again=True)
    assert (first.look, second.look) == (1, 2)
    assert second.test == first.test
    assert "look 2" in second.report.lower()
    assert judge(project, done.run_id).run_id == second.run_id


def test_a_crashed_look_counts_and_has_no_result_to_give(project, monkeypatch):
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    with monkeypatch.context() as crashing:
        crashing.setattr("imgcls.evaluation.judge._judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge(project, done.run_id)
    assert judge(project, done.run_id).look == 2
    crashed, whole = past_looks(project.tracker)
    assert (crashed.number, crashed.test) == (1, None)
    assert whole.number == 2 and whole.test is not None


def test_neither_another_image_size_nor_another_experiment_starts_afresh(project):
    judge(project, project.train("train.epochs=1", "train.warmup_epochs=0").run_id)
    other = project.train("train.epochs=1", "train.warmup_epochs=0", "data.image_size=12", "name=another")
    assert judge(project, other.run_id).look == 2


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


def test_a_look_counts_where_any_test_image_is_shared(project, photographs):
    assert look_at(project, photographs / "mine").look == 1
    assert look_at(project, photographs / "strangers").look == 1
    assert look_at(project, photographs / "theirs").look == 2  # one image of mine, as another file


def test_looks_that_cannot_be_told_apart_count(project, photographs):
    first = look_at(project, photographs / "mine")
    with project.tracker.fetch(first.run_id, "report/test_images.txt") as path:
        path.unlink()
    assert look_at(project, photographs / "strangers").look == 1, "the project remembers it"
    (project.root / "mlruns" / ".looks" / f"{first.run_id}.npz").unlink()
    assert look_at(project, photographs / "strangers").look == 3


def test_the_ledger_lists_every_look_deleted_ones_too(project):
    assert as_text(past_looks(project.tracker)) == "no test split was ever opened in this store"
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    first, second = judge(project, done.run_id), judge(project, done.run_id, again=True)
    project.client.delete_run(first.run_id)
    shown = CliRunner().invoke(app, ["ledger"]).stdout
    header, *lines = shown.splitlines()
    assert "when (UTC)" in header and len(lines) == 2
    assert f"{first.run_id} (deleted)" in lines[0] and done.run_id in lines[0]
    assert second.run_id in lines[1]
    tags = project.tracker.get(second.run_id).tags
    assert f"{tags['mlflow.user']}@{tags['imgcls.host']}" in lines[1]
    assert f"{second.test.accuracy:.2f}"[:3] in lines[1]
