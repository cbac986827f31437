"""`imgcls clean` on real runs: what goes, and what stays whatever goes."""

import os
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imgcls import clean
from imgcls.cli import app
from imgcls.data.cache_folder import cache_folder
from imgcls.errors import Interrupted, TrainingError
from imgcls.evaluation.judge import evaluate
from imgcls.record import Artifact
from imgcls.search.confirm import confirm_sweep
from imgcls.search.sweep import Sweep
from imgcls.training.checkpoint import load_checkpoint
from tests.stops import StopAfter

SHORT = ("train.epochs=1", "train.warmup_epochs=0")


def look(project):
    return clean.look_through(project.tracker)


def found(project, kind):
    return {item.path for item in look(project).items if item.kind == kind}


def make_room(project):
    clean.remove(look(project))


def checkpoint(project, run_id, name=Artifact.BEST):
    return project.tracker.get(run_id).folder / name


def leave(path, age=0.0):
    """What a killed process left, so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    for entry in (path, path.parent):
        os.utime(entry, (time.time() - age,) * 2)
    return path


@pytest.fixture(scope="module")
def swept(make_project):
    """A sweep with completed and pruned trials, one of which was judged and one confirmed."""
    project = make_project()
    overrides = (
        "search.keep_pruned=true",
        'search.pruner="median"',
        'search.sampler="tpe"',
        "search.trials=9",
        "train.epochs=4",
        "search.space.train.lr={low = 1e-7, high = 3e-2, log = true}",
    )
    result = Sweep(project.experiment(*overrides), project.tracker).run()
    last = result.leaderboard[result.leaderboard["outcome"] == "completed"].iloc[-1]["run_id"]
    evaluate(last, project.tracker)
    confirm_sweep(result.run_id, project.tracker, top=2, seeds=1)
    return project, result.run_id, last


@pytest.mark.slow
def test_after_a_sweep_the_losers_give_up_their_weights_and_nobody_else_does(swept):
    project, sweep_id, judged = swept
    trials = {r.run_id: r for r in project.tracker.children(sweep_id, "trial")}
    sweep = project.tracker.get(sweep_id)
    numbers = sweep.tags["imgcls.confirmed_trials"].split(",")
    confirmed = {run_id for run_id, r in trials.items() if r.tags["imgcls.trial"] in numbers}
    fresh = {r.run_id for r in project.tracker.children(sweep_id, "confirm")}
    assert sweep.tags["imgcls.best_run_id"] in fresh and len(confirmed) == 2
    kept = fresh | confirmed | {judged}
    before = {run_id: sorted(p.name for p in checkpoint(project, run_id).parent.iterdir()) for run_id in kept}
    losers = {i for i, r in trials.items() if r.outcome == "completed"} - kept
    pruned = {i for i, r in trials.items() if r.outcome == "pruned"}
    assert losers and pruned
    assert found(project, clean.NOT_CHOSEN) == {checkpoint(project, i) for i in losers}
    assert found(project, clean.RESUMED) >= {checkpoint(project, i, Artifact.LAST) for i in losers}
    states = [p for i in pruned for p in checkpoint(project, i).parent.glob("*")]
    assert found(project, clean.ENDED_EARLY) == set(states)
    rest = {
        p for i in trials for p in checkpoint(project, i).parent.parent.rglob("*") if p.parent.name != "checkpoints"
    }

    make_room(project)

    for run_id in kept:
        assert sorted(p.name for p in checkpoint(project, run_id).parent.iterdir()) == before[run_id]
        load_checkpoint(checkpoint(project, run_id))
    assert not [p for i in losers | pruned for p in checkpoint(project, i).parent.iterdir()]
    assert all(path.exists() for path in rest)  # predictions, config, curves
    assert look(project).items == ()
    assert evaluate(sweep_id, project.tracker).test["accuracy"] > 0.5  # the winner can still be judged
    again = confirm_sweep(sweep_id, project.tracker, top=2, seeds=2)
    assert len(again.winner.values) == 2


def test_a_train_run_keeps_its_best_and_gives_up_what_it_would_be_resumed_from(project):
    done = project.trained("train.epochs=2", "train.save_from_epoch=1")
    folder = checkpoint(project, done.run_id).parent
    leftover = leave(folder / ".last.pt.4711")
    epochs = {folder / "epoch_0001.pt", folder / "epoch_0002.pt"}
    assert found(project, clean.EPOCHS) == epochs
    assert found(project, clean.RESUMED) == {folder / "last.pt"}
    assert found(project, clean.LEFTOVERS) == {leftover}
    make_room(project)
    assert [path.name for path in folder.iterdir()] == ["best.pt"]


def test_folds_of_a_pruned_or_failed_trial_give_up_their_checkpoints_as_it_does(project):
    done = project.train(*SHORT, "data.folds=2", kind="trial", prune_folds=lambda _: True)
    (fold,) = project.tracker.children(done.run_id, "fold")
    own = {checkpoint(project, fold.run_id), checkpoint(project, fold.run_id, Artifact.LAST)}
    assert (done.outcome, found(project, clean.FOLDS)) == ("pruned", set())
    assert found(project, clean.ENDED_EARLY) == own
    project.tracker.close_run(done.run_id, "failed", "as if a later fold had failed")
    assert found(project, clean.ENDED_EARLY) == own


def test_what_goes_on_is_not_touched(project):
    with pytest.raises(Interrupted), StopAfter(12):
        project.train("train.epochs=9")
    with pytest.raises(Interrupted), StopAfter(30):
        Sweep(project.experiment(), project.tracker).run()  # trial 0 is completed
    (trial, *_) = project.runs(kind="trial", outcome="completed")
    (stopped, *_) = project.runs(kind="train")
    leave(checkpoint(project, stopped.run_id).parent / ".last.pt.4711")
    with project.tracker.start_run("tiny", kind="train", name="running now") as run:
        leave(checkpoint(project, run.run_id, Artifact.LAST))
        gone = {item.path for item in look(project).items}
    # The sweep has not ended, so any trial may still be its winner.
    assert gone == {checkpoint(project, trial.run_id, Artifact.LAST)}


def test_a_failed_train_run_keeps_its_last_good_state(project):
    with pytest.raises(TrainingError):
        project.train("train.lr=2e30", "train.warmup_epochs=0")
    (record,) = project.runs(kind="train")
    assert record.status == "FAILED"
    leave(checkpoint(project, record.run_id, Artifact.LAST))
    assert look(project).items == ()


def test_a_deleted_run_gives_up_its_folder_and_a_deleted_look_nothing(project):
    done = project.trained(*SHORT, judged=True)
    (look_id,) = (record.run_id for record in project.runs(kind="evaluation"))
    other = project.train(*SHORT)
    for run_id in (look_id, other.run_id):
        project.client.delete_run(run_id)
    folder = project.tracker.get(other.run_id).folder.parent
    assert found(project, clean.DELETED) == {folder}
    assert checkpoint(project, done.run_id, Artifact.LAST) not in {
        item.path for item in look(project).items
    }  # it was judged
    make_room(project)
    assert not folder.exists()
    assert project.tracker.read_text(look_id, Artifact.TEST_IMAGES)  # the look still counts


def test_no_path_outside_of_a_runs_own_folder_is_ever_removed(project, tmp_path):
    """A deleted run whose artifact location somebody pointed elsewhere, and a link in the place of checkpoints."""
    elsewhere = tmp_path / "photographs"
    leave(elsewhere / "checkpoints" / "last.pt")
    experiment = project.client.create_experiment("odd", artifact_location=elsewhere.as_uri())
    odd = project.client.create_run(experiment, tags={"imgcls.kind": "train", "imgcls.outcome": "completed"})
    project.client.set_terminated(odd.info.run_id)
    shutil.copytree(elsewhere, Path(odd.info.artifact_uri.removeprefix("file://")))
    done = project.train(*SHORT)
    folder = checkpoint(project, done.run_id).parent
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere / "checkpoints")
    foreign = project.client.create_run(experiment)  # not of imgcls
    project.client.delete_run(foreign.info.run_id)
    leave(elsewhere / foreign.info.run_id / "artifacts" / "model.bin")
    make_room(project)
    assert (elsewhere / "checkpoints" / "last.pt").exists()
    assert (elsewhere / foreign.info.run_id / "artifacts" / "model.bin").exists()


def test_leftovers_of_killed_processes_go_once_nobody_can_be_at_them(project):
    old = leave(project.root / ".mlflow-old" / "mlflow.db", age=2 * clean.ABANDONED_AFTER)
    new = leave(project.root / ".mlflow-new" / "mlflow.db")
    report = leave(project.tracker.get(project.train(*SHORT).run_id).folder / "figures" / ".curves.png.host.12")
    decoded = leave(cache_folder() / "building-old" / "images.npy", age=48 * 3600)
    decoding = leave(cache_folder() / "building-new" / "images.npy")
    lock = leave(cache_folder() / "building-x.lock", age=48 * 3600)
    assert found(project, clean.LEFTOVERS) == {old.parent, decoded.parent, report, lock}
    make_room(project)
    assert new.exists() and decoding.exists()
    assert not any(path.exists() for path in (old.parent, decoded.parent, report, lock))
    shutil.rmtree(decoding.parent)


def test_artifacts_that_are_not_on_this_machine_are_left_alone_and_said(project):
    experiment = project.client.create_experiment("far", artifact_location="s3://bucket/far")
    far = project.client.create_run(experiment, tags={"imgcls.kind": "train", "imgcls.outcome": "completed"})
    project.client.set_terminated(far.info.run_id)
    findings = look(project)
    assert (findings.items, findings.num_elsewhere) == ((), 1)
    assert "1 run keeps its artifacts elsewhere" in clean.as_text(findings)


def test_the_verb_lists_and_removes_only_when_told_to(project):
    done = project.trained(*SHORT)
    last = checkpoint(project, done.run_id, Artifact.LAST)
    shown = CliRunner().invoke(app, ["clean"])
    assert shown.exit_code == 0
    assert clean.RESUMED in shown.stdout and "nothing was removed" in shown.stdout
    assert last.exists()
    assert "removed" in CliRunner().invoke(app, ["clean", "--yes"]).stdout
    assert not last.exists()
    for arguments in (["clean"], ["clean", "--yes"]):
        assert CliRunner().invoke(app, arguments).stdout == "nothing may go: 0B in all\n"
