"""`search.workers = "auto"`: chosen once for a sweep, from the speed of its steps and what the machine has."""

import pytest
import torch

from imgcls.runs.threads import Speeds
from imgcls.search import workers as workers_module
from imgcls.search.confirm import confirm_sweep
from imgcls.search.engines import LocalProcesses
from imgcls.search.halving import Rungs
from imgcls.search.sweep import Sweep
from imgcls.search.workers import Share, Wanted, choose, order_matters
from imgcls.training import device
from tests.given_speeds import give_speeds

QUIET, BUSY = {2: 880.0, 1: 520.0}, {2: 290.0, 1: 550.0}
LARGE = {8: 2000.0, 7: 1900.0, 4: 1400.0, 3: 1150.0, 2: 800.0, 1: 430.0}
LONG, SHORT = 50_000, 1000
"""Images of a trial: minutes, and a second or two."""

WHOLE = Rungs((1,))
"""Trials that do not pause, and train on these images once."""


@pytest.fixture
def two_threads(monkeypatch):
    """As where torch chooses two threads and this process may use two cores."""
    before = torch.get_num_threads()
    for module in (device, workers_module):
        monkeypatch.setattr(module, "most_threads", lambda: 2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("sampler", "pruner", "words"),
    [
        (
            "tpe",
            "halving",
            "which trial ends first decides what is tried next and what is pruned, so the search cannot",
        ),
        ("gp", "none", "which trial ends first decides what is tried next, so the"),
        ("qmc", "halving", "which trial ends first decides what is pruned, so the"),
        ("random", "none", "the order in which trials end changes none of them"),
    ],
)
def test_what_the_order_of_several_workers_decides(sampler, pruner, words):
    assert order_matters(sampler, pruner).startswith(words)


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "trials", "images", "speeds", "share"),
    [
        ("auto", "auto", 2, 6, LONG, QUIET, Share(2, 1)),  # the default sweep
        ("auto", "auto", 2, 6, LONG, BUSY, Share(2, 1)),
        ("auto", "auto", 2, 3, LONG, QUIET, Share(1, 2)),  # with so few trials, none can learn from two
        ("auto", "auto", 2, 3, LONG, BUSY, Share(1, 1)),
        ("auto", "auto", 2, 5, LONG, QUIET, Share(1, 2)),  # the fifth would train alone, on one thread
        ("auto", "auto", 2, 6, SHORT, QUIET, Share(1, 2)),  # over before a worker has started
        ("auto", "auto", 2, 6, LONG, {2: 880.0, 1: 450.0}, Share(1, 2)),  # two threads are nearly twice as fast
        (
            "auto",
            "auto",
            8,
            20,
            LONG,
            LARGE,
            Share(4, 2),
        ),  # 5 rounds of two threads each; 8 workers would need 3 of one
        ("auto", "auto", 8, 6, LONG, LARGE, Share(2, 4)),
        ("auto", 1, 2, 6, LONG, {1: 520.0}, Share(2, 1)),
        ("auto", 2, 2, 6, LONG, {}, Share(1, 2)),
        ("auto", 0, 2, 6, LONG, QUIET, Share(2, 1)),
        ("auto", 0, 2, 6, LONG, {2: 880.0, 1: 430.0}, Share(1, 2)),
        (2, "auto", 8, 20, LONG, LARGE, Share(2, 4)),
        (2, 0, 8, 20, LONG, {}, Share(2, 4)),
        (1, "auto", 2, 6, LONG, BUSY, Share(1, 1)),
        (4, "auto", 2, 3, LONG, {}, Share(4, 1)),
        (3, 5, 2, 6, LONG, {}, Share(3, 5)),  # a user's numbers win
        ("auto", "auto", 1, 6, LONG, {}, Share(1, 1)),
    ],
)
def test_the_fewest_workers_that_end_a_sweep_about_as_soon_as_any(
    workers, threads, cores, trials, images, speeds, share
):
    wanted = Wanted(workers, threads, cores, trials, images, WHOLE)
    assert bool(wanted.to_measure) == bool(speeds)
    assert set(wanted.to_measure) <= speeds.keys()
    assert choose(wanted, Speeds({n: speeds[n] for n in wanted.to_measure}, None), None) == share


@pytest.mark.parametrize(
    ("rungs", "images", "workers"),
    [
        (Rungs((12,)), 1700, 2),
        (Rungs((4, 12)), 1700, 1),  # as trials pause, the sweep is over before a second worker has gained its start
        (Rungs((4, 12)), 2600, 2),
        (Rungs((1, 5), 4.0), 4100, 1),  # folds
        (Rungs((5,), 4.0), 4100, 2),
    ],
)
def test_workers_are_chosen_for_the_epochs_that_trials_are_trained(rungs, images, workers):
    wanted = Wanted("auto", "auto", 2, 6, images, rungs)
    assert choose(wanted, Speeds(QUIET, None), None).workers == workers


@pytest.mark.parametrize(("free", "workers"), [(8 * 2**30, 4), (3 * 2**30, 2), (2**30, 1), (0, 1), (None, 4)])
def test_workers_fit_into_the_free_memory(free, workers):
    wanted = Wanted("auto", "auto", 8, 20, LONG, WHOLE)
    assert choose(wanted, Speeds(LARGE, 2**30 // 2 + 2**28), free).workers == workers


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_two_workers_share_the_threads_that_a_trial_alone_would_have(project, monkeypatch):
    monkeypatch.setattr(device, "_threads", 4)
    options = ("search.workers=2", "train.threads=0", "train.epochs=1", "train.warmup_epochs=0", "search.trials=4")
    space = ("search.space.train.warmup_epochs=[0]", "search.space.model.depth=[8]", "search.pruner=none")
    result = Sweep(project.experiment(*options, *space), project.tracker).run()
    trials = project.tracker.children(result.run_id, "trial")
    assert sorted(result.leaderboard["trial"]) == [0, 1, 2, 3]
    assert {run.params["train.threads"] for run in (project.tracker.get(result.run_id), *trials)} == {"2"}
    assert {run.status for run in trials} == {"FINISHED"}
    assert len({run.tags["imgcls.pid"] for run in trials}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "used"), [((), "1"), (("train.threads=2",), "2")])
@pytest.mark.usefixtures("two_threads")
def test_a_sweep_keeps_what_it_began_with(project, monkeypatch, asked, used):
    options = ("search.workers=auto", "train.threads=auto", "train.epochs=2", "search.pruner=none", *asked)
    give_speeds(monkeypatch, workers_module, {2: 100.0, 1: 200.0})
    first = Sweep(project.experiment(*options, "search.trials=1"), project.tracker).run()
    again = give_speeds(monkeypatch, workers_module, {2: 200.0, 1: 100.0})
    second = Sweep(project.experiment(*options, "search.trials=2"), project.tracker).run()
    assert not again and first.run_id == second.run_id
    sweep, trials = project.tracker.get(second.run_id), project.tracker.children(second.run_id, "trial")
    assert sweep.tags["imgcls.num_workers"] == "1"
    assert {record.params["train.threads"] for record in (sweep, *trials)} == {used}
    assert len(trials) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_several_workers_that_auto_chose_train_the_trials_and_then_the_fresh_runs(project, monkeypatch, caplog):
    give_speeds(monkeypatch, workers_module, {2: 1.0, 1: 0.8})  # so slow that workers pay
    options = ("search.workers=auto", "train.threads=auto", "train.epochs=2", "search.pruner=none", "search.trials=4")
    with caplog.at_level("INFO"):
        result = Sweep(project.experiment(*options), project.tracker).run()
    sweep, trials = project.tracker.get(result.run_id), project.tracker.children(result.run_id, "trial")
    assert sweep.tags["imgcls.num_workers"] == "2"
    assert {record.params["train.threads"] for record in (sweep, *trials)} == {"1"}
    assert sorted(result.leaderboard["trial"]) == [0, 1, 2, 3]
    assert {record.status for record in (sweep, *trials)} == {"FINISHED"}
    assert len({record.tags["imgcls.pid"] for record in trials}) == 2
    assert "cannot be repeated exactly" in caplog.text
    assert "trained by 2 workers" in sweep.tags["mlflow.note.content"]

    submit, killed = LocalProcesses.submit, []

    def submit_and_kill(self, job):
        submit(self, job)
        if not killed:
            worker = next(worker for worker in self._workers if worker.job is job)
            worker.process.kill()
            killed.append(worker.process.pid)

    monkeypatch.setattr(LocalProcesses, "submit", submit_and_kill)
    found = confirm_sweep(result.run_id, project.tracker, top=2, seeds=2)
    fresh = project.tracker.children(result.run_id, "confirm")
    assert {(run.outcome, run.params["train.threads"]) for run in fresh} == {("completed", "1")} and len(fresh) == 4
    assert len({run.tags["imgcls.pid"] for run in fresh} - {*map(str, killed)}) == 2
    # The winner has the bits that it has in this process.
    winner, best = found.winner.runs[0], next(record for record in trials if record.trial == found.winner.trial)
    settings = [f"{key}={winner.params[key]}" for key in ("train.seed", "train.score_epoch")]
    settings += [f"{key}={best.params[key]}" for key in ("train.lr", "train.warmup_epochs", "model.depth")]
    again = project.train("train.epochs=2", "train.threads=1", *settings)
    assert project.tracker.history(again.run_id, "val/loss") == project.tracker.history(winner.run_id, "val/loss")
    # And a single one that is missing needs no worker.
    monkeypatch.setattr(LocalProcesses, "__init__", None)
    assert confirm_sweep(result.run_id, project.tracker, top=1, seeds=3).num_seeds == 3
