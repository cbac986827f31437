"""Who may write a run that processes take over from one another: real stores, read through MLflow's own client."""

import time
from contextlib import ExitStack

import pytest

from imgcls.errors import LeaseLost
from imgcls.stored_names import process_of
from imgcls.tracking.claims import ClaimedError, claims_id
from imgcls.tracking.guard import Guard


class Lost:
    """A guard's check that lets writes pass until the lease is lost."""

    is_lost = False

    def __call__(self):
        if self.is_lost:
            raise LeaseLost("the lease is lost")


def stored(project, run_id):
    run = project.client.get_run(run_id)
    return run.info.status, run.data.tags, run.data.params, run.data.metrics, run.info.end_time


WRITES = {
    "params": lambda run: run.log_params({"key": "value"}),
    "metrics": lambda run: run.log_metrics({"val/loss": 1.0}, step=1),
    "tags": lambda run: run.set_tags({"imgcls.note": "late"}),
    "removal of a tag": lambda run: run.remove_tags(["imgcls.kind"]),
    "data set": lambda run: run.log_dataset("tiny/train", "train", "0", "{}", {}),
    "text": lambda run: run.log_text("late.txt", "late"),
    "heartbeat": lambda run: run.beat(),
}


@pytest.fixture
def trial(project):
    """A run that is written under a guard, its check, and what lets go of both."""
    lost = Lost()
    with ExitStack() as held:
        held.enter_context(project.tracker.guarded(Guard(lost)))
        yield held.enter_context(project.tracker.start_run("tiny", kind="trial", name="trial 0")), lost, held
        lost.is_lost = False


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_whoever_has_lost_its_lease_writes_nothing(project, trial, write):
    run, lost, _ = trial
    run.log_text("early.txt", "early")
    before = stored(project, run.run_id)
    lost.is_lost = True
    with pytest.raises(LeaseLost):
        write(run)
    assert stored(project, run.run_id) == before
    assert [path.name for path in run.folder.iterdir()] == ["early.txt"]


def test_a_run_whose_lease_is_lost_is_ended_by_its_successor_alone(project, trial):
    run, lost, held = trial
    before = stored(project, run.run_id)
    lost.is_lost = True
    with pytest.raises(LeaseLost):
        held.close()
    assert stored(project, run.run_id) == before
    assert before[0] == "RUNNING" and before[1]["imgcls.outcome"] == "running"


def test_an_artifact_that_was_being_written_when_the_lease_was_lost_is_not_put_in_place(trial):
    run, lost, _ = trial

    def write():
        with run.artifact("last.txt") as path:
            path.write_text("of a process that slept")
            lost.is_lost = True

    run.log_text("last.txt", "of its successor")
    with pytest.raises(LeaseLost):
        write()
    assert (run.folder / "last.txt").read_text() == "of its successor"


def test_no_run_begins_without_the_lease(project):
    lost = Lost()
    lost.is_lost = True
    with (
        pytest.raises(LeaseLost),
        project.tracker.guarded(Guard(lost)),
        project.tracker.start_run("tiny", kind="trial", name="trial 0"),
    ):
        pass
    assert project.runs() == []


@pytest.mark.parametrize("guard", [Guard(), Guard(takes_over=True), Guard(takes_over=True, is_everywhere=True)])
def test_a_run_of_another_machine_is_taken_over_at_once_only_where_leases_hold_on_all_machines(project, guard):
    experiment_id = project.client.create_experiment("tiny")
    tags = {"imgcls.claims": "elsewhere", "imgcls.heartbeat": f"{time.time():.0f}", "imgcls.kind": "trial"}
    tags |= {"imgcls.outcome": "running", "imgcls.host": "elsewhere", "imgcls.pid": "1"}
    run_id = project.client.create_run(experiment_id, tags=tags).info.run_id
    with project.tracker.guarded(guard):
        if not guard.is_everywhere:
            with pytest.raises(ClaimedError, match="process 1 of elsewhere"), project.tracker.reopen_run(run_id):
                pass
            return
        with project.tracker.reopen_run(run_id):
            assert process_of(stored(project, run_id)[1])["claims"] == claims_id(project.root)
    assert stored(project, run_id)[0] == "FINISHED"
