import hashlib
import logging
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError, Interrupted, TrainingError
from imgcls.tracking.artifact_places import local_path
from imgcls.tracking.store import Tracker
from tests import fast_start


def write_run(tracker, experiment="exp", **options):
    with tracker.start_run(experiment, kind="train", name="a run", **options) as run:
        run.log_params({f"key{i}": str(i) for i in range(150)})  # more than one call may carry
        run.log_metrics({"val/loss": 0.5, "val/accuracy": 0.75}, step=1, tags={"extra": "1"})
        run.log_text("folder/note.txt", "hello")
        run.log_dataset("exp/train", "train", "abc", "{}", {"num_images": 3})
    return run.run_id


def test_what_is_written_is_read_back_through_mlflow(project):
    run_id = write_run(project.tracker)
    run = project.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 150
    assert run.data.metrics == {"val/loss": 0.5, "val/accuracy": 0.75}
    assert run.data.tags["imgcls.kind"] == "train"
    assert run.data.tags["imgcls.outcome"] == "completed"
    assert {"imgcls.host", "imgcls.pid", "imgcls.process", "mlflow.user"} <= set(run.data.tags)
    assert [(i.dataset.name, i.tags[0].value) for i in run.inputs.dataset_inputs] == [("exp/train", "train")]
    assert [a.path for a in project.client.list_artifacts(run_id, "folder")] == ["folder/note.txt"]
    assert project.tracker.read_text(run_id, "folder/note.txt") == "hello"


def test_the_newest_runs_come_alone_and_the_oldest_of_them_first(project):
    written = [write_run(project.tracker) for _ in range(3)]
    assert [record.run_id for record in project.tracker.find({})] == written
    assert [record.run_id for record in project.tracker.find({}, newest=2)] == written[1:]
    assert [record.run_id for record in project.tracker.find({}, newest=9)] == written


@pytest.mark.parametrize(
    ("error", "status", "outcome", "reason"),
    [
        (Interrupted("stopped by SIGTERM"), "KILLED", "interrupted", "stopped by SIGTERM"),
        (KeyboardInterrupt(), "KILLED", "interrupted", "KeyboardInterrupt"),
        (TrainingError("the loss is nan at step 3\nmore"), "FAILED", "failed", "the loss is nan at step 3"),
        (ZeroDivisionError("oops"), "FAILED", "failed", "ZeroDivisionError: oops"),
    ],
)
def test_a_run_ends_as_it_deserves(project, error, status, outcome, reason):
    with (
        pytest.raises(type(error)),
        project.tracker.start_run("exp", kind="train", name="a run") as run,
    ):
        raise error
    ended = project.client.get_run(run.run_id)
    assert ended.info.status == status
    assert ended.data.tags["imgcls.outcome"] == outcome
    assert ended.data.tags["imgcls.reason"] == reason


def test_a_pruned_run_is_finished_and_says_pruned(project):
    with project.tracker.start_run("exp", kind="trial", name="a run") as run:
        run.outcome = "pruned"
    ended = project.client.get_run(run.run_id)
    assert (ended.info.status, ended.data.tags["imgcls.outcome"]) == ("FINISHED", "pruned")


def test_a_run_is_reopened_under_its_own_id(project):
    tracker = project.tracker
    run_id = write_run(tracker)
    with tracker.reopen_run(run_id) as run:
        assert tracker.get(run_id).status == "RUNNING"
        run.log_metrics({"val/loss": 0.25}, step=2)
    assert tracker.history(run_id, "val/loss") == [(1, 0.5), (2, 0.25)]
    assert tracker.get(run_id).status == "FINISHED"


def test_deleted_runs_are_found_only_when_asked_for(project):
    tracker = project.tracker
    run_id = write_run(tracker, tags={"imgcls.test_fingerprint": "f"})
    project.client.delete_run(run_id)
    assert tracker.find({"imgcls.test_fingerprint": "f"}) == []
    found = tracker.find({"imgcls.test_fingerprint": "f"}, with_deleted=True)
    assert [record.run_id for record in found] == [run_id]


def test_unknown_run_and_unknown_artifact_are_named(project):
    tracker = project.tracker
    with pytest.raises(InputError, match=r"no run 'nonsense'.*mlflow\.db"):
        tracker.get("nonsense")
    run_id = write_run(tracker)
    with pytest.raises(InputError, match=rf"run {run_id} has no artifact checkpoints/best\.pt"):
        tracker.read_text(run_id, "checkpoints/best.pt")


def test_a_deleted_experiment_says_how_to_restore_it(project):
    tracker = project.tracker
    write_run(tracker)
    project.client.delete_experiment(project.client.get_experiment_by_name("exp").experiment_id)
    with pytest.raises(InputError, match="mlflow experiments restore -x"):
        write_run(tracker)


def test_artifacts_lie_under_mlruns_and_the_store_is_in_wal_mode(project):
    run_id = write_run(project.tracker)
    folder = local_path(project.client.get_run(run_id).info.artifact_uri)
    assert folder is not None
    assert folder.is_relative_to(project.root / "mlruns" / "exp")
    with sqlite3.connect(project.root / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_moved_repository_finds_its_artifacts_again(project, tmp_path_factory, monkeypatch):
    run_id = write_run(project.tracker)
    moved = tmp_path_factory.mktemp("elsewhere") / "with a space"
    shutil.copytree(project.root, moved)
    shutil.rmtree(project.root / "mlruns")
    monkeypatch.chdir(moved)
    tracker = Tracker(moved)
    assert tracker.unreachable_artifacts() == 1
    assert tracker.read_text(run_id, "folder/note.txt") == "hello"
    assert tracker.relocate() >= 2  # the experiment and its run
    assert tracker.unreachable_artifacts() == 0
    client = MlflowClient(f"sqlite:///{moved / 'mlflow.db'}")
    assert Path(client.download_artifacts(run_id, "folder/note.txt")).read_text() == "hello"
    assert tracker.relocate() == 0


def test_another_store_is_used_where_the_environment_names_one(project, tmp_path, empty_store, monkeypatch):
    other = tmp_path / "other.db"
    shutil.copy(empty_store, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    run_id = write_run(project.tracker)
    assert MlflowClient(f"sqlite:///{other}").get_run(run_id).info.status == "FINISHED"
    with pytest.raises(MlflowException):
        project.client.get_run(run_id)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        project.tracker.relocate()


@pytest.mark.parametrize("truncates", ["true", "false"])
def test_a_value_too_long_for_mlflow_says_how_it_goes_on(project, monkeypatch, truncates):
    """By itself MLflow cuts the end off, or refuses the run, as its setting says."""
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", truncates)
    one, other = "a" * 6000 + "b", "a" * 6000 + "c"
    with project.tracker.start_run("exp", kind="train", name="a run", tags={"first": "t" * 9000}) as run:
        run.log_params({"one": one, "other": other, "fits": "a" * 6000})
        run.set_tags({"second": "t" * 9000, "fits": "t" * 8000})
    data = project.client.get_run(run.run_id).data
    assert data.params["fits"] == "a" * 6000 and data.tags["fits"] == "t" * 8000
    digest = hashlib.sha256(one.encode()).hexdigest()[:16]
    assert data.params["one"].endswith(f"a … (6001 characters, SHA-256 {digest}, whole in config.toml)")
    assert len(data.params["one"]) == 6000 and data.params["one"] != data.params["other"]
    assert data.tags["first"] == data.tags["second"] and "t … (9000 characters" in data.tags["first"]


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(project, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match="ends with this process and its runs with it; name a file"):
        Tracker(project.root)
    assert not list(project.root.rglob(":memory:"))


def test_an_old_file_store_in_the_way_is_explained(tmp_path):
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("")
    with pytest.raises(InputError, match="old file store"):
        Tracker(tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def test_git_state_is_recorded(project):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            cwd=project.root,
            check=True,
            capture_output=True,
        )

    git("init")
    git("add", "experiments")
    git("commit", "-m", "one")
    tags = project.tracker.get(write_run(project.tracker)).tags
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project.root, text=True).strip()
    assert tags["imgcls.git_commit"] == tags["mlflow.source.git.commit"] == commit
    assert tags["imgcls.git_dirty"] == "false"  # git does not know mlflow.db, which is not code


def test_the_address_of_the_repository_is_not_recorded(project):
    """A remote's address may hold a token."""

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=project.root, check=True, capture_output=True)

    git("init")
    git("remote", "add", "origin", "https://user:s3cret-token@example.org/x.git")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty", "-m", "one")
    run = project.client.get_run(write_run(project.tracker))
    assert run.data.tags["imgcls.git_commit"]
    assert "example.org" not in str(run.to_dictionary())
    assert b"s3cret-token" not in b"".join(path.read_bytes() for path in project.root.glob("mlflow.db*"))


HOSTILE_VALUES = ["x' or tags.`imgcls.kind` = 'train", 'x" or 1', "it's", "`a`", "a\\", "new\nline"]


def test_a_quote_in_a_value_neither_breaks_nor_widens_a_search(project):
    tracker = project.tracker
    written = {value: [write_run(tracker, tags={"extra.tag": value}) for _ in range(2)] for value in HOSTILE_VALUES}
    for value, run_ids in written.items():
        assert [record.run_id for record in tracker.find({"extra.tag": value})] == run_ids
        assert [record.run_id for record in tracker.find({"extra.tag": value}, newest=1)] == run_ids[1:]
        assert tracker.find({"extra.tag": value, "imgcls.kind": "sweep"}) == []
        assert tracker.find({"imgcls.kind": value}) == []
        assert tracker.find({f"a`.{value}": "x"}) == []


OUTSIDE = [
    "../note.txt", "/etc/passwd", "folder/../../note.txt", "", ".", "a//b", "a/./b", "a/", "C:\\x", "file:///x", "a\0b",
    "%2e%2e/x", ".hidden", "a\nb", "x\x1b[31m",
]  # fmt: skip


def test_a_name_that_leads_out_of_the_artifacts_is_refused(project):
    tracker = project.tracker
    run = tracker.amend(write_run(tracker))
    before = sorted((project.root / "mlruns").rglob("*"))
    for name in OUTSIDE:
        with pytest.raises(InputError, match="cannot be an artifact's name"):
            run.log_text(name, "x")
        with pytest.raises(InputError, match="cannot be an artifact's name"):
            tracker.read_text(run.run_id, name)
    assert sorted((project.root / "mlruns").rglob("*")) == before
    assert not (project.root / "note.txt").exists()


@pytest.mark.slow
def test_several_processes_may_create_the_same_store_at_once(tmp_path):
    program = "import sys, pathlib; from imgcls.tracking.store import Tracker; Tracker(pathlib.Path(sys.argv[1]))"
    workers = [fast_start.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0, 0, 0, 0]
    write_run(Tracker(tmp_path))
    assert not list(tmp_path.glob(".mlflow-*"))


def test_creating_a_store_is_quiet(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        Tracker(tmp_path)
    assert [record.name for record in caplog.records] == ["imgcls.tracking.mlflow_internals"]


def test_where_a_run_has_both_spellings_of_a_metric_the_newer_value_comes_last(project):
    run_id = write_run(project.tracker)
    for name, value in (("val/accuracy_best", 0.75), ("best/val/accuracy", 0.5)):
        project.client.log_metric(run_id, name, value, step=1)
    assert dict(project.tracker.history(run_id, "best/val/accuracy")) == {1: 0.75}


def test_threads_open_runs_at_the_same_time(project):
    def open_some(_):
        tracker, opened = Tracker(project.root), []
        for _ in range(4):
            with tracker.start_run("exp", kind="train", name="a run") as run:
                opened.append(run.run_id)
        return opened

    with ThreadPoolExecutor(4) as pool:
        opened = sorted(run_id for some in pool.map(open_some, range(4)) for run_id in some)
    assert opened == sorted(run.run_id for run in project.runs()) and len(set(opened)) == 16
