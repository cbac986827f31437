"""`train.threads = "auto"`: measured when a run begins, recorded as a number, and kept."""

import pytest
import torch

from imgcls.errors import Interrupted
from imgcls.runs import threads as threads_module
from imgcls.runs.threads import Speeds, measured_speeds, numbers_of_threads, with_threads
from imgcls.training import device
from tests.given_speeds import give_speeds

SHORT = ("train.epochs=2", "train.warmup_epochs=0", "train.batch_size=64")


@pytest.fixture
def two_threads(monkeypatch):
    """As where torch chooses two threads and this process may use two cores."""
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "_threads", 2)
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("most", "numbers"), [(1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (8, [8, 7, 4, 2, 1]), (12, [12, 11, 6, 3, 1])]
)
def test_numbers_that_are_tried(most, numbers):
    assert numbers_of_threads(most) == numbers


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({2: 880, 1: 520}, 2),  # quiet
        ({2: 290, 1: 550}, 1),  # beside a busy process
        ({2: 1000, 1: 960}, 1),  # the second thread gains less than a twentieth
        ({2: 3358, 1: 2801}, 2),
        ({8: 100, 7: 700, 4: 500, 2: 260, 1: 130}, 7),
        ({}, 8),
    ],
)
def test_the_fewest_threads_that_are_about_as_fast_as_the_best(speeds, best):
    assert Speeds(speeds, None).best_of(list(speeds) or [8, 4]) == best


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({2: 880, 1: 520}, 2),
        ({2: 3358, 1: 2801}, 1),  # what the second thread gains is lost as soon as another program runs
        ({8: 900, 7: 800, 4: 500, 2: 260, 1: 130}, 7),  # leaves a core free
        ({8: 900, 7: 810, 4: 790, 2: 260, 1: 130}, 4),
        ({3: 600, 2: 400, 1: 200}, 3),
        ({1: 130}, 1),
        ({}, 8),
    ],
)
def test_one_run_leaves_a_core_free_unless_it_loses_much(speeds, best):
    assert Speeds(speeds, None).best_of_one_run(list(speeds) or [8, 4]) == best


@pytest.mark.usefixtures("two_threads")
@pytest.mark.slow
def test_the_number_is_recorded_and_gives_its_bits(project):
    """Whatever the measurement leaves behind changes nothing: the run is the one of that number of threads."""
    run = project.train(*SHORT, "train.threads=auto")
    record = project.tracker.get(run.run_id)
    chosen = record.params["train.threads"]
    assert chosen in ("1", "2") and record.device.endswith(f", {chosen} threads")
    again = project.train(*SHORT, f"train.threads={chosen}", fresh=True)
    histories = [project.tracker.history(each.run_id, "val/loss") for each in (run, again)]
    assert histories[0] == histories[1]


@pytest.mark.usefixtures("two_threads")
def test_a_run_that_is_taken_up_keeps_its_threads(project, monkeypatch):
    asked = give_speeds(monkeypatch, threads_module, {1: 300, 2: 100})
    monkeypatch.setattr("imgcls.runs.limits.stop_requested", lambda: "a test")
    with pytest.raises(Interrupted):
        project.train(*SHORT, "train.threads=auto")
    monkeypatch.undo()
    monkeypatch.setattr(device, "_threads", 2)
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    give_speeds(monkeypatch, threads_module, {1: 100, 2: 300})
    run = project.train(*SHORT, "train.threads=auto")
    assert asked == [[2, 1]]
    assert len(project.runs(kind="train")) == 1
    assert project.tracker.get(run.run_id).params["train.threads"] == "1"


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("asked", "used"), [("0", 2), ("1", 1), ("2", 2)])
def test_a_number_of_the_user_is_never_measured(project, monkeypatch, asked, used):
    measurements = give_speeds(monkeypatch, threads_module, {})
    prepared = with_threads(project.prepare(f"train.threads={asked}"))
    assert not measurements
    assert prepared.experiment.train.threads == prepared.device.threads == torch.get_num_threads() == used


def test_one_core_leaves_nothing_to_measure(project, monkeypatch):
    monkeypatch.setattr(device, "usable_cores", lambda: 1)
    measurements = give_speeds(monkeypatch, threads_module, {})
    prepared = with_threads(project.prepare("train.threads=auto"))
    assert not measurements
    assert prepared.experiment.train.threads == prepared.device.threads == 1


@pytest.mark.usefixtures("two_threads")
def test_real_steps_are_timed_and_nothing_of_them_stays(project):
    prepared = project.prepare("train.threads=auto")
    state = torch.random.get_rng_state()
    speeds = measured_speeds(prepared, [2, 1])
    assert set(speeds.images_per_second) == {1, 2} and min(speeds.images_per_second.values()) > 0
    assert speeds.memory > 2**26  # a process with torch
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == 2
