"""One study that several processes work on: numbers, leases and losses of its trials, in a real journal."""

import pytest

from imgcls.config.keys import Experiment
from imgcls.search.leases import Leases
from imgcls.search.study import StudyPlace, SweepStudy

SPACE = {"train.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


@pytest.fixture
def join(tmp_path):
    """Joins the study as another process would."""
    search = {"trials": 4, "sampler": "qmc", "pruner": "none", "space": SPACE}
    experiment = Experiment(name="tiny", search=search)

    def join(pid, name="study", **options):
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

    def late(number):
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
    one._plan_if_need_be = lambda _: None  # it dies there
    assert one.ask() == 1
    other = join("2", "other study", is_dead=lambda about: about["pid"] == "1")
    assert other.left() == [0, 1] and other.leases.take(1)
    assert other.values(1) == values


def test_losses_are_counted_in_the_study(join):
    one, other = join("1"), join("2")
    assert one.ask() == 0
    assert (one.lose(0), other.lose(0)) == (1, 2)
