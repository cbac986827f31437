import optuna
import pytest

from imgcls.config import Range
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


def test_a_continuous_range_has_no_grid():
    with pytest.raises(ConfigError, match=r"train\.lr is a continuous range.*list its values"):
        spaces.grid(SPACE)


def test_own_values_must_lie_in_the_space(project):
    experiment = project.experiment("train.lr=0.5")
    with pytest.raises(ConfigError, match=r"train\.lr = 0\.5 lies outside"):
        spaces.own_values(experiment, experiment.search.space)


@pytest.mark.parametrize(
    ("space", "longest"),
    [({}, 1), ({"train.warmup_epochs": {"low": 0, "high": 2}}, 2), ({"train.warmup_epochs": [0, 2, 1]}, 2)],
)
def test_the_longest_warmup_that_any_trial_can_have(project, space, longest):
    experiment = project.experiment()
    search = experiment.search.model_copy(update={"space": {}})
    experiment = experiment.model_copy(update={"search": search})
    experiment = experiment.replace({f"search.space.{key}": value for key, value in space.items()})
    assert spaces.longest_warmup(experiment) == longest


def test_ranges_in_words():
    assert spaces.describe(SPACE["train.lr"]) == "0.001 to 0.1, log"
    assert spaces.describe(SPACE["train.label_smoothing"]) == "0 to 0.2, step 0.1"
    assert spaces.describe((8, 14)) == "8, 14"
