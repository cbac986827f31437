from decimal import Decimal

import optuna
import pytest

from imgcls.config.ranges import Range
from imgcls.errors import ConfigError
from imgcls.search import space as spaces

SPACE = {
    "train.lr": Range(low=1e-3, high=1e-1, log=True),
    "train.warmup_epochs": Range(low=0, high=2),
    "train.label_smoothing": Range(low=0.0, high=0.2, step=0.1),
    "model.depth": (8, 14),
    "augment.horizontal_flip": (True, False),
}


def test_every_kind_of_value_is_drawn_from_its_own_range():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [spaces.suggest(study.ask(), SPACE) for _ in range(200)]
    assert all(1e-3 <= values["train.lr"] <= 1e-1 for values in drawn)
    assert sum(values["train.lr"] < 1e-2 for values in drawn) == pytest.approx(100, abs=25)  # even in the log
    assert {values["train.warmup_epochs"] for values in drawn} == {0, 1, 2}
    assert {round(values["train.label_smoothing"], 6) for values in drawn} == {0.0, 0.1, 0.2}
    assert {values["model.depth"] for values in drawn} == {8, 14}
    assert {values["augment.horizontal_flip"] for values in drawn} == {True, False}


def test_a_grid_is_every_combination_once():
    space = {key: SPACE[key] for key in ("train.warmup_epochs", "train.label_smoothing", "model.depth")}
    rows = spaces.grid(space)
    assert len(rows) == 3 * 3 * 2
    assert len({tuple(row.items()) for row in rows}) == 18


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (SPACE["train.lr"], "continuous"),
        (Range(low=0.0, high=0.5), "continuous"),
        (Range(low=1, high=64, log=True), "logarithmic"),
    ],
)
def test_a_continuous_range_has_no_grid(options, kind):
    with pytest.raises(ConfigError, match=rf"train\.lr is a {kind} range.*list its values"):
        spaces.grid({"train.lr": options})


def test_of_a_grid_with_billions_of_points_the_first_are_made():
    fine = Range(low=0.0, high=1.0, step=1e-9)
    rows = spaces.grid({"train.weight_decay": fine, "augment.shift": fine, "model.depth": (8, 14)}, most=5)
    assert spaces.grid_size({"train.weight_decay": fine, "augment.shift": fine}) == 1_000_000_001**2
    assert [tuple(row.values()) for row in rows] == [
        (0.0, 0.0, 8), (0.0, 0.0, 14), (0.0, 1e-9, 8), (0.0, 1e-9, 14), (0.0, 2e-9, 8),
    ]  # fmt: skip


STEPS = [
    ("0.0", "1.0", "0.1"),
    ("0.1", "0.7", "0.2"),
    ("0.0", "0.1", "0.02"),
    ("1e-05", "4e-05", "3e-06"),
    ("0.0", "1.1", "0.1"),
]


@pytest.mark.parametrize(("low", "high", "step"), STEPS)
@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)])
def test_steps_are_reckoned_in_decimals(low, high, step, sampler):
    options = Range(low=float(low), high=float(high), step=float(step))
    count = int((Decimal(high) - Decimal(low)) / Decimal(step)) + 1
    written = [float(Decimal(low) + index * Decimal(step)) for index in range(count)]
    assert [row["key"] for row in spaces.grid({"key": options})] == written
    study = optuna.create_study(sampler=sampler)
    for _ in range(40):
        trial = study.ask()
        assert spaces.draw(trial, {"key": options})["key"] in written
        study.tell(trial, 0.0)


@pytest.mark.parametrize(
    ("options", "value", "written"),
    [
        (Range(low=0.0, high=0.3, step=0.1), 0.1 + 0.2, 0.3),
        (Range(low=0.0, high=1.0, step=0.1), 1.0000000000000002, 1.0),
        (Range(low=0.0, high=1.0, step=0.1), 0.25, None),
        (Range(low=0.0, high=1.0, step=0.1), 1.1, None),
        (Range(low=1e-3, high=1e-1, log=True), 0.0009999999999999998, 1e-3),
        (Range(low=1e-4, high=1e-1, log=True), 0.00010000000000000009, 1e-4),
        (Range(low=1e-3, high=1e-1, log=True), 0.0009, None),
        (Range(low=0, high=10, step=5), 5, 5),
        (Range(low=0, high=10, step=5), 3, None),
        (Range(low=0, high=10), 2.5, None),
        (Range(low=0, high=1), True, None),
        (Range(low=0.0, high=1.0), "0.5", None),
        (Range(low=0.0, high=1.0), None, None),
        (Range(low=0.0, high=1.0), float("nan"), None),
        ((8, 14), 14, 14),
        ((8, 14), 9, None),
        ((True, False), True, True),
        ((True, False), 1, None),
        ((0.0, 1.0), 1, 1.0),
        ((0.0, 1.0), True, None),
        (("small", "standard"), "auto", None),
    ],
)
def test_what_a_study_holds_is_read_as_it_was_written(options, value, written):
    if written is None:
        with pytest.raises(ValueError, match="is not in its search"):
            spaces.as_written(options, value)
    else:
        read = spaces.as_written(options, value)
        assert (read, type(read)) == (written, type(written))


def test_own_values_must_lie_in_the_space(project):
    experiment = project.experiment("train.lr=0.5")
    with pytest.raises(ConfigError, match=r"train\.lr = 0\.5 lies outside"):
        spaces.own_values(experiment, experiment.search.space)


@pytest.mark.parametrize(
    ("key", "own", "options", "message"),
    [
        (
            "train.weight_decay",
            "0.05",
            "{ low = 0.0, high = 0.1, step = 0.02 }",
            r"between 0\.04 and 0\.06",
        ),
        ("train.weight_decay", "0.03", "{ low = 0, high = 0.1, step = 0.1 }", r"between 0\.0 and 0\.1"),
        ("train.warmup_epochs", "1", "{ low = 0, high = 2, step = 2 }", r"between 0 and 2"),
        (
            "train.label_smoothing",
            "0.30000000000000004",
            "{ low = 0.0, high = 0.5, step = 0.1 }",
            r"between 0\.3 and 0\.4",
        ),
        ("train.weight_decay", "0.2", "{ low = 0.0, high = 0.1 }", r"\(0 to 0\.1\); trial 0"),
        ("model.depth", "18", "[8, 14]", r"\(8, 14\); trial 0"),
    ],
)
def test_own_values_must_be_among_the_steps(project, key, own, options, message):
    experiment = project.experiment(f"{key}={own}", f"search.space.{key}={options}")
    with pytest.raises(ConfigError, match=rf"{key} = {own} lies outside its search.space .*{message}"):
        spaces.own_values(experiment, experiment.search.space)


@pytest.mark.parametrize(("own", "step"), [("0.3", "0.1"), ("0.06", "0.02"), ("0.7", "0.07")])
def test_own_values_on_a_step_are_taken_as_they_are_written(project, own, step):
    options = f"{{ low = 0.0, high = {10 * Decimal(step)}, step = {step} }}"
    experiment = project.experiment(f"train.weight_decay={own}", f"search.space.train.weight_decay={options}")
    assert spaces.own_values(experiment, experiment.search.space)["train.weight_decay"] == float(own)


@pytest.mark.parametrize(
    ("space", "longest"),
    [
        ({}, 1),
        ({"train.warmup_epochs": {"low": 0, "high": 2}}, 2),
        ({"train.warmup_epochs": [0, 2, 1]}, 2),
        ({"train.freeze_epochs": [0, 2]}, 2),
    ],
)
def test_the_longest_warmup_that_any_trial_can_have(project, space, longest):
    experiment = project.experiment()
    search = experiment.search.model_copy(update={"space": {}})
    experiment = experiment.model_copy(update={"search": search})
    experiment = experiment.replace({f"search.space.{key}": value for key, value in space.items()})
    median = experiment.replace({"search.pruner": "median", "search.pruner_warmup_epochs": "auto"})
    assert spaces.pruner_warmup_of(median) == longest + 1
    with pytest.raises(ConfigError, match=f"= {longest - 1} would judge trials whose warm-up of up to {longest} epoch"):
        spaces.pruner_warmup_of(median.replace({"search.pruner_warmup_epochs": longest - 1}))


@pytest.mark.parametrize(
    ("epochs", "longest", "asked", "first"),
    [(40, 3, "auto", 13), (12, 5, "auto", 4), (10, 4, "auto", 3), (2, 1, "auto", 1), (40, 3, 1, 1), (12, 1, 5, 5)],
)
def test_trials_pause_after_a_third_of_their_epochs_unless_asked_otherwise(project, epochs, longest, asked, first):
    """A trial that pauses may go on later, so it may pause before the longest warm-up is over."""
    experiment = project.experiment(
        f"train.epochs={epochs}", f"search.space.train.warmup_epochs=[0, {longest}]", 'search.pruner="halving"',
        f"search.pruner_warmup_epochs={asked!r}".replace("'", '"'),
    )  # fmt: skip
    assert spaces.pruner_warmup_of(experiment) == first


def test_ranges_in_words():
    assert spaces.describe(SPACE["train.lr"]) == "0.001 to 0.1, log"
    assert spaces.describe(SPACE["train.label_smoothing"]) == "0 to 0.2, step 0.1"
    assert spaces.describe(Range(low=0.1234567, high=1e-5 + 1, step=None)) == "0.1234567 to 1.00001"
    assert spaces.describe((8, 14)) == "8, 14"
