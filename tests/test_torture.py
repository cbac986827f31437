"""The judge of the torture sees what is wrong; many writers; two sweeps at once."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tomllib
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage

from imgcls.config.keys import Experiment
from imgcls.search.journal import Journal
from imgcls.search.sweep import Sweep
from torture.evidence import check_totals, compare, gather
from torture.instants import Blow, Pace, draw_blow, draw_instant
from torture.victim import EXPERIMENT, EXPERIMENTS, Victim, in_folds, with_settings
from torture.writers import run_writers

NUM_TRIALS = 2


@pytest.fixture(scope="module")
def swept(make_project):
    """A sweep that nobody touched."""
    project = make_project()
    overrides = (f"search.trials={NUM_TRIALS}", "train.epochs=2")
    Sweep(project.experiment(*overrides), project.tracker).run()
    return project.root


@pytest.fixture(scope="module")
def reference(swept):
    return gather(swept)


@pytest.fixture
def copy(swept, tmp_path):
    """The same sweep in another place, to be damaged."""
    root = tmp_path / "copy"
    shutil.copytree(swept, root)
    sql(root, "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", str(swept), str(root))
    return root


def sql(root, statement, *values):
    with sqlite3.connect(root / "mlflow.db") as database:
        assert database.execute(statement, values).rowcount >= 1, statement
    database.close()


def trial_id(root, number=1):
    return next(trial.run_id for trial in gather(root).trials if trial.number == number)


def artifact(root, name):
    (path,) = (root / "mlruns").glob(f"*/{trial_id(root)}/artifacts/{name}")
    return path


def lose_an_epoch(root):
    sql(root, "DELETE FROM metrics WHERE key = 'val/loss' AND step = 1 AND run_uuid = ?", trial_id(root))


def log_an_epoch_twice(root):
    MlflowClient(f"sqlite:///{root / 'mlflow.db'}").log_metric(trial_id(root), "val/loss", 0.5, timestamp=1, step=1)


def lose_the_last_epoch(root):
    sql(root, "DELETE FROM metrics WHERE key = 'val/loss' AND step = 2 AND run_uuid = ?", trial_id(root))


def lose_a_trial(root):
    sql(root, "DELETE FROM tags WHERE key = 'imgcls.kind' AND run_uuid = ?", trial_id(root))


def double_a_trial(root):
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    tags = client.get_run(trial_id(root)).data.tags
    run = client.create_run(client.get_run(trial_id(root)).info.experiment_id, tags=tags)
    client.set_terminated(run.info.run_id)


def leave_a_run_open(root):
    sql(root, "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", trial_id(root))


def change_one_bit(root):
    ((value,),) = sqlite3.connect(root / "mlflow.db").execute(
        "SELECT value FROM metrics WHERE key = 'val/loss' AND step = 1 AND run_uuid = ?", (trial_id(root),)
    )
    changed = float(np.nextafter(value, 1))
    sql(
        root,
        "UPDATE metrics SET value = ? WHERE key = 'val/loss' AND step = 1 AND run_uuid = ?",
        changed,
        trial_id(root),
    )


def change_a_weight(root):
    path = artifact(root, "checkpoints/best.pt")
    content = torch.load(path, weights_only=True)
    next(iter(content["model"].values())).view(-1)[0] += 1e-6
    torch.save(content, path)


def lose_the_weights(root):
    artifact(root, "checkpoints/best.pt").unlink()


def change_a_prediction(root):
    path = artifact(root, "predictions/val.csv")
    path.write_text(path.read_text().replace("0.1", "0.2", 1))


def change_a_param(root):
    sql(root, "UPDATE params SET value = '9' WHERE key = 'train.lr' AND run_uuid = ?", trial_id(root))


def prune_what_was_completed(root):
    sql(root, "UPDATE tags SET value = 'pruned' WHERE key = 'imgcls.outcome' AND run_uuid = ?", trial_id(root))


def crown_another(root):
    first, second = (trial_id(root, number) for number in (0, 1))
    other = second if gather(root).winner == 0 else first
    sql(root, "UPDATE tags SET value = ? WHERE key = 'imgcls.best_run_id'", other)


def crown_nobody(root):
    sql(root, "DELETE FROM tags WHERE key = 'imgcls.best_run_id'")


def double_the_sweep(root):
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.get_run(trial_id(root))
    again = client.create_run(run.info.experiment_id, tags={"imgcls.kind": "sweep"})
    client.set_terminated(again.info.run_id)


def study(root):
    (path,) = (root / "mlruns" / ".studies").glob("*.journal")
    return optuna.load_study(study_name=None, storage=JournalStorage(Journal(path)))


def plan_one_too_many(root):
    study(root).add_trial(study(root).trials[0])


def leave_a_trial_open(root):
    study(root).ask()


@pytest.mark.parametrize(
    ("damage", "lost", "doubled", "orphans", "words"),
    [
        (lose_an_epoch, 1, 0, 0, "trial 1: val/loss lacks steps [1]"),
        (lose_the_last_epoch, 1, 0, 0, "trial 1: val/loss lacks steps [2]"),
        (log_an_epoch_twice, 0, 1, 0, "trial 1 has points twice"),
        (lose_a_trial, 1, 0, 0, "trial 1 has no run"),
        (double_a_trial, 0, 1, 0, "trial 1 has 2 runs"),
        (leave_a_run_open, 0, 0, 1, "says RUNNING"),
        (change_one_bit, 0, 0, 0, "val/loss at step 1"),
        (change_a_weight, 0, 0, 0, "other weights"),
        (lose_the_weights, 0, 0, 0, "other weights"),
        (change_a_prediction, 0, 0, 0, "other predictions"),
        (change_a_param, 0, 0, 0, "train.lr"),
        (prune_what_was_completed, 0, 0, 0, "outcome completed became pruned"),
        (crown_another, 0, 0, 0, "won instead of"),
        (crown_nobody, 0, 0, 0, "no winner"),
        (double_the_sweep, 0, 0, 0, "2 sweeps"),
        (plan_one_too_many, 0, 1, 0, "the journal has 3 trials"),
        (leave_a_trial_open, 0, 1, 1, "trial 2 is RUNNING in the journal"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damage_is_seen_and_counted(reference, copy, damage, lost, doubled, orphans, words):
    damage(copy)
    verdict = compare(reference, gather(copy))
    assert (verdict.lost, verdict.doubled, verdict.orphans) == (lost, doubled, orphans)
    assert any(words in difference for difference in verdict.differences), verdict.differences


def test_a_sweep_equals_itself_but_for_its_timings(reference, copy):
    sql(copy, "UPDATE metrics SET value = value + 1 WHERE key IN ('epoch_seconds', 'images_per_second')")
    assert compare(reference, gather(copy)).differences == []
    assert check_totals(gather(copy), NUM_TRIALS).differences == []


@pytest.mark.parametrize(
    ("folds", "lost", "doubled", "words"),
    [
        ([(0, 1)], 1, 0, "trial 0, fold 2 has no run"),
        ([(0, 1), (0, 2), (0, 2)], 0, 1, "trial 0 has 2 runs of fold 2"),
        ([(0, 1), (0, 2), (1, 1)], 0, 1, "trial 1, fold 1 is one more"),
        ([(0, 1), (0, 2), (-1, 1)], 0, 2, "fold 1 has no trial"),
    ],
)
def test_folds_are_counted_too(reference, folds, lost, doubled, words):
    def with_folds(numbers):
        runs = (replace(reference.trials[number], number=number, fold=fold) for number, fold in numbers)
        return replace(reference, folds=tuple(runs))

    verdict = compare(with_folds([(0, 1), (0, 2)]), with_folds(folds))
    assert (verdict.lost, verdict.doubled) == (lost, doubled)
    assert any(words in difference for difference in verdict.differences), verdict.differences


@pytest.mark.parametrize("pruner", EXPERIMENTS)
def test_a_sweep_can_be_tortured_with_other_keys(pruner):
    settings = ('train.loss="focal"', 'train.sampling="balanced"', "augment.mixup=0.2")
    before, after = (
        Experiment.from_tables(tomllib.loads(with_settings(in_folds(EXPERIMENTS[pruner], 3), some)), "here")
        for some in ((), settings)
    )
    assert after == before.replace({"train.loss": "focal", "train.sampling": "balanced", "augment.mixup": 0.2})
    with pytest.raises(ValueError, match=r"no table \[report\]"):
        with_settings(EXPERIMENT, ["report.figures=1"])


def test_a_fold_with_other_values_is_named(reference):
    fold = replace(reference.trials[0], fold=1)
    other = replace(fold, params={**fold.params, "train.lr": "9"})
    (difference,) = compare(replace(reference, folds=(fold,)), replace(reference, folds=(other,))).differences
    assert difference.startswith("trial 0, fold 1: train.lr")


def test_of_several_workers_only_totals_are_asked(copy):
    change_one_bit(copy)
    crown_another(copy)
    assert check_totals(gather(copy), NUM_TRIALS).differences == []
    lose_an_epoch(copy)
    verdict = check_totals(gather(copy), NUM_TRIALS + 1)
    assert verdict.lost == 3  # the epoch, the third trial's run, and its place in the journal


def test_a_seed_tells_all_instants_and_they_reach_every_part():
    pace = Pace(startup=8.0, opening=4.0, epoch=0.3, conclusion=2.0)

    def story(seed):
        rng, told = random.Random(seed), []
        for has_store, has_trained in [(False, False), (True, False), (True, True)] * 30:
            told.append(str(draw_instant(rng, pace, has_store=has_store, has_trained=has_trained)))
            told.append(str(draw_blow(rng, with_workers=False)))
        return told

    assert story(3) == story(3) != story(4)
    told = " ".join(story(3))
    for part in ("after start", "after store", "after opening", "after epoch", "after trial"):
        assert part in told
    for blow in ("SIGKILL", "SIGTERM", "SIGINT", "SIGINT SIGINT"):
        assert blow in told


@pytest.mark.slow
def test_several_workers_write_to_one_store(tmp_path):
    """`make torture` does it with eight and 200 trials."""
    assert run_writers(tmp_path / "writers", 3, 18, print).differences == []


@pytest.mark.slow
def test_the_workers_of_a_killed_driver_leave_their_trials_to_the_next_start(tmp_path):
    """They would go on for an hour, and keep the next start from what they write."""
    hours = EXPERIMENT.replace("epochs = 4", "epochs = 9999")
    start = Victim.make(tmp_path / "orphans", hours, ("--workers", "2", "--trials", "2")).start()
    assert start.wait_for(lambda start: start.num_epochs() > 0), start.said
    processes = descendants(start.pid)
    assert len(processes) >= 2 + 1, "the workers, and the server from which they are forked"
    ends = [*map(os.pidfd_open, processes)]
    try:
        start.strike(Blow((signal.SIGKILL,), whole_group=False))
        for end in ends:
            assert wait([end], timeout=60), "a process outlived its driver"
    finally:
        for end in ends:
            os.close(end)
        for pid in filter(is_alive, processes):
            os.kill(pid, signal.SIGKILL)


def descendants(pid):
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(found for child in children for found in descendants(child))]


def is_alive(pid):
    """Whether a process is there and no mere entry that nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_of_two_sweeps_typed_at_once_the_second_is_told(tmp_path):
    victim = Victim.make(tmp_path / "both", EXPERIMENT, ("--trials", "3"))
    starts = [victim.start(), victim.start()]  # neither finds a store, a cache or a study
    assert sorted(start.wait() for start in starts) == [0, 2], "\n".join(start.said for start in starts)
    (told,) = (start.said for start in starts if start.exit_code == 2)
    assert told.splitlines()[-1].startswith("error: this sweep (study victim-")
    assert "is already running (process " in told and "Traceback" not in told
    assert check_totals(gather(victim.root), 3).differences == []


WAITING = """
from pathlib import Path
from sys import argv
from torture.command import leave_when_asked
from torture.victim import Victim
leave_when_asked()
start = Victim.make(Path(argv[1])).start()
print(start.pid, flush=True)
start.wait()
"""


@pytest.mark.slow
def test_a_torture_that_waits_for_its_sweep_leaves_when_it_is_asked_to(tmp_path):
    """It waited for the process that it had killed, while it was waiting for it already."""
    command = [sys.executable, "-c", WAITING, str(tmp_path / "waiting")]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True) as torture:
        pid = int(torture.stdout.readline())
        state, end = Path(f"/proc/{torture.pid}/stat"), os.pidfd_open(torture.pid)
        try:
            while state.read_text().rpartition(")")[2].split()[0] != "S":
                assert not wait([end], timeout=0.01), "it ended before it was asked to"
            torture.terminate()
            assert torture.wait(60) == 1
        finally:
            os.close(end)
            torture.kill()
    assert not is_alive(pid)
