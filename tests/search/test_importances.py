"""Importances of real studies whose truth is known: one key decides, or none does."""

import optuna
import pytest

from imgcls.search.importances import MIN_TRIALS, importance_ranges, importances


def study(num_trials, value):
    made = optuna.create_study(study_name="truth", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(lambda trial: value(*(trial.suggest_float(key, 0, 1) for key in "ab")), num_trials)
    return made


def test_from_few_trials_nothing_is_said():
    few = study(MIN_TRIALS - 1, lambda a, _: a)
    assert importances(few) == importance_ranges(few) == {}


def test_the_key_that_decides_is_told_apart_and_one_that_does_not_is_not():
    ranges = importance_ranges(study(60, lambda a, _: a))
    assert ranges["a"].low > ranges["b"].high
    noise = iter(range(60))
    ranges = importance_ranges(study(60, lambda *_: (next(noise) * 37) % 60))
    assert ranges["a"].low < ranges["b"].high and ranges["b"].low < ranges["a"].high


@pytest.mark.parametrize("num_trials", [MIN_TRIALS, 40])
def test_each_share_has_its_range_and_they_sum_to_one(num_trials):
    found = study(num_trials, lambda a, b: a + 0.3 * b)
    shares, ranges = importances(found), importance_ranges(found)
    assert shares.keys() == ranges.keys() and sum(shares.values()) == pytest.approx(1)
    assert all(0 <= each.low <= each.high <= 1 for each in ranges.values())
    assert importance_ranges(found) == ranges
