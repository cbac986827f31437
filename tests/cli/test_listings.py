"""What the verbs that list print: a table for people, flat JSON for programs, read beside MLflow's own client."""

import json
import math

import pytest
from mlflow.entities import Metric, Param, RunTag

from imgcls.cli import app
from imgcls.config.key_table import config_table
from imgcls.machine import seen_by_auto

BEGAN = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


@pytest.fixture
def shell(capsys):
    """A command in this process -> what it prints."""

    def run(*arguments):
        assert app(arguments, standalone_mode=False) in (0, None)
        return capsys.readouterr().out

    return run


@pytest.fixture
def store(project):
    """A sweep, a trial, a run that goes on and an evaluation, written by MLflow's client."""
    client = project.client
    experiment = client.create_experiment("birds")

    def write(seconds, ended, kind, params=(), metrics=(), **tags):
        run = client.create_run(experiment, start_time=BEGAN + 1000 * seconds, run_name=f"a {kind}")
        run_id = run.info.run_id
        tags = {"kind": kind, "outcome": "completed" if ended else "running", **tags}
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, BEGAN, 0) for name, value in dict(metrics).items()],
            params=[Param(name, value) for name, value in dict(params).items()],
            tags=[RunTag(f"imgcls.{name}", value) for name, value in tags.items()],
        )
        if ended:
            client.set_terminated(run_id, "FINISHED", BEGAN + 1000 * ended)
        return run_id

    drawn = {
        "search.space.train.lr": "{ low = 0.002, high = 0.03, log = true }",
        "search.space.model.stem": '["small", "standard"]',
        "train.lr": "0.014113542549831064",
        "model.stem": "small",
        "train.epochs": "4",
    }
    scores = {"test/accuracy": 0.5, "test/accuracy_low": 0.4, "test/accuracy_high": 0.6, "test/loss": 0.7}
    sweep = write(0, 3700, "sweep", metrics={"num_trials": 1}, best_run_id="x")
    trial = write(10, 75, "trial", drawn, {"best/val/accuracy": 0.75, "val/loss": math.nan}, num_val="60")
    going = write(20, None, "train", {"search.space.train.lr": "[1.0]", "train.lr": "0.5"})
    judged = write(30, 40, "evaluation", metrics=scores, evaluated_run_id=trial)
    client.set_tag(judged, "mlflow.user", "ada")
    return {"sweep": sweep, "trial": trial, "train": going, "evaluation": judged}


@pytest.mark.parametrize("verb", ["runs", "ledger", "clean", "cache"])
@pytest.mark.usefixtures("project")
def test_nothing_is_an_empty_list(shell, monkeypatch, tmp_path, verb):
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path))
    assert shell(verb, "--json") == "[]\n"


def test_the_cache_lists_what_is_kept_and_what_was_removed(project, shell, monkeypatch, tmp_path):
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path))
    project.prepare("data.seed=7")
    kept = json.loads(shell("cache", "--json"))
    assert kept and not any(row["removed"] for row in kept)
    assert sum(row["num_bytes"] for row in kept) == sum(path.stat().st_size for path in tmp_path.rglob("*.*"))
    assert [row["removed"] for row in json.loads(shell("cache", "--prune", "0", "--json"))] == [True] * len(kept)
    assert shell("cache", "--json") == "[]\n"


@pytest.mark.usefixtures("store")
def test_every_list_holds_flat_objects_of_plain_values(shell):
    for verb in ("runs", "ledger", "keys"):
        rows = json.loads(shell(verb, "--json"))
        assert rows
        for row in rows:
            assert all(isinstance(value, str | int | float | None) for value in row.values())


def test_runs_are_facts_of_the_record_the_newest_first(project, store, shell):
    rows = json.loads(shell("runs", "--json"), parse_constant=pytest.fail)
    assert [row["run_id"] for row in rows] == [store[kind] for kind in ("evaluation", "train", "trial", "sweep")]
    for row in rows:
        run = project.client.get_run(row["run_id"])
        assert row["imgcls.kind"] == run.data.tags["imgcls.kind"]
        for name, value in run.data.metrics.items():
            assert row[name] == (None if math.isnan(value) else value)
    trial = rows[2]
    assert (trial["train.lr"], trial["model.stem"]) == (0.014113542549831064, "small")
    assert "train.epochs" not in trial
    assert (trial["start_time"], trial["seconds"]) == ("2023-11-14T22:13:30+00:00", 65.0)
    going = rows[1]
    assert (going["end_time"], going["seconds"], "train.lr" in going) == (None, None, False)
    assert going["mlflow.parentRunId"] is None


def test_runs_have_a_header_dates_durations_and_the_values_of_trials(store, shell):
    header, *lines = shell("runs").splitlines()
    assert header.split("  ")[0] == "run"
    columns = [header.index(name) for name in ("kind", "outcome", "started", "start to end", "values", "score")]
    first = {kind: next(line for line in lines if run_id in line) for kind, run_id in store.items()}
    cells = [first["trial"][a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
    assert cells[:3] == ["trial", "completed", "2023-11-14 22:13:30"]
    assert cells[3].startswith("1 min 05 s")
    assert cells[4] == "train.lr = 0.01411, model.stem = small"
    assert cells[5].startswith("val/accuracy 0.8 (")
    assert "1 h 01 min" in first["sweep"] and "goes on" in first["train"]
    assert not [line for line in lines if line != line.rstrip()]


def test_the_ledger_says_who_looked_and_what_came_of_it(store, shell):
    (look,) = json.loads(shell("ledger", "--json"))
    assert (look["run_id"], look["imgcls.evaluated_run_id"]) == (store["evaluation"], store["trial"])
    assert (look["test/accuracy"], look["mlflow.user"], look["imgcls.test_look"]) == (0.5, "ada", None)
    assert look["is_deleted"] is False


def test_keys_are_those_that_begin_so(shell):
    rows = json.loads(shell("keys", "--json"))
    assert [row["key"] for row in rows] == [key for key, _, _ in config_table()]
    assert {row["key"]: row["default"] for row in rows}["augment.random_resized_crop"] == "[1.0, 1.0]"
    assert shell("keys", "train.lr").splitlines()[0] == "train.lr = 0.001"
    assert [row["key"] for row in json.loads(shell("keys", "search.t", "--json"))] == [
        "search.trials",
        "search.timeout",
    ]


def test_clean_goes_on_beside_a_trial_that_has_no_number(project, shell):
    client = project.client
    experiment = client.create_experiment("birds", (project.root / "mlruns" / "birds").as_uri())
    for kind in ("trial", "confirm"):
        run = client.create_run(experiment)
        client.log_batch(run.info.run_id, tags=[RunTag("imgcls.kind", kind), RunTag("imgcls.outcome", "completed")])
    assert json.loads(shell("clean", "--json")) == []


def test_clean_lists_each_file_and_says_whether_it_is_gone(project, shell):
    client = project.client
    run = client.create_run(client.create_experiment("birds", (project.root / "mlruns" / "birds").as_uri()))
    client.log_batch(run.info.run_id, tags=[RunTag("imgcls.kind", "train"), RunTag("imgcls.outcome", "completed")])
    client.log_text(run.info.run_id, "12345", "checkpoints/last.pt")
    client.set_terminated(run.info.run_id)
    (item,) = json.loads(shell("clean", "--json"))
    assert (item["num_bytes"], item["removed"]) == (5, False)
    (gone,) = json.loads(shell("clean", "--json", "--yes"))
    assert gone == item | {"removed": True}
    assert shell("clean", "--json") == "[]\n"


@pytest.mark.usefixtures("project")
def test_a_doctor_who_finds_nothing_says_that_all_is_well(shell):
    assert shell("doctor").startswith("all is well: 0 runs in 0 experiments; ")
    seen = seen_by_auto()
    found = json.loads(shell("doctor", "--json"))
    assert {key: found.pop(key) for key in seen}["num_usable_cores"] == seen["num_usable_cores"]
    assert found == {
        "is_well": True, "num_runs": 0, "num_experiments": 0, "num_closed": 0, "closed_run_ids": "",
        "is_all_sent": True, "num_unreachable_experiments": 0, "at_work": "",
    }  # fmt: skip
    shell("doctor", "--relocate")
    assert json.loads(shell("doctor", "--relocate", "--json")) == {"num_relocated": 0}


@pytest.mark.usefixtures("project")
def test_a_doctor_says_what_auto_sees_of_the_machine(shell, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    said = shell("doctor").splitlines()[-1]
    assert f"see {seen_by_auto()['num_usable_cores']} of " in said
    assert "OMP_NUM_THREADS = 3, so all trials together get no more threads" in said


def test_a_doctor_names_what_was_closed_and_what_is_not_there(project, shell):
    client = project.client
    gone = client.create_experiment("gone", (project.root / "nowhere").as_uri())
    run_id = client.create_run(gone).info.run_id
    tags = {"kind": "train", "outcome": "running", "host": "elsewhere", "pid": "1", "claims": "other"}
    client.log_batch(run_id, tags=[RunTag(f"imgcls.{name}", value) for name, value in tags.items()])
    said = shell("doctor").splitlines()
    assert said[0].startswith(f"closed because its process is gone: {run_id} (train, gone, ")
    assert said[1].startswith("1 experiment with artifacts that are not where the store says; ")
    assert said[2] == "not all is well, see above: 1 run in 1 experiment"
    assert client.get_run(run_id).info.status == "KILLED"
    assert json.loads(shell("doctor", "--json"))["is_well"] is False
