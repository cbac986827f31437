"""Pause and promote on numbers: rungs, who goes on, and who can end without changing what comes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgcls.search.halving import Rungs


@pytest.mark.parametrize(
    ("first", "last", "factor", "epochs"),
    [
        (2, 30, 3, (3, 10, 30)),
        (1, 27, 3, (1, 3, 9, 27)),
        (0, 9, 3, (1, 3, 9)),  # no trial is judged before its first epoch
        (2, 6, 3, (2, 6)),
        (3, 8, 3, (8,)),  # nobody pauses
        (1, 1, 3, (1,)),
        (1, 16, 4, (1, 4, 16)),
        (2, 10, 4, (2, 10)),
    ],
)
def test_rungs_end_at_the_last_epoch_and_begin_after_the_warm_up(first, last, factor, epochs):
    rungs = Rungs.of(first, last, factor)
    assert rungs.epochs == epochs
    pauses, epoch = [], 0
    while (found := rungs.next_after(epoch)) is not None:
        pauses.append(epoch := found)
    assert tuple(pauses) == epochs[:-1]


RUNGS = Rungs((1, 3, 9), factor=3)


@pytest.mark.parametrize(
    ("best", "is_all_drawn", "promoted"),
    [
        ({0: [0.5], 1: [0.6]}, False, None),  # a third of two is none
        ({0: [0.5], 1: [0.6], 2: [0.4]}, False, 1),
        ({0: [0.5], 1: [0.5], 2: [0.5]}, False, 0),  # ties by number
        ({0: [0.5], 1: [0.6, 0.6, 0.6], 2: [0.4], 3: [0.55]}, False, None),  # the only place is taken
        ({0: [0.5], 1: [0.6, 0.6, 0.6], 2: [0.4], 3: [0.7]}, False, 3),  # a better one came
        # The higher rung first.
        ({0: [0.9], 1: [0.6] * 3, 2: [0.5] * 3, 3: [0.4] * 3}, False, 1),
        # Once all are drawn, one goes on up to the end however few there are, and no second one.
        ({0: [0.5], 1: [0.6]}, True, 1),
        ({0: [0.5], 1: [0.6] * 3}, True, 1),
        ({0: [0.5], 1: [0.6] * 9}, True, None),
        ({}, True, None),
        # The third failed on its way, and keeps its place: one of four goes on, and that was it.
        ({0: [0.5], 1: [0.6], 2: [0.9, 0.9], 3: [0.1]}, False, None),
    ],
)
def test_a_trial_goes_on_from_the_highest_rung_where_it_is_among_the_best_third(best, is_all_drawn, promoted):
    assert RUNGS.promoted(best, is_all_drawn=is_all_drawn) == promoted


def test_of_as_many_as_there_will_be_a_trial_behind_the_best_third_can_end():
    best = {0: [0.5], 1: [0.9] * 9, 2: [0.8], 3: [0.1], 4: [0.6]}
    assert RUNGS.hopeless(best, ended={1}, paused={0, 2, 3, 4}, num_trials=12) == [3]
    assert RUNGS.hopeless(best, ended={1}, paused={0, 2, 3, 4}, num_trials=6) == [0, 3, 4]
    # Trial 5 failed before its first rung, so that a third of the others is one trial fewer.
    assert RUNGS.hopeless(best, ended={1, 5}, paused={0, 2, 3, 4}, num_trials=12) == [0, 3]


def test_while_none_was_trained_to_its_end_one_of_each_rung_is_kept():
    best = {0: [0.5], 1: [0.9] * 3, 2: [0.4], 3: [0.7] * 3}
    assert RUNGS.hopeless(best, ended=(), paused={0, 2, 3}, num_trials=4) == [2]
    best[1] = [0.9] * 9
    assert RUNGS.hopeless(best, ended={1}, paused={0, 2, 3}, num_trials=4) == [0, 2, 3]


def test_beyond_the_most_the_worst_of_the_lowest_rung_end():
    best = {0: [0.5], 1: [0.9], 2: [0.4] * 3, 3: [0.7], 4: [0.95] * 9}
    assert RUNGS.excess(best, paused={0, 1, 2, 3}, most=2) == [0, 3]
    assert RUNGS.excess(best, paused={0, 1, 2, 3}, most=0) == [0, 3, 1, 2]
    assert RUNGS.excess(best, paused={0, 1, 2, 3}, most=4) == []


BETWEEN = {0: [0.5] * 2, 1: [0.9] * 9, 2: [0.8] * 2, 3: [0.1] * 4, 4: [0.6] * 5}
"""Trials that paused after 2, 4 and 5 epochs, where an earlier sitting had other rungs than 1, 3 and 9."""


def test_a_trial_that_paused_between_two_rungs_waits_at_the_one_before():
    assert RUNGS.reserve(BETWEEN, paused={0, 2, 3, 4}) == [4, 2]
    assert RUNGS.excess(BETWEEN, paused={0, 2, 3, 4}, most=2) == [0, 2]
    assert RUNGS.hopeless(BETWEEN, ended={1}, paused={0, 2, 3, 4}, num_trials=6) == [0, 3, 4]
    assert RUNGS.promoted(BETWEEN, is_all_drawn=False, paused={0, 3, 4}) is None
    assert RUNGS.promoted({**BETWEEN, 5: [0.9] * 9}, is_all_drawn=False, paused={0, 2, 3, 4}) is None
    assert RUNGS.promoted({4: [0.6] * 5, 3: [0.1] * 4, 2: [0.5] * 3}, is_all_drawn=False, paused={2, 3, 4}) == 4


def test_a_trial_that_paused_before_the_first_rung_goes_on_to_it():
    rungs = Rungs((3, 9), factor=3)
    best = {0: [0.5] * 9, 1: [0.9], 2: [0.4] * 2}
    assert rungs.promoted(best, is_all_drawn=False, paused={1, 2}) == 1
    assert rungs.promoted(best, is_all_drawn=True, paused={2}) == 2
    assert rungs.reserve(best, paused={1, 2}) == [1]
    assert rungs.next_after(1) == 3
    assert not rungs.hopeless(best, ended={0}, paused={1, 2}, num_trials=3)
    assert rungs.excess(best, paused={1, 2}, most=1) == [2]


def test_epochs_of_so_many_trials():
    assert RUNGS.num_epochs(9) == 9 * 1 + 3 * 2 + 1 * 6
    assert RUNGS.num_epochs(1) == 9
    assert Rungs((9,), factor=3).num_epochs(4) == 36


def test_epochs_of_each_worker():
    assert RUNGS.num_epochs_each(9, 1) == RUNGS.num_epochs(9)
    assert RUNGS.num_epochs_each(9, 2) == 5 * 1 + 2 * 2 + 1 * 6  # rounds of two, of which the last has one
    assert RUNGS.num_epochs_each(9, 9) == 9  # one of them trains the winner
    assert Rungs((9,), factor=3).num_epochs_each(5, 2) == 27


def search(rungs, seed, num_trials, num_workers, failing, *, ends_hopeless):
    """A search on random curves: what began or went on, in order; how many completed; the most that waited at once."""
    draws = random.Random(seed)
    curves = [[draws.choice((0.1, 0.2, 0.3, 0.4, 0.5)) for _ in range(rungs.epochs[-1])] for _ in range(num_trials)]
    fails_at = {n: draws.randint(1, rungs.epochs[-1]) for n in range(num_trials) if draws.random() < failing}
    ends = random.Random(seed)
    best, paused, under_way, ended, order, most = {}, set(), [], set(), [], 0
    while True:
        while len(under_way) < num_workers:
            num_drawn = len(best)
            number = rungs.promoted(best, is_all_drawn=num_drawn == num_trials, paused=paused, is_idle=not under_way)
            if number is None and num_drawn < num_trials:
                number = num_drawn
                best[number] = []
            if number is None:
                break
            order.append((number, len(best[number])))
            under_way.append(number)
            paused.discard(number)
        if not under_way:
            return order, sum(len(values) == rungs.epochs[-1] for values in best.values()), most
        number = under_way.pop(ends.randrange(len(under_way)))
        until = rungs.next_after(len(best[number])) or rungs.epochs[-1]
        reached = min(until, fails_at.get(number, until + 1) - 1)
        best[number] = [max(curves[number][: epoch + 1]) for epoch in range(reached)]
        if reached == until and until != rungs.epochs[-1]:
            paused.add(number)
        else:
            ended.add(number)
        if ends_hopeless:
            for hopeless in rungs.hopeless(best, ended, paused, num_trials):
                paused.discard(hopeless)
                ended.add(hopeless)
            most = max(most, len(paused))


SEARCHES = st.builds(
    dict,
    rungs=st.builds(Rungs.of, st.integers(1, 2), st.sampled_from((9, 12, 27)), st.sampled_from((2.0, 3.0, 4.0))),
    seed=st.integers(0, 2**32),
    num_trials=st.integers(1, 40),
    num_workers=st.integers(1, 4),
)


@given(of=SEARCHES)
@settings(max_examples=150)
def test_to_end_the_hopeless_changes_no_search(of):
    order, num_completed, _ = search(**of, failing=0.0, ends_hopeless=False)
    assert num_completed >= 1
    assert search(**of, failing=0.0, ends_hopeless=True)[:2] == (order, num_completed)


@given(of=SEARCHES)
@settings(max_examples=100)
def test_where_trials_fail_it_changes_nothing_until_all_are_drawn(of):
    """After that, a trial that was kept in case others fail may fail as well, and the next one has ended."""
    orders = [search(**of, failing=0.3, ends_hopeless=ends)[0] for ends in (False, True)]
    until_drawn = [order[: order.index((of["num_trials"] - 1, 0)) + 1] for order in orders]
    assert until_drawn[0] == until_drawn[1]


def test_few_wait_at_once():
    waiting = [search(Rungs.of(1, 27, 3), seed, 60, 1, 0.0, ends_hopeless=True)[2] for seed in range(20)]
    assert max(waiting) <= 60 / (3 - 1)
