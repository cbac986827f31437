"""One study that several processes work on: numbers, leases and losses of its trials, in a real journal."""

import pytest
from optuna.trial import TrialState

from imgcls.config.keys import Experiment
from imgcls.runs.record_writer import Finished
from imgcls.search.driver import Driver
from imgcls.search.leases import Leases
from imgcls.search.optuna_internals import attach
from imgcls.search.study import SweepStudy
from imgcls.search.study_place import StudyPlace
from imgcls.search.trial import TrialJob
from imgcls.training.epoch import EpochResult

SPACE = {"train.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


@pytest.fixture
def join(tmp_path):
    """Joins the study as another process would."""

    def join(pid, name="study", *, trials=4, pruner="none", **options):
        search = {"trials": trials, "sampler": "qmc", "pruner": pruner, "workers": 1, "space": SPACE}
        experiment = Experiment(name="tiny", search=search)
        place = StudyPlace(tmp_path, name, "0" * 32, pruner_warmup=1, num_epochs=4)
        leases = Leases(place.open(experiment), 60, {"host": "here", "pid": pid}, **options)
        return SweepStudy(place, experiment, has_groups=False, leases=leases)

    return join


def test_those_who_ask_at_once_have_other_numbers_and_values_and_no_more_than_are_wanted(join):
    one, other = join("1"), join("2")
    assert [one.ask(), other.ask(), other.ask(), one.ask()] == [0, 1, 2, 3]
    assert one.ask() is None and other.ask() is None
    drawn = [(one if number in (0, 3) else other).values(number)["train.lr"] for number in range(4)]
    assert len({*drawn}) == 4
    assert one.leases.elsewhere() == {1, 2} and other.leases.elsewhere() == {0, 3}
    assert one.left() == [0, 3] and other.left() == [1, 2]


def test_a_number_that_another_process_is_about_to_begin_is_not_asked_for_twice(join):
    one, other = join("1"), join("2")
    assert one.leases.take(0)
    assert other.ask() is None
    assert one.ask() == 0
    assert other.ask() == 1


def test_a_number_that_was_begun_and_given_back_before_this_process_had_its_lease_is_asked_for_again(join):
    one, other = join("1"), join("2")
    take = one.leases.take

    def late(number, **_):
        assert other.ask() == 0
        other.leases.give_back(0)
        return take(number)

    one.leases.take = late
    assert one.ask() is None
    one.leases.take = take
    assert one.leases.elsewhere() == set()
    assert one.left() == [0]
    assert one.ask() == 1


def test_values_that_somebody_enqueued_are_given_out_once(join):
    one, other = join("1"), join("2")
    one.plan([{"train.lr": 0.02}, {"train.lr": 0.03}])
    assert (one.ask(), other.ask()) == (0, 1)
    assert [one.values(0), other.values(1)] == [{"train.lr": 0.02}, {"train.lr": 0.03}]


def test_a_trial_whose_process_died_before_it_drew_the_values_gets_them_from_the_next(join):
    alone = join("1")
    assert (alone.ask(), alone.ask()) == (0, 1)
    values = alone.values(1)
    one = join("1", "other study")
    assert one.ask() == 0
    one._plan_if_need_be = lambda *_: None  # it dies there
    assert one.ask() == 1
    other = join("2", "other study", is_dead=lambda about: about["pid"] == "1")
    assert other.left() == [0, 1] and other.leases.take(1)
    assert other.values(1) == values


def test_losses_are_counted_in_the_study(join):
    one, other = join("1"), join("2")
    assert one.ask() == 0
    assert (one.lose(0), other.lose(0)) == (1, 2)


# --- the end ---


def finished(outcome, num_epochs):
    """What comes of a trial that did not train."""
    best = EpochResult(num_epochs, 0.5, {"val/accuracy": 0.5, "val/loss": 0.5}, 0.01, 0.1, 1.0, 0)
    return Finished("0" * 32, outcome, best, num_epochs, {})


@pytest.fixture
def without_training(monkeypatch):
    """Trials that end at once, or pause, with the same score."""

    def run(job):
        num_epochs = job.pause_at or job.study.num_epochs
        attach(job.study.open(job.experiment), job.number).report(0.5, step=num_epochs)
        return finished("paused" if job.pause_at else "completed", num_epochs)

    monkeypatch.setattr(TrialJob, "run", run)
    monkeypatch.setattr("imgcls.search.driver.FIRST_LOOK", 0.0)


@pytest.mark.usefixtures("without_training")
def test_a_driver_goes_on_where_another_one_was_faster_and_has_nothing_in_hand_just_now(join, project):
    one, other = join("1"), join("2")
    take = one.leases.take

    def late(number, **_):
        one.leases.take = take
        assert other.ask() == 0
        other.tell_of_failure(0, "a value that cannot be")
        other.leases.give_back(0)
        return take(number)

    one.leases.take = late
    Driver(one, 100, project.tracker).run()
    states = [trial.state for trial in one.optuna.trials]
    assert states == [TrialState.FAIL, *[TrialState.COMPLETE] * 3]


@pytest.mark.usefixtures("without_training")
def test_a_driver_without_work_reads_the_study_and_its_leases_once_a_look(join, project, monkeypatch):
    one, other = join("1", trials=1), join("2", trials=1)
    assert other.ask() == 0
    driver, read = Driver(one, 100, project.tracker), []
    storage = type(one.optuna._storage)
    get_all_trials = storage.get_all_trials
    monkeypatch.setattr(
        storage, "get_all_trials", lambda self, study, **how: read.append(self) or get_all_trials(self, study, **how)
    )
    assert driver._next() is None
    assert len(read) == len(set(map(id, read))) == 2


@pytest.mark.usefixtures("without_training")
def test_a_trial_takes_four_readings_of_the_study_and_two_of_its_leases(join, project, monkeypatch):
    read = []
    storage = type(join("1").optuna._storage)
    get_all_trials = storage.get_all_trials
    monkeypatch.setattr(
        storage, "get_all_trials", lambda self, study, **how: read.append(self) or get_all_trials(self, study, **how)
    )
    num_read = []
    for trials in (4, 9):
        study = join("2", f"{trials} trials", trials=trials)
        read.clear()
        Driver(study, 100, project.tracker).run()
        num_read.append(len(read))
    assert num_read[1] - num_read[0] == (9 - 4) * (4 + 2)


@pytest.mark.usefixtures("without_training")
def test_a_driver_goes_on_with_a_trial_that_another_one_pauses_while_it_looks(join, project):
    one, other = (join(pid, trials=1, pruner="halving") for pid in "12")
    number = other.ask()
    other.values(number)
    looks = one.promotion.next

    def look(*args, **kwargs):
        one.promotion.next = looks
        assert looks(*args, **kwargs) is None
        attach(other.optuna, number).report(0.5, step=(rung := other.promotion.pause_at(number)))
        other.tell(number, finished("paused", rung))
        other.leases.give_back(number)

    one.promotion.next = look
    Driver(one, 100, project.tracker).run()
    assert [trial.state for trial in one.optuna.trials] == [TrialState.COMPLETE]
