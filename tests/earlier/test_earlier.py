"""A store that an earlier version recorded: judged, repeated, compared and gone on with as what it is, or not at all.

`record.py` says what is in it. Where its artifacts lay is written in its database, and is rewritten here.
"""

import io
import json
import logging
import sqlite3
import tarfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from packaging.version import Version

from imgcls import project as projects
from imgcls.config.load import load_experiment
from imgcls.data.held_out import Look
from imgcls.errors import InputError
from imgcls.evaluation.compare import compare
from imgcls.evaluation.comparison_report import comparison_markdown
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.runs.prepare import prepare
from imgcls.runs.rebuild import rebuild
from imgcls.runs.train import train_run
from imgcls.search.confirm import confirm_sweep
from imgcls.search.sweep import Sweep
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import temperature_fit
from tests.conftest import Project

RECORDED_IN = "/tmp/project"
SCORES = ("loss", "accuracy", "balanced_accuracy", "macro_f1")
LOOK = Look("fixture", 1, lambda: True)


@pytest.fixture(scope="module")
def archive():
    return (Path(__file__).parent / "project.tar.xz").read_bytes()


@pytest.fixture
def earlier(archive, tmp_path, monkeypatch):
    if Version(mlflow.__version__) < Version("3.17"):
        pytest.skip(
            f"MLflow 3.17 wrote the recorded store, and the installed MLflow {mlflow.__version__} refuses to open "
            "a store of a later version"
        )
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (RECORDED_IN, str(tmp_path)))
    database.close()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def only(project, experiment, **tags):
    """The one run of that experiment with these tags, as the earlier version left it."""
    (found,) = project.tracker.find({f"imgcls.{key}": value for key, value in tags.items()}, experiment=experiment)
    assert "imgcls.squares" not in found.tags and "imgcls.loss" not in found.tags
    return found


def prepared(project, experiment, *overrides):
    path = project.root / "experiments" / f"{experiment}.toml"
    return prepare(load_experiment(path, ["report.figures=none", *overrides]), projects.Project(project.root))


def train(project, experiment, *overrides):
    return train_run(prepared(project, experiment, *overrides), project.tracker, kind="train", name=experiment)


def tags_of(project, run_id):
    return project.client.get_run(run_id).data.tags


def predictions(project, run_id, split):
    text = project.tracker.read_text(run_id, f"predictions/{split}.csv")
    return pd.read_csv(io.StringIO(text)).sort_values("image").reset_index(drop=True)


def test_the_temperature_of_a_run_is_fitted_on_the_predictions_that_it_recorded(earlier):
    run = only(earlier, "photos", kind="train")
    assert not [name for name in evaluate(run.run_id, earlier.tracker).flat() if "temperature" in name]
    result = evaluate(run.run_id, earlier.tracker, again=True)
    val = predictions(earlier, run.run_id, "val")
    names = [column for column in val if column.startswith("prob/")]
    labels = [names.index(f"prob/{label}") for label in val["label"]]
    fit = temperature_fit(Predictions(np.log(val[names].to_numpy()), np.array(labels)))
    metrics = earlier.client.get_run(result.run_id).data.metrics
    assert metrics["best_temperature_gain"] == pytest.approx(fit.gain)
    assert metrics["best_temperature"] == pytest.approx(fit.temperature)
    assert (
        "recorded by an earlier version, which fitted no temperature. The temperature was fitted for this"
        in result.report
    )
    assert {"test/calibrated_loss", "val/calibrated_ece"} <= result.flat().keys()


def test_a_run_without_the_tag_has_the_pixels_that_it_was_scored_on(earlier):
    oracle = np.load(earlier.root / "squares.npz")
    dataset = rebuild(only(earlier, "photos", kind="train"), earlier.tracker).dataset
    assert dataset.squares == 1
    for name, images in (("val", dataset.val), ("test", dataset.test.open(LOOK))):
        assert images.keys == tuple(oracle[f"{name}_keys"]) and np.array_equal(images.pixels, oracle[name]), name
    now = prepared(earlier, "photos").dataset
    assert now.squares == 2 and now.val.keys == dataset.val.keys
    assert not np.array_equal(now.val.pixels, oracle["val"])  # or this could not tell the two formats apart


def test_a_run_without_the_tag_is_judged_on_the_pixels_that_it_was_trained_with(earlier):
    """Its val score, recomputed before test is opened, and its test predictions are those that were recorded."""
    record, before = only(earlier, "photos", kind="train"), only(earlier, "photos", kind="evaluation")
    again = evaluate(record.run_id, earlier.tracker, again=True)
    then, now = predictions(earlier, before.run_id, "test"), predictions(earlier, again.run_id, "test")
    assert then["image"].equals(now["image"])
    for name in ("prob/coarse", "prob/fine"):
        np.testing.assert_allclose(then[name], now[name], atol=1e-5)
    assert tags_of(earlier, again.run_id)["imgcls.squares"] == "1"
    recorded = evaluate(record.run_id, earlier.tracker)
    assert recorded.is_recorded and recorded.test == again.test


@pytest.mark.parametrize("of", ["photos", "sweep"])
def test_a_run_without_the_tag_is_repeated_with_its_own_pixels(earlier, of, caplog):
    """And the repeat says so, so that it too is judged on them."""
    caplog.set_level(logging.INFO)
    record = only(earlier, "photos", kind="train") if of == "photos" else only(earlier, "search", kind="sweep")
    verdict = rerun(record.run_id, earlier.tracker)
    assert verdict.is_verified and (verdict.is_bitwise or not verdict.owes_bits), verdict
    assert tags_of(earlier, verdict.now.run_id)["imgcls.squares"] == "1"
    assert "is repeated with the val images that it had, and a new run of its config would have others" in caplog.text
    then, now = (predictions(earlier, run_id, "val") for run_id in (verdict.then.run_id, verdict.now.run_id))
    np.testing.assert_allclose(then["prob/fine"], now["prob/fine"], atol=1e-4)
    assert evaluate(verdict.now.run_id, earlier.tracker).judged.run_id == verdict.now.run_id
    facts = verdict.flat()
    assert (facts["imgcls.squares"], facts["imgcls.loss"], facts["repeated/imgcls.loss"]) == (1, 2, 1)


def test_a_new_run_of_the_same_experiment_has_the_new_format_and_comparing_says_so(earlier):
    then = only(earlier, "photos", kind="train")
    done = train(earlier, "photos")
    tags = tags_of(earlier, done.run_id)
    assert (tags["imgcls.squares"], tags["imgcls.loss"]) == ("2", "2")
    compared = compare([then.run_id, done.run_id], earlier.tracker)
    assert compared.differences["imgcls.squares"] == ("1", "2")
    assert "imgcls.squares" in comparison_markdown(compared)


@pytest.mark.slow
def test_a_loss_of_an_earlier_definition_is_not_repeated_silently(earlier, caplog):
    record = only(earlier, "weighted", kind="train")
    caplog.set_level(logging.INFO)
    verdict = rerun(record.run_id, earlier.tracker)
    assert "would have others" not in caplog.text  # without crops the two formats are the same
    said = "its loss multiplied every class's share of a smoothed or mixed label by that class's weight"
    assert f"run {record.run_id} cannot be repeated as it was: {said}" in caplog.text
    assert not verdict.is_verified and verdict.word == "no"
    assert verdict.causes[0].startswith(f"loss: {said}") and said in verdict.markdown()
    assert said in json.dumps(verdict.flat())
    assert tags_of(earlier, verdict.now.run_id)["imgcls.loss"] == "2"
    assert said in earlier.tracker.read_text(verdict.now.run_id, "report/report.md")
    # Its scores are what they were, and may be judged.
    assert evaluate(record.run_id, earlier.tracker).judged.run_id == record.run_id


@pytest.mark.parametrize(
    ("experiment", "why"),
    [
        ("stopped", "val images were made from train's larger squares"),
        ("weighing", "its loss multiplied every class's"),
    ],
)
def test_an_unfinished_run_that_was_made_otherwise_is_not_gone_on_with(earlier, experiment, why, caplog):
    before = only(earlier, experiment, kind="train", outcome="interrupted")
    done = train(earlier, experiment)
    assert done.run_id != before.run_id
    assert f"run {before.run_id} of the same experiment was begun by an earlier version" in caplog.text
    assert why in caplog.text and "a new run begins" in caplog.text
    assert earlier.tracker.get(before.run_id) == before
    caplog.clear()
    train(earlier, experiment)  # the newest run of this work is whole now
    assert "earlier version" not in caplog.text


@pytest.mark.slow
def test_an_unfinished_run_in_which_nothing_was_otherwise_goes_on(earlier):
    """Without class weights the loss is the same, and without crops the pixels are."""
    before = only(earlier, "weighing", kind="train")
    with sqlite3.connect(earlier.root / "mlflow.db") as database:
        for key, value in (("train.class_weights", "none"), ("train.epochs", "2")):
            database.execute("UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", (value, before.run_id, key))
    database.close()
    assert train(earlier, "weighing", "train.class_weights=none").run_id == before.run_id
    steps = {name: {step for step, _ in earlier.tracker.history(before.run_id, f"val/{name}")} for name in SCORES}
    assert steps["loss"] == steps["accuracy"] == {1, 2}
    assert steps["balanced_accuracy"] == steps["macro_f1"] < {1, 2}  # what was not measured is not made up
    assert train(earlier, "weighing", "train.class_weights=none", "data.fit=pad").run_id != before.run_id


def test_a_sweep_that_was_begun_otherwise_is_a_new_study_and_says_why(earlier, caplog):
    caplog.set_level(logging.INFO)
    before = only(earlier, "searching", kind="sweep")
    default_of_then = 'search.pruner="median"'
    experiment = load_experiment(earlier.root / "experiments" / "searching.toml", [default_of_then])
    sweep = Sweep(experiment, earlier.tracker)
    with sweep._parent_run() as run:
        tags = tags_of(earlier, run.run_id)
    assert run.run_id != before.run_id and (tags["imgcls.squares"], tags["imgcls.loss"]) == ("2", "2")
    assert f"sweep {before.run_id} of the same experiment was begun by an earlier version of imgcls" in caplog.text
    assert "(imgcls.squares = 1, imgcls.loss = 1; now 2 and 2)" in caplog.text
    assert "the experiment or its data differ" not in caplog.text


def test_another_experiment_is_still_another_experiment(earlier, caplog):
    caplog.set_level(logging.INFO)
    experiment = load_experiment(earlier.root / "experiments" / "searching.toml", ["train.batch_size=8"])
    sweep = Sweep(experiment, earlier.tracker)
    with sweep._parent_run():
        pass
    assert "the experiment or its data differ from those of sweep" in caplog.text
    assert "earlier version" not in caplog.text


@pytest.mark.slow
def test_an_earlier_sweep_is_confirmed_with_the_pixels_of_its_trials(earlier):
    sweep = only(earlier, "search", kind="sweep")
    result = confirm_sweep(sweep.run_id, earlier.tracker, top=1, seeds=1)
    assert tags_of(earlier, result.best_run_id)["imgcls.squares"] == "1"
    assert evaluate(sweep.run_id, earlier.tracker).judged.run_id == result.best_run_id


def test_a_trial_with_an_earlier_loss_is_not_confirmed(earlier):
    sweep = only(earlier, "search", kind="sweep")
    for trial in earlier.tracker.children(sweep.run_id, "trial"):
        config = trial.folder / "config.toml"
        config.write_text(config.read_text().replace('class_weights = "none"', 'class_weights = "auto"'))
    with pytest.raises(InputError, match=r"cannot be confirmed, because fresh runs would have another loss: its loss"):
        confirm_sweep(sweep.run_id, earlier.tracker, top=1, seeds=1)
    assert earlier.tracker.children(sweep.run_id, "confirm") == []


def test_a_format_of_a_later_version_is_refused(earlier):
    record = only(earlier, "photos", kind="train")
    earlier.client.set_tag(record.run_id, "imgcls.squares", "4")
    with pytest.raises(InputError, match=r"imgcls\.squares = 4, and this version of imgcls knows 1 to 3"):
        evaluate(record.run_id, earlier.tracker)
