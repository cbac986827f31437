"""The verbs of the library against those of the shell, on the same store."""

import json
import tomllib
from contextlib import chdir

import pandas as pd
import pytest
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import imgcls
from imgcls.cli import app
from imgcls.runs.val_predictions import recorded_predictions
from tests.conftest import TINY

TABLES = tomllib.loads(TINY)

QUICK = {"train.epochs": 1, "train.warmup_epochs": 0}


def shell(project, *arguments):
    """What a verb of the shell prints in the folder of a project."""
    with chdir(project.root):
        done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def without_run(facts):
    return {name: value for name, value in facts.items() if not name.startswith("run_id")}


@pytest.fixture(scope="module")
def trained(make_project):
    """A project with a run and a sweep that the library made, and what it gave, from whatever working folder."""
    project = make_project()
    experiment = imgcls.load_experiment(project.root / "experiments" / "tiny.toml", **QUICK)
    run = imgcls.train(experiment)
    sweep = imgcls.sweep(experiment, search={"trials": 2, "space": {"train.lr": [1e-2, 2e-2]}})
    return project, run, sweep


def test_the_record_of_a_run_is_where_the_experiment_lies(trained):
    project, run, _ = trained
    record = project.client.get_run(run.run_id)
    assert record.data.tags["imgcls.kind"] == "train"
    assert record.data.tags["imgcls.outcome"] == "completed"
    assert record.data.metrics["val/accuracy_best"] == run.scores["best/val/accuracy"]
    assert run.best_epoch == record.data.metrics["best_epoch"] == 1
    assert run.root == project.root.resolve()
    assert run.run_id in repr(run)
    assert run.run_id in run._repr_html_()


def test_a_sweep_stands_for_its_winner(trained):
    project, _, sweep = trained
    record = project.client.get_run(sweep.run_id)
    assert sweep.best_run_id == record.data.tags["imgcls.best_run_id"] == sweep.leaderboard.iloc[0]["run_id"]
    assert len(sweep.leaderboard) == record.data.metrics["num_trials"] == 2
    assert sweep.scores["best/val/accuracy"] == record.data.metrics["val/accuracy_best"]


@pytest.mark.slow
def test_evaluations_comparisons_and_lists_are_those_of_the_shell(trained, monkeypatch):
    """Whatever names a run: a result, an id, the beginning of one, a word."""
    project, run, sweep = trained
    first = imgcls.evaluate(sweep)  # from another working folder: a result knows its project
    assert (first.look, first.is_recorded, first.judged_run_id) == (1, False, sweep.best_run_id)
    assert first.scores == shell(project, "evaluate", "best")
    monkeypatch.chdir(project.root)
    for same in (first, sweep, sweep.run_id, sweep.best_run_id[:8], "best", "last"):
        again = imgcls.evaluate(same)
        assert again.is_recorded
        assert again.scores == first.scores
        assert again.report == first.report
    assert "95%" in repr(first)
    assert imgcls.compare(run, sweep).scores == shell(project, "compare", run.run_id, "best")
    assert imgcls.compare(run, "best")._repr_markdown_().startswith("#")

    listed = imgcls.list_runs()
    said = shell(project, "runs")
    assert list(listed["run_id"]) == [row["run_id"] for row in said]
    assert set(listed.columns) == {name for row in said for name in row}
    for row, expected in zip(listed.to_dict("records"), said, strict=True):
        there = {name: value for name, value in row.items() if not pd.isna(value) and not name.endswith("_time")}
        assert there == {name: v for name, v in expected.items() if v is not None and not name.endswith("_time")}
        assert row["start_time"] == pd.Timestamp(expected["start_time"])
    assert list(imgcls.list_runs("tiny", limit=2)["run_id"]) == list(listed["run_id"][:2])


def test_the_shell_gets_the_same_scores(trained):
    project, run, _ = trained
    options = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    assert without_run(shell(project, "train", "tiny", "--fresh", *options)) == without_run(run.scores)


def test_a_loaded_model_gives_the_recorded_probabilities(trained):
    """Whatever names the run, from another working folder."""
    project, run, sweep = trained
    for named, run_id in ((run, run.run_id), (sweep, sweep.best_run_id)):
        model = imgcls.load_model(named)
        assert isinstance(model, imgcls.Classifier)
        recorded = recorded_predictions(project.tracker.get(run_id), project.tracker)
        val = project.prepare().dataset.val
        squares = val.stored[val.at[:20]]
        for raw, prefix in ((True, "prob"), (False, "calibrated")):
            expected = recorded[[f"{prefix}/{name}" for name in model.class_names]][:20]
            assert abs(model.probs(squares, raw=raw) - expected.to_numpy()).max() <= 1e-5


def test_a_loaded_model_predicts_arrays(trained):
    project, run, _ = trained
    images = list(load_digits().images[:3].astype("uint8") * 16)
    table = imgcls.load_model(run).predict(images, raw=True, test_look=True)
    assert list(table.columns) == ["image", "prediction", *(f"prob/{digit}" for digit in range(10))]
    assert table["image"].tolist() == ["0", "1", "2"]
    assert project.root.is_dir()


@pytest.mark.slow
def test_an_empty_folder_is_enough(tmp_path, monkeypatch):
    """No experiments/, no store, no clone: as after a plain pip install."""
    monkeypatch.chdir(tmp_path)
    assert imgcls.list_runs().empty
    assert {"run_id", "imgcls.kind", "start_time"} <= set(imgcls.list_runs().columns)
    run = imgcls.train(TABLES, **QUICK)
    assert list(imgcls.list_runs()["run_id"]) == [run.run_id]
    assert imgcls.evaluate("last").judged_run_id == run.run_id
    assert (tmp_path / "mlflow.db").is_file()


REFUSALS = [
    (lambda: imgcls.train("tiny", **{"train.device": "cuda:9"}), "cuda:9"),
    (lambda: imgcls.train("tinny"), "did you mean 'tiny'"),
    (lambda: imgcls.sweep({"name": "x"}), "has no \\[search.space\\]"),
    (lambda: imgcls.evaluate("best"), "no sweep has finished"),
    (lambda: imgcls.evaluate("abcdef12"), "no run 'abcdef12'"),
    (lambda: imgcls.compare("last"), "at least two runs"),
    (lambda: imgcls.list_runs("tiny"), "no runs of an experiment 'tiny'"),
    (lambda: imgcls.list_runs(limit=0), "limit = 0: give a whole number from 1 to 1000"),
    (lambda: imgcls.list_runs(limit=-1), "limit = -1: "),
    (lambda: imgcls.list_runs(limit=1001), "limit = 1001: "),
    (lambda: imgcls.list_runs(limit="5"), "limit = '5': "),
    (lambda: imgcls.list_runs(3), "3 names no experiment"),
    (lambda: imgcls.load_model(None), "None names no run; give its id"),
    (lambda: imgcls.load_model(3), "3 names no run"),
    (lambda: imgcls.evaluate(b"last"), "b'last' names no run"),
    (lambda: imgcls.compare("last", 3), "3 names no run"),
    (lambda: imgcls.train(None), "None names no experiment; give a name"),
    (lambda: imgcls.load_experiment(3), "3 names no experiment"),
    (lambda: imgcls.load_experiment(b"tiny"), "b'tiny' names no experiment"),
    (
        lambda: imgcls.load_experiment("tiny", **{"train.lr": 1e-3, "train": {"lr": 2e-3}}),
        "train.lr is given twice, as 0.001 and 0.002",
    ),
    (
        lambda: imgcls.load_experiment(
            "tiny", **{"search.space.train.lr": [1e-3], "search": {"space": {"train.lr": [2e-3]}}}
        ),
        "search.space.train.lr is given twice",
    ),
]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_refusals_are_errors_of_imgcls(call, message):
    with pytest.raises(imgcls.errors.InputError, match=message):
        call()
