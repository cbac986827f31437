"""Searches replayed on recorded trainings: the tables, the world that they make, the regret, and the ratio."""

import json

import numpy as np
import pytest
from optuna.pruners import NopPruner
from scipy.stats import qmc

from benchmarks.replay.command import RESULTS
from benchmarks.replay.curves import Curves, ratio
from benchmarks.replay.folds import in_folds, replayed
from benchmarks.replay.methods import METHODS, Imgcls, PlainOptuna
from benchmarks.replay.page import markdown
from benchmarks.replay.search import Found, Replay, one_by_one, paused
from benchmarks.replay.tables import PROJECT, TABLES
from benchmarks.replay.world import World
from imgcls.search.halving import Rungs

EPOCHS = TABLES["digits"].base["train.epochs"]


def world(accuracy, seconds=1.0):
    """A world of the first configurations of a table: accuracy is (N, seeds, epochs)."""
    accuracy = np.asarray(accuracy, float)
    values = TABLES["digits"].configurations[: len(accuracy)]
    return World(TABLES["digits"], values, accuracy, np.full(accuracy.shape[::2], seconds))


def rising(*ends):
    """Curves that rise evenly to their ends, the same for two seeds."""
    return [[np.linspace(0, end, EPOCHS)] * 2 for end in ends]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_configurations_of_a_table_fill_its_space(table):
    configurations = table.configurations
    assert len(configurations) >= 48
    assert table.num_seeds >= 3
    assert len({tuple(values.items()) for values in configurations}) == len(configurations)
    places = World(table, configurations, np.zeros((1, 1, 1)), np.zeros((1, 1)))._places
    assert ((places >= 0) & (places <= 1)).all()
    continuous = places[:, [isinstance(options, dict) and options["high"] < 1 for options in table.space.values()]]
    draws = np.random.default_rng(0)
    print("seed 0")
    of_chance = [qmc.discrepancy(draws.random(continuous.shape)) for _ in range(100)]
    assert qmc.discrepancy(continuous) < min(of_chance)


def test_a_recorded_configuration_is_nearest_to_itself():
    here = world(rising(*[0.5] * 20))
    assert [here.nearest(values) for values in here.values] == list(range(20))


def test_regret_is_of_the_seeds_that_the_search_did_not_see():
    # Means without seed 0: 0.6, 0.75, 0.3; by seed 0 alone the third would be best.
    here = world([[[0.1], [0.5], [0.7]], [[0.2], [0.8], [0.7]], [[0.9], [0.2], [0.4]]])
    assert here.regret(2, seen=0) == pytest.approx(0.75 - 0.3)
    assert here.regret(1, seen=0) == 0


def test_each_epoch_costs_its_seconds_and_the_best_whole_trial_is_handed_over():
    draws = iter(TABLES["digits"].configurations[1:3])
    steps = one_by_one(Replay(world(rising(0.5, 0.9, 0.7), seconds=2.0), 0, 0), lambda _: next(draws), NopPruner())
    found = [next(steps) for _ in range(3)]
    assert [each.seconds for each in found] == [2 * EPOCHS, 4 * EPOCHS, 6 * EPOCHS]
    assert [each.trials for each in found] == [1, 2, 3]
    assert [each.regret for each in found] == pytest.approx([0.4, 0, 0])


def test_a_training_that_failed_is_never_handed_over():
    broken = np.linspace(0, 0.99, EPOCHS)
    broken[3:] = np.nan
    draws = iter(TABLES["digits"].configurations[1:2])
    replay = Replay(world([*rising(0.5), [broken, broken]]), 0, 0)
    steps = one_by_one(replay, lambda _: next(draws), NopPruner())
    next(steps)
    after = next(steps)
    assert after.seconds == EPOCHS + 4  # the epoch in which it failed was trained too
    assert after.regret == pytest.approx(0.0)
    assert replay.frozen()[1].state.name == "PRUNED"


def test_the_best_of_a_rung_goes_on_and_nobody_else():
    """Four trials pause after 3 of 12 epochs; with the fourth the best of them goes on."""
    replay = Replay(world(rising(0.5, 0.9, 0.7, 0.6)), 0, 0)
    draws = iter(TABLES["digits"].configurations[1:4])
    steps = paused(replay, lambda _: next(draws), Rungs.of(1, EPOCHS, 4.0))
    found = [next(steps) for _ in range(5)]
    assert [each.regret for each in found] == [None, None, None, None, 0.0]
    assert [len(trial.accuracies) for trial in replay.trials] == [3, EPOCHS, 3, 3]
    assert found[-1].seconds == 3 * 3 + EPOCHS


def test_methods_draw_the_same_again_and_begin_with_what_is_given():
    for method in (PlainOptuna(), Imgcls("qmc", "halving", first=1, factor=4.0), Imgcls("qmc", "median")):
        runs = []
        for _ in range(2):
            replay = Replay(world(rising(*np.linspace(0.3, 0.9, 20))), 1, 7)
            steps = method(replay, 3)
            runs.append([next(steps) for _ in range(8)])
            assert replay.trials[0].configuration == 7
        assert runs[0] == runs[1]


def test_what_is_planned_comes_after_what_is_given():
    replay = Replay(world(rising(*np.linspace(0.3, 0.9, 20))), 1, 7)
    planned = TABLES["digits"].configurations[40:42]
    steps = Imgcls()(replay, 3, planned=planned)
    for _ in range(6):
        next(steps)
    assert [trial.values for trial in replay.trials[:3]] == [replay.world.values[7], *planned]


def test_where_plain_optuna_does_not_come_to_its_own_regret_again_all_of_its_seconds_count():
    seconds = np.linspace(0, 30, 31)
    luckless = [Found(float(n), n, 0.1 if n == 20 else 0.5) for n in range(1, 31)]
    optuna = Curves(seconds, np.full((3, 31), 0.5), np.full(3, 0.1))
    ours = Curves.of([[Found(6.0, 3, 0.1)]] * 3, seconds, [0.9] * 3)
    assert Curves.of([luckless] * 3, seconds, [0.9] * 3).reference.tolist() == [0.1] * 3
    assert ratio(ours, optuna).value == 6 / 30


def test_the_ratio_of_seconds_to_the_reference_regret():
    """Optuna is at its regret of trial 20 after 20 s; a search that is there after 5 s has the ratio 1/4."""
    slow = [Found(float(n), n, 0.5 if n < 20 else 0.1) for n in range(1, 31)]
    fast = [Found(float(n), n, 0.5 if n < 5 else 0.1) for n in range(1, 31)]
    seconds = np.linspace(0, 30, 31)
    optuna, ours = (Curves.of([search] * 3, seconds, [0.9] * 3) for search in (slow, fast))
    assert optuna.reference.tolist() == [0.1] * 3
    assert optuna.regrets[0][0] == 0.9  # nothing is trained yet: what was given
    assert ratio(ours, optuna).value == ratio(ours, optuna).low == 0.25
    never = Curves.of([[Found(1.0, 1, 0.5)]] * 3, seconds, [0.9] * 3)
    assert ratio(never, optuna).value == float("inf")


def test_the_page_has_the_table_of_the_results():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["tables"]
    page = (PROJECT.root / "docs" / "searching.md").read_text(encoding="utf-8")
    assert f"<!-- replay -->\n{markdown(found)}\n<!-- /replay -->" in page
    assert list(found) == list(TABLES) and all(list(of) == list(METHODS) for of in found.values())


def test_the_table_of_the_page():
    found = {"ratio": 0.5, "interval": [0.25, None], "training_seconds": 2.0}
    curve = {"seconds": [0.0, 5.0, 10.0, 15.0], "regret": [0.5, 0.2, 0.1, 0.05]}
    never = {"ratio": None, "interval": [1.5, None]}
    text = markdown({"digits": {"ours": found | curve, "theirs": found | curve | never}})
    assert text.splitlines()[2:] == [
        "| ours | 0.50 (0.25 to never) | 10.00 |",
        "| theirs | never | 10.00 |",
    ]


def in_a_folder(ends, *, luck=(0.0,) * 5, held_back=0.5):
    """A configuration recorded in a folder: each fold rises to its end within a second an epoch."""
    val = [list(np.linspace(0, end + extra, EPOCHS)) for end, extra in zip(ends, luck, strict=True)]
    return {
        "val": val, "seconds": [[1.0] * EPOCHS] * 5, "best": list(ends), "last": list(ends), "sizes": [60] * 5,
        "together": held_back,
    }  # fmt: skip


SMALL_FOLDER = [
    in_a_folder([0.5] * 5, luck=(0.4, 0, 0, 0, 0), held_back=0.6),
    in_a_folder([0.8] * 5, held_back=0.9),
    in_a_folder([0.1] * 5, held_back=0.2),
]


@pytest.mark.parametrize(
    ("method", "trainings", "together"),
    [
        ("one val", 3, 0.5),  # the first configuration was lucky on this val
        ("one val", 1, 0.5),  # there was time for the first one alone
        ("five folds, none", 15, 0.9),
        ("five folds, none", 9, 0.6),  # the second one has not run all of its folds
        ("five folds, wilcoxon", 15, 0.9),
        ("five folds, halving", 7, 0.6),  # its first fold was the best, and there is time for one whole training
        ("one val, then its winner in five folds", 7, 0.6),
    ],
)
def test_a_replayed_search_hands_over_what_the_package_would(method, trainings, together):
    found = replayed(method, SMALL_FOLDER, fold=0, seconds=trainings * EPOCHS + 0.5)
    assert found.together == together


def test_the_seconds_of_a_fold_that_failed_are_spent_and_its_trial_cannot_win():
    failed = in_a_folder([0.9] * 5)
    failed["val"][1] = failed["val"][1][:4]
    failed["seconds"] = [[1.0] * EPOCHS, [1.0] * 4, *failed["seconds"][2:]]
    steps = in_folds(failed)
    assert (len(steps.reported), steps.seconds[:2]) == (1, [EPOCHS, 4])
    assert replayed("five folds, none", [failed, SMALL_FOLDER[1]], fold=0, seconds=7 * EPOCHS).together == 0.9
