import json
import signal
import subprocess
import sys
import time

import pytest

from imgcls.cli import app
from imgcls.errors import InputError
from imgcls.run_record import RunRecord
from imgcls.tracking import folder_identity
from imgcls.tracking.claims import ClaimedError, claim, claims_id, is_claimed
from imgcls.tracking.heartbeat import seconds_to_silence
from imgcls.tracking.store import Tracker
from imgcls.tracking.store_address import sqlite_address

HOLD = """
import sys, pathlib
from imgcls.tracking.claims import claim
with claim(pathlib.Path(sys.argv[1]), "run", "run 1"):
    print("held", flush=True)
    sys.stdin.read()
"""

LOOK = """
import sys, pathlib
from imgcls.tracking.claims import is_claimed
print(is_claimed(pathlib.Path(sys.argv[1]), "other"))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the claim `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_claim_keeps_others_out_and_names_its_holder(tmp_path, holder):
    assert is_claimed(tmp_path, "run")
    with (
        pytest.raises(ClaimedError, match=f"run 1 is already running .process {holder.pid}."),
        claim(tmp_path, "run", "run 1"),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_kernel_frees_the_claim_of_a_killed_process(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert not is_claimed(tmp_path, "run")
    with claim(tmp_path, "run", "run 1"):
        assert is_claimed(tmp_path, "run")
    assert not is_claimed(tmp_path, "run")


def test_a_claim_is_not_given_twice_to_the_same_process(tmp_path):
    with claim(tmp_path, "run", "run 1"):
        with pytest.raises(InputError), claim(tmp_path, "run", "run 1"):
            pass
        with claim(tmp_path, "other", "run 2"):
            assert is_claimed(tmp_path, "run")


def test_a_claim_that_is_taken_over_stays_with_its_new_holder_when_the_old_one_ends(tmp_path, holder):
    with claim(tmp_path, "run", "run 1", takes_over=True):
        holder.communicate()
        assert holder.returncode == 0
        done = subprocess.run(
            [sys.executable, "-c", LOOK.replace('"other"', '"run"'), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "True\n"
    assert not is_claimed(tmp_path, "run")


def test_looking_does_not_free_a_claim_of_ones_own(tmp_path):
    with claim(tmp_path, "other", "run 2"):
        assert is_claimed(tmp_path, "other")
        done = subprocess.run([sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


def test_claims_leave_no_files(tmp_path):
    with claim(tmp_path, "run", "run 1"):
        pass
    assert list((tmp_path / "mlruns" / ".claims").iterdir()) == []


def test_a_folder_of_claims_keeps_its_name(tmp_path):
    assert claims_id(tmp_path / "a") == claims_id(tmp_path / "a") != claims_id(tmp_path / "b")


def test_a_copy_of_the_folder_has_another_name(tmp_path):
    """All of its files are the same, the name that was drawn among them."""
    original = tmp_path / "original"
    name = claims_id(original)
    for how in ("-a", "-al"):  # with links in the place of files the inodes are the same too
        copy = tmp_path / f"copy{how}"
        subprocess.run(["cp", how, str(original), str(copy)], check=True)
        drawn = [(folder / "mlruns/.claims/id").read_text() for folder in (original, copy)]
        assert drawn[0] == drawn[1]
        assert claims_id(copy) == claims_id(copy) != name
    (tmp_path / "link").symlink_to(original)
    assert claims_id(tmp_path / "link") == claims_id(original) == name


def test_what_takes_the_place_of_a_folder_has_another_name(tmp_path):
    name = claims_id(tmp_path / "project")
    (tmp_path / "project").rename(tmp_path / "before")
    subprocess.run(["cp", "-a", str(tmp_path / "before"), str(tmp_path / "project")], check=True)
    assert claims_id(tmp_path / "project") != name


def test_the_same_folder_on_another_machine_has_another_name(tmp_path, monkeypatch):
    name = claims_id(tmp_path)
    (tmp_path / "machine-id").write_text("another\n")
    (tmp_path / "uninitialized").write_text("uninitialized\n")
    monkeypatch.setattr(
        folder_identity, "MACHINE_ID", (tmp_path / "nothing", tmp_path / "uninitialized", tmp_path / "machine-id")
    )
    folder_identity.machine.cache_clear()
    try:
        assert folder_identity.machine() == "another"
        assert claims_id(tmp_path) != name
    finally:
        folder_identity.machine.cache_clear()


def test_with_one_store_for_both_a_copy_leaves_the_runs_of_the_original_alone(project, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    with project.tracker.start_run("exp", kind="train", name="a run", identity="1d") as run:
        subprocess.run(["cp", "-a", str(project.root), str(copy)], check=True)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_address(project.root / "mlflow.db"))
        tracker = Tracker(copy)
        assert tracker.close_orphans() == []
        assert tracker.is_running(tracker.get(run.run_id))
        with pytest.raises(ClaimedError, match="cannot be seen from here"), tracker.reopen_run(run.run_id):
            pass
        assert project.client.get_run(run.run_id).info.status == "RUNNING"
    assert project.client.get_run(run.run_id).info.status == "FINISHED"


def test_doctor_and_train_in_a_copy_leave_a_run_alone_that_trains_in_the_original(
    project, tmp_path, monkeypatch, capsys
):
    """One store for both; what is asked in the copy is asked while the original is between two epochs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_address(project.root / "mlflow.db"))
    copy, said = tmp_path / "copy", []

    def work_in_the_copy(result):
        if result.epoch == 1:
            subprocess.run(["cp", "-a", str(project.root), str(copy)], check=True)
            monkeypatch.chdir(copy)
            capsys.readouterr()
            for command in (["doctor", "--json"], ["train", "tiny", "--json"]):
                assert app(command, standalone_mode=False) in (0, None)
                said.append(json.loads(capsys.readouterr().out))
            monkeypatch.chdir(project.root)
        return False

    done = project.train(prune=work_in_the_copy)
    doctor, trained = said
    assert (doctor["num_closed"], doctor["is_well"]) == (0, True)
    assert trained["run_id"] != done.run_id
    for run_id in (done.run_id, trained["run_id"]):
        assert project.client.get_run(run_id).info.status == "FINISHED"
        steps = [point.step for point in project.client.get_metric_history(run_id, "val/loss")]
        assert steps == [1, 2, 3]


def test_a_run_of_an_earlier_version_is_judged_by_its_heartbeat(project):
    """Its tag is the bare text of the file."""
    with project.tracker.start_run("exp", kind="train", name="a run") as run:
        earlier = (project.root / "mlruns/.claims/id").read_text()
        project.client.delete_tag(run.run_id, "imgcls.process")
        project.client.set_tag(run.run_id, "imgcls.claims", earlier)
        project.client.set_tag(run.run_id, "imgcls.heartbeat", f"{time.time():.0f}")
        assert project.tracker.is_running(project.tracker.get(run.run_id))
        project.client.set_tag(run.run_id, "imgcls.heartbeat", f"{time.time() - 700:.0f}")
        assert not project.tracker.is_running(project.tracker.get(run.run_id))


@pytest.mark.parametrize(("seconds", "beating"), [(30, True), (700, False)])
def test_of_a_run_elsewhere_the_heartbeat_tells(seconds, beating):
    for tags in (
        {"imgcls.process": f'{{"heartbeat": {time.time() - seconds:.0f}}}'},
        {"imgcls.heartbeat": f"{time.time() - seconds:.0f}"},
    ):
        record = RunRecord("id", "exp", "run", "RUNNING", 0, params={}, metrics={}, tags=tags)
        assert (seconds_to_silence(record) > 0) is beating
