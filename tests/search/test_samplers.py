import json
import subprocess
import sys

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from scipy.stats import qmc

from imgcls.config.keys import Experiment
from imgcls.config.ranges import Range
from imgcls.errors import ConfigError, InputError
from imgcls.search import space as spaces
from imgcls.search.optuna_internals import attach, begin
from imgcls.search.samplers import NUM_SPACE_FILLING, drawn_values, make_sampler, resolved_sampler
from imgcls.search.study import SweepStudy
from imgcls.search.study_place import StudyPlace

SPACE = {
    "train.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.weight_decay": {"low": 0.0, "high": 0.3},
    "train.label_smoothing": {"low": 0.0, "high": 0.3, "step": 0.1},
    "train.warmup_epochs": {"low": 0, "high": 4},
    "train.batch_size": {"low": 8, "high": 256, "log": True},
    "data.image_size": {"low": 16, "high": 64, "step": 16},
    "model.depth": [10, 18, 34],
    "augment.horizontal_flip": [True, False],
    "train.ema_decay": [0.0],
}
"""Every kind of options."""

SAMPLERS = ("gp", "tpe", "random", "qmc", "cmaes")


def searching(space=SPACE, **search):
    values = {f"search.{key}": value for key, value in search.items()}
    return Experiment(name="searching").replace(values | {f"search.space.{key}": of for key, of in space.items()})


def trial_of(experiment, values, number, **kwargs):
    state = kwargs.pop("state", TrialState.COMPLETE)
    made = create_trial(
        state=state, params=values, distributions=spaces.distributions(experiment.search.space), **kwargs
    )
    made.number = number
    return made


def drawn(experiment, sampler, num, score):
    """Trials as a sweep of one worker draws them, whose values are those of `score`."""
    trials = []
    for number in range(num):
        values = drawn_values(experiment, sampler, trials)
        trials.append(trial_of(experiment, values, number, value=score(values)))
    return trials


def lr_of_one_percent(values):
    """Best at lr = 0.01."""
    return -abs(np.log10(values["train.lr"]) + 2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_draw_is_in_the_space_as_it_is_written(sampler):
    experiment = searching()
    for trial in drawn(experiment, sampler, 6 if sampler == "gp" else 12, lr_of_one_percent):
        assert spaces.known(trial.params, experiment.search.space) == trial.params
        assert trial.params.keys() == SPACE.keys()
        for key, value in trial.params.items():
            assert type(value) is type(spaces.value_at(experiment.search.space[key], 0.5))


@pytest.mark.parametrize(
    ("sampler", "last", "learns"),
    [("gp", 6, True), ("tpe", 6, True), ("cmaes", 12, True), ("random", 6, False), ("qmc", 6, False)],
)
def test_a_draw_learns_after_the_first_few_and_those_depend_on_their_number_alone(sampler, last, learns):
    """Of six trials, as shipped experiments have, the last already knows what the others came to; CMA-ES needs lots."""
    experiment = searching()
    up = [trial.params for trial in drawn(experiment, sampler, last, lr_of_one_percent)]
    down = [trial.params for trial in drawn(experiment, sampler, last, lambda values: -lr_of_one_percent(values))]
    assert up[:NUM_SPACE_FILLING] == down[:NUM_SPACE_FILLING]
    assert (up[-1] != down[-1]) == learns


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_configuration_is_tried_twice_before_all_were_tried(sampler):
    space = {"model.depth": [10, 18, 34], "train.warmup_epochs": {"low": 0, "high": 2}}
    trials = drawn(searching(space), sampler, 11, lambda values: -values["model.depth"])
    tried = [(trial.params["model.depth"], trial.params["train.warmup_epochs"]) for trial in trials]
    assert len(set(tried[:9])) == 9 and set(tried[9:]) < set(tried[:9])


def test_the_first_draws_fill_the_space_better_than_random_ones():
    """By SciPy's discrepancy, which is zero for points that are spread evenly; over twenty seeds."""
    space = {key: {"low": 0.0, "high": 0.4} for key in ("train.weight_decay", "augment.mixup", "augment.cutmix")}

    def discrepancy(sampler, seed):
        experiment = searching(space, seed=seed)
        points = [[*trial.params.values()] for trial in drawn(experiment, sampler, NUM_SPACE_FILLING, lambda _: 0.0)]
        return qmc.discrepancy(np.array(points) / 0.4)

    filled, random = (np.mean([discrepancy(sampler, seed) for seed in range(20)]) for sampler in ("tpe", "random"))
    assert filled < 0.7 * random


FEW = {key: SPACE[key] for key in ("train.lr", "train.warmup_epochs", "model.depth")}
"""A Gaussian process is fitted to these sooner."""


@pytest.mark.parametrize(
    ("sampler", "state", "teaches"),
    [
        *((sampler, TrialState.FAIL, False) for sampler in ("gp", "tpe", "cmaes")),
        ("gp", TrialState.RUNNING, True),
        ("tpe", TrialState.RUNNING, True),
        ("cmaes", TrialState.RUNNING, False),  # it learns from those that ended, in lots
        *((sampler, TrialState.PRUNED, True) for sampler in ("gp", "tpe", "cmaes")),
    ],
)
def test_what_a_draw_knows_of_a_trial_that_was_not_completed(sampler, state, teaches):
    experiment = searching(FEW)
    before = drawn(experiment, "qmc", 11, lr_of_one_percent)
    reported = {"intermediate_values": {1: -2.0, 2: -3.0}} if state == TrialState.PRUNED else {}

    def draw_after(lr):
        """With seven further trials in one place, which are told to CMA-ES as they are full lots of six."""
        values = [before[0].params | {"train.lr": lr * (1 + number / 1000)} for number in range(7)]
        further = [trial_of(experiment, of, 11 + at, state=state, **reported) for at, of in enumerate(values)]
        return drawn_values(experiment, sampler, [*before, *further])["train.lr"]

    assert (len({draw_after(lr) for lr in (2e-4, 2e-3, 1e-2, 9e-2)}) > 1) == teaches


@pytest.mark.parametrize("sampler", ["gp", "tpe", "cmaes"])
def test_where_trials_pause_they_are_compared_at_the_first_rung_and_every_other_draw_fills_the_space(sampler):
    experiment = searching(FEW)
    values = [trial.params for trial in drawn(experiment, "qmc", 12, lr_of_one_percent)]

    def draw_after(scores, promoted=(), num=12):
        """After trials with these scores at epoch 2, the second of four epochs; promoted ones had 1.0 in the end."""
        trials = []
        for number, (of, score) in enumerate(zip(values[:num], scores, strict=False)):
            curve = {1: score - 1, 2: score, **({3: 0.5, 4: 1.0} if number in promoted else {})}
            state = TrialState.COMPLETE if number in promoted else TrialState.PRUNED
            trials.append(trial_of(experiment, of, number, state=state, value=curve[max(curve)],
                                   intermediate_values=curve))  # fmt: skip
        return drawn_values(experiment, sampler, trials, first_rung=2)

    up = [lr_of_one_percent(of) for of in values]
    down = [-score for score in up]
    assert draw_after(up) == draw_after(up, promoted=(0, 3, 7))
    assert draw_after(up) != draw_after(down)
    assert draw_after(up, num=11) == draw_after(down, num=11) == drawn(experiment, "qmc", 12, len)[11].params


def test_workers_that_draw_at_once_draw_apart():
    """Without the running ones a Gaussian process would draw the same place for each: its best one."""
    experiment = searching({"train.lr": SPACE["train.lr"]})
    trials = drawn(experiment, "gp", 8, lr_of_one_percent)
    known, blind = list(trials), list(trials)
    for number in (8, 9, 10):
        known.append(trial_of(experiment, drawn_values(experiment, "gp", known), number, state=TrialState.RUNNING))
        blind.append(trial_of(experiment, drawn_values(experiment, "gp", blind), number, state=TrialState.FAIL))

    def nearest(ones):
        logs = np.log10([trial.params["train.lr"] for trial in ones[8:]])
        return np.diff(np.sort(logs)).min()

    assert nearest(known) > 3 * nearest(blind)


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_these_draw_the_same_whatever_has_become_of_the_trials_before(sampler):
    """As where several workers train them, and any may end first; in a space of lists, so that draws repeat others."""
    experiment = searching({"model.depth": [10, 18, 34], "train.warmup_epochs": [0, 1, 2]}, trials=12)
    states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    expected = [trial.params for trial in drawn(experiment, sampler, 8, score=lambda _: 0.5)]
    assert len({tuple(values.items()) for values in expected}) == 8
    trials = []
    for number in range(8):
        values = drawn_values(experiment, sampler, trials)
        state = states[number % len(states)]
        value = 0.1 * number if state == TrialState.COMPLETE else None
        trials.append(trial_of(experiment, values, number, state=state, value=value))
    assert [trial.params for trial in trials] == expected


@pytest.mark.parametrize(
    ("sampler", "pruner"), [*((sampler, "none") for sampler in SAMPLERS), ("tpe", "halving"), ("gp", "halving")]
)
def test_a_study_that_was_killed_draws_what_one_that_was_not_draws(sampler, pruner, tmp_path):
    """On real journals; each sitting is another object, and the kills fall between any two steps of a trial."""
    experiment = searching(FEW, sampler=sampler, pruner=pruner)

    def opened(name):
        return SweepStudy(
            StudyPlace(tmp_path, name, "0" * 32, pruner_warmup=1, num_epochs=4), experiment, has_groups=False
        )

    def sitting(name, kill=""):
        """Runs one trial, or a part of it; gives its values."""
        study = opened(name)
        left = study.running()
        if kill == "planned" and not left:  # its values are in the study, and it has not begun
            first_rung = study.first_rung()
            study.optuna.enqueue_trial(drawn_values(experiment, study.sampler, study._trials(), first_rung=first_rung))
            return None
        if kill == "numbered" and not left:  # it has begun, and its values are not drawn
            begin(study.optuna, len(trials := study._trials()), trials)
            return None
        number = left[0] if left else study.ask()
        if kill == "begun":
            return None
        values = study.values(number)
        if kill == "told its values":
            return None
        for epoch in (1, 2, 3, 4):
            attach(study.optuna, number).report(lr_of_one_percent(values) - 1 / epoch, epoch)
        study.optuna.tell(number, lr_of_one_percent(values))
        return values

    whole = [sitting("whole") for _ in range(8)]
    for first_kill in ("planned", "numbered"):
        kills, name = (first_kill, "begun", "told its values"), f"killed when {first_kill}"
        killed = [values for _ in range(8) for kill in (*kills, "") if (values := sitting(name, kill))]
        assert killed == whole


@pytest.mark.slow
def test_another_process_draws_the_same():
    """The Gaussian process is fitted by torch and SciPy, and draws by seeds of its own."""
    experiment = searching(FEW)
    trials = drawn(experiment, "gp", 7, lr_of_one_percent)
    told = [[trial.params, trial.value] for trial in trials]
    code = f"""
import json
from tests.search.test_samplers import FEW, drawn_values, searching, trial_of
experiment = searching(FEW)
told = json.loads('{json.dumps(told)}')
trials = [trial_of(experiment, of, number, value=value) for number, (of, value) in enumerate(told)]
print(json.dumps(drawn_values(experiment, "gp", trials)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == drawn_values(experiment, "gp", trials)


def test_cma_es_comes_near_the_best():
    experiment = searching({key: SPACE[key] for key in ("train.lr", "train.weight_decay")})

    def score(values):
        return lr_of_one_percent(values) - abs(values["train.weight_decay"] - 0.05)

    scores = [trial.value for trial in drawn(experiment, "cmaes", 60, score)]
    assert np.mean(scores[-15:]) > np.mean(scores[:15]) + 0.5


@pytest.mark.parametrize(
    ("space", "trials", "pruner", "resolved"),
    [
        (SPACE, 6, "none", "gp"), (SPACE, 100, "median", "gp"), (SPACE, 101, "none", "tpe"),
        (SPACE, 6, "halving", "qmc"), (SPACE, 50, "halving", "qmc"), (SPACE, 51, "halving", "tpe"),
        ({"model.depth": [10, 18]}, 6, "none", "tpe"),
    ],
)  # fmt: skip
def test_auto_is_decided_by_pruner_trials_and_space(space, trials, pruner, resolved):
    assert resolved_sampler(searching(space, sampler="auto", trials=trials, pruner=pruner).search) == resolved
    assert resolved_sampler(searching(space, sampler="random", trials=trials).search) == "random"


def test_cma_es_without_a_range_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r'only lists; give a key a range, such as .*, or set search.sampler = "tpe"'):
        resolved_sampler(searching({"model.depth": [10, 18]}, sampler="cmaes").search)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InputError, match="needs cmaes; run: pip install cmaes"):
        drawn(searching(), "cmaes", 6, lr_of_one_percent)


@pytest.mark.parametrize("key", SPACE)
def test_equal_parts_of_the_unit_interval_are_equally_likely(key):
    """As Optuna's own random draws are, by the quantiles of many."""
    options = searching().search.space[key]
    at = [spaces.value_at(options, share) for share in (np.arange(200) + 0.5) / 200]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    random = [spaces.draw(study.ask(), {key: options})[key] for _ in range(200)]
    if isinstance(options, Range):
        assert spaces.value_at(options, 0.0) == pytest.approx(options.low)
        assert spaces.value_at(options, 1.0) == pytest.approx(options.high)
        shares = [spaces.share_of(options, value) for value in at]
        assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
        assert [spaces.value_at(options, share) for share in shares] == pytest.approx(at)
        quantiles = [spaces.share_of(options, value) for value in sorted(random)]
        assert np.abs(np.array(quantiles) - shares).max() < 0.15 + 1 / (options.num_values or 1000)
    else:
        assert all(abs(at.count(option) - random.count(option)) < 40 for option in options)


def test_a_sampler_can_be_given_to_a_study_of_ones_own():
    """As the benchmarks do, which compare with a plain loop."""
    experiment = searching()
    study = optuna.create_study(direction="maximize")
    asked = []
    for number in range(6):
        study.sampler = make_sampler(experiment, number, "tpe")
        trial = study.ask()
        asked.append(spaces.draw(trial, experiment.search.space))
        study.tell(trial, lr_of_one_percent(asked[-1]))
    assert asked == [trial.params for trial in drawn(experiment, "tpe", 6, lr_of_one_percent)]
