"""Projects that are copied, moved or linked; MLflow's own client is the oracle."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.engine import URL

from imgcls.clean import look_through, remove
from imgcls.errors import InputError, Interrupted
from imgcls.record import Artifact
from imgcls.search.sweep import Sweep
from imgcls.tracking.artifact_places import Places
from imgcls.tracking.store import Tracker
from imgcls.tracking.store_address import sqlite_address
from tests.conftest import Project
from tests.stops import StopAfter


def copied(project, folder):
    """As a user copies a project, or a backup brings it back: with times, links and all."""
    subprocess.run(["cp", "-a", str(project.root), str(folder)], check=True)
    return Project(folder)


def content(root):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


def places(project):
    return [e.artifact_location for e in project.client.search_experiments()]


def note(tracker, experiment="exp", text="hello"):
    with tracker.start_run(experiment, kind="train", name="a run") as run:
        run.log_text("folder/note.txt", text)
    return run.run_id


def seen_by_mlflow(root, run_id, name="folder/note.txt"):
    """Where MLflow's client finds an artifact of a project's store."""
    client = MlflowClient(URL.create("sqlite+pysqlite", database=str(root / "mlflow.db")).render_as_string())
    folder = Path(local_file_uri_to_path(client.get_run(run_id).info.artifact_uri))
    assert Path(client.download_artifacts(run_id, name)).read_bytes() == (folder / name).read_bytes()
    return folder / name


# --- copies ---------------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_in_a_copy_leaves_the_original_alone(project, tmp_path):
    with pytest.raises(Interrupted), StopAfter(7):
        project.train()
    stopped = project.runs(kind="train")[-1].run_id
    finished = project.train("train.epochs=1", "train.warmup_epochs=0").run_id
    copy = copied(project, tmp_path / "copy")
    before = content(project.root)
    assert copy.train().run_id == stopped
    for run_id, name in (
        (stopped, Artifact.BEST),
        (finished, Artifact.BEST),
        (note(copy.tracker, "tiny"), "folder/note.txt"),
    ):
        assert seen_by_mlflow(copy.root, run_id, name).is_relative_to(copy.root)
    assert copy.tracker.unreachable_artifacts() == 0
    found = look_through(copy.tracker)
    assert {item.path.relative_to(copy.root).name for item in found.items} == {Path(Artifact.LAST).name}
    remove(found)
    assert copy.tracker.close_orphans() == []
    assert content(project.root) == before


def test_to_look_into_a_copy_changes_neither(project, tmp_path):
    run_id = note(project.tracker)
    copy = copied(project, tmp_path / "copy")
    (copy.root / "mlruns" / "exp" / run_id / "artifacts" / "folder" / "note.txt").write_text("ours")
    before = content(project.root), content(copy.root / "mlruns"), places(copy)
    assert copy.tracker.read_text(run_id, "folder/note.txt") == "ours"
    assert copy.tracker.unreachable_artifacts() == 1
    assert (content(project.root), content(copy.root / "mlruns"), places(copy)) == before
    assert copy.tracker.relocate() >= 2  # the experiment and its run
    assert seen_by_mlflow(copy.root, run_id).read_text() == "ours"
    assert content(project.root) == before[0]


def test_a_copy_of_the_database_alone_says_what_is_missing(project, tmp_path):
    run_id = note(project.tracker)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in project.root.glob("mlflow.db*"):
        shutil.copy(file, copy)
    before = content(project.root)
    with pytest.raises(InputError, match=f"a copy without the run's files; copy {project.root}.* to {copy}"):
        Tracker(copy).read_text(run_id, "folder/note.txt")
    Tracker(copy).amend(run_id).log_text("new.txt", "new")
    note(Tracker(copy))
    assert content(project.root) == before
    assert seen_by_mlflow(copy, run_id, "new.txt").is_relative_to(copy)


@pytest.mark.slow
def test_a_sweep_that_goes_on_in_a_copy_leaves_the_original_alone(project, tmp_path):
    with pytest.raises(Interrupted), StopAfter(10):
        Sweep(project.experiment(), project.tracker).run()
    copy = copied(project, tmp_path / "copy")
    before = content(project.root)
    overrides = ("search.keep_pruned=true", "search.confirm.seeds=1", "search.confirm.top=1")
    result = Sweep(copy.experiment(*overrides), copy.tracker).run()
    assert seen_by_mlflow(copy.root, result.run_id, "config.toml").is_relative_to(copy.root)
    remove(look_through(copy.tracker))
    assert content(project.root) == before
    here = Sweep(project.experiment(*overrides), project.tracker).run()
    assert list(here.leaderboard["val/loss"]) == list(result.leaderboard["val/loss"])


def test_a_place_outside_of_the_project_is_not_written_to(project, tmp_path):
    outside = tmp_path / "outside"
    project.client.create_experiment("exp", artifact_location=outside.as_uri())
    run = project.client.create_run(project.client.get_experiment_by_name("exp").experiment_id)
    project.client.log_text(run.info.run_id, "hello", "folder/note.txt")
    before = content(outside)
    tracker = project.tracker
    assert tracker.read_text(run.info.run_id, "folder/note.txt") == "hello"
    assert tracker.get(run.info.run_id).folder is None  # so nothing of it is ever removed
    for write in (lambda: note(tracker), lambda: tracker.amend(run.info.run_id)):
        with pytest.raises(InputError, match=r"outside of this project.*imgcls doctor --relocate"):
            write()
    assert tracker.unreachable_artifacts() == 1
    tracker.relocate()
    assert tracker.relocate() == 0
    assert seen_by_mlflow(project.root, note(tracker)).is_relative_to(project.root)
    assert content(outside) == before


def test_a_project_seen_through_a_link_is_itself(project, tmp_path):
    run_id = note(project.tracker)
    (tmp_path / "link").symlink_to(project.root)
    linked = Tracker(tmp_path / "link")
    assert linked.unreachable_artifacts() == 0
    linked.amend(run_id).log_text("folder/note.txt", "again")
    assert seen_by_mlflow(project.root, run_id).read_text() == "again"


def test_another_store_is_left_as_it_is(project, tmp_path, monkeypatch):
    """One store for two projects: what it says holds, wherever it leads."""
    run_id = note(project.tracker)
    copy = copied(project, tmp_path / "copy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_address(project.root / "mlflow.db"))
    copy.tracker.amend(run_id).log_text("folder/note.txt", "again")
    assert (project.root / "mlruns" / "exp" / run_id / "artifacts" / "folder" / "note.txt").read_text() == "again"
    with pytest.raises(InputError, match="unset MLFLOW_TRACKING_URI"):
        copy.tracker.relocate()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_address(copy.root / "mlflow.db"))
    copy.tracker.amend(run_id).log_text("folder/note.txt", "ours")  # the project's own, however it is named
    assert seen_by_mlflow(project.root, run_id).read_text() == "again"


@pytest.mark.parametrize(
    ("stored", "here"),
    [
        ("project/mlruns/exp/1/artifacts", "mlruns/exp/1/artifacts"),
        ("project/elsewhere", "elsewhere"),
        ("other/mlruns/exp/1/artifacts", "mlruns/exp/1/artifacts"),
        ("project/../other/mlruns/exp", "mlruns/exp"),
        ("project2/mlruns/exp", "mlruns/exp"),
        ("data/mlruns/project/mlruns/exp", "mlruns/exp"),
        ("other/artifacts/exp", None),
        ("other/mlruns", None),
        ("project/mlruns/../../other", None),
    ],
)
def test_where_a_place_of_the_store_lies_here(tmp_path, stored, here):
    root = tmp_path / "project"
    assert Places(root).to_remove_from(f"{tmp_path}/{stored}") == (here and root / here)


def test_a_relative_place_starts_at_the_project_and_a_remote_one_lies_nowhere_here(tmp_path):
    assert Places(tmp_path).to_remove_from("mlruns/exp") == tmp_path / "mlruns" / "exp"
    assert Places(tmp_path).to_remove_from("s3://bucket/mlruns/exp") is None


def test_an_experiment_called_like_the_folder_of_all_is_found(tmp_path):
    (tmp_path / "mlruns" / "mlruns" / "1").mkdir(parents=True)
    assert Places(tmp_path).to_read(f"{tmp_path.parent}/other/mlruns/mlruns/1") == tmp_path / "mlruns" / "mlruns" / "1"
