"""A budget in words, and the sweep that fits into it."""

import pytest

from imgcls.errors import InputError
from imgcls.init.budget import MOST_TRIALS, Training, arithmetic, plan
from imgcls.search.budget import START_SECONDS, parse_budget
from imgcls.training.measured_pace import Pace


def alone(epoch_seconds):
    return lambda _epochs, _trials: (1, epoch_seconds)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("90s", 90), ("1H 5M".replace(" ", ""), 3900)]
)
def test_a_budget_in_hours_minutes_and_seconds(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "half an hour", "-5m", "5m3h", "9s", "0m", "1.5h"])
def test_other_budgets_are_refused_with_an_example(text):
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)


@pytest.mark.parametrize("epoch_seconds", [0.1, 1, 7.3, 47, 300])
@pytest.mark.parametrize("budget", [60, 600, 1800, 7200])
@pytest.mark.parametrize("wanted", [8, 20])
def test_a_plan_fits_and_uses_most_of_the_budget_unless_it_has_all_it_wants(budget, epoch_seconds, wanted):
    found = plan(budget, alone(epoch_seconds), wanted)
    if found.fulfilment == 0:
        assert (found.epochs, found.trials) == (1, 1)
        assert found.seconds > budget
        return
    assert found.seconds <= budget
    has_all = (found.epochs, found.trials) == (round(2.5 * wanted), MOST_TRIALS)
    # A further epoch of each trial is trained by some of them; a further trial may be one that goes on.
    one_more = min(found.trials * epoch_seconds, found.epochs * epoch_seconds + 4)
    assert has_all or budget - found.seconds < max(one_more, 0.2 * budget)


def test_a_budget_that_is_too_short_is_refused_with_one_that_is_not():
    with pytest.raises(InputError, match="give 30s or more"):
        parse_budget("9s")
    assert parse_budget("30s") == 30


def test_time_for_decoding_is_part_of_the_plan():
    assert plan(660, alone(2.0), 8, decode_seconds=60.0).seconds == plan(600, alone(2.0), 8).seconds + 60
    assert plan(10, alone(2.0), 8, decode_seconds=60.0).seconds == 86


def test_a_longer_budget_never_makes_a_poorer_plan():
    found = [plan(budget, alone(12.0), 8) for budget in range(30, 4000, 60)]
    assert [each.fulfilment for each in found] == sorted(each.fulfilment for each in found)


@pytest.mark.parametrize(
    ("slower", "workers", "epoch_seconds"),
    [
        ({2: 1.0}, 1, 11.0),  # a GPU, or one core
        ({2: 1.0, 1: 1.6}, 2, 17.6),  # two trials of one thread each do 1.25 times the work of one with both
        ({2: 1.0, 1: 2.0}, 1, 11.0),  # they would do the same work
        ({8: 1.0, 4: 1.1, 2: 1.3, 1: 2.3}, 4, 14.3),  # eight would end their third round later than four their fifth
    ],
)
def test_trials_are_planned_side_by_side_as_the_sweep_trains_them(slower, workers, epoch_seconds):
    of = Training(Pace(train=0.01, val=0.01, device="cpu", slower=slower), num_train=1000, num_val=100)
    assert of.side_by_side(10, 20) == (workers, pytest.approx(epoch_seconds))
    found = plan(1800, of.side_by_side, 8)
    _, seconds = of.side_by_side(found.epochs, found.trials)
    rounds, pause = -(-found.trials // found.workers), round(found.epochs / 3)
    epochs = found.trials * pause + found.trials / 3 * (found.epochs - pause)
    start = START_SECONDS if found.workers > 1 else 0
    assert found.seconds == pytest.approx(20 + start + rounds * 4 + epochs / found.workers * seconds, rel=1e-9)
    assert found.fulfilment >= plan(1800, alone(11.0), 8).fulfilment
    said = arithmetic(found, of.pace, 1000, 100, 0.0)
    assert f"{found.trials} trials of {found.epochs} epochs, of which about a third goes on after epoch" in said
    assert (f", {found.workers} trials side by side" in said) == (found.workers > 1)
    assert (f", {START_SECONDS:.0f} s for the start of the workers and" in said) == (found.workers > 1)
