"""The run that gives a first number before the sweep: what it turns off, how long it takes, and that it works."""

import shlex

import pytest

from imgcls.config.keys import Experiment
from imgcls.config.load import with_overrides
from imgcls.init.first_number import OF_A_HEAD, START_SECONDS, first_number
from imgcls.training.measured_pace import Pace

PROPOSED = {
    "model.name": "timm:tf_efficientnet_lite0", "model.weights": "package:efficientnet-lite0", "data.image_size": 32,
    "augment.random_resized_crop": [0.5, 1.0], "augment.brightness": 0.2, "augment.contrast": 0.2,
    "augment.vertical_flip": True, "augment.quarter_turns": True, "train.epochs": 8,
}  # fmt: skip


def proposed(**changes):
    return Experiment(name="pets").replace({**PROPOSED, **changes})


def as_typed(experiment, command):
    """The experiment that the command trains."""
    program, verb, name, *options = shlex.split(command)
    assert (program, verb, name) == ("imgcls", "train", "pets")
    assert options[::2] == ["--set"] * (len(options) // 2)
    return with_overrides(experiment, options[1::2])


@pytest.mark.parametrize(
    ("seconds_an_image", "views"),
    [(0.001, 8), (60 / 8000, 8), (0.0076, 4), (0.02, 2), (0.05, 1), (1.0, 1)],
)
def test_views_are_as_many_as_a_minute_has_time_for(seconds_an_image, views):
    experiment = proposed()
    found = first_number(experiment, Pace(1.0, seconds_an_image, "cpu"), 1000, 3)
    trained = as_typed(experiment, found.command)
    for key, value in OF_A_HEAD.items():
        assert getattr(trained.train, key.removeprefix("train.")) == value
    assert trained.augment.random_resized_crop == (1.0, 1.0)
    assert not trained.augment.brightness and not trained.augment.contrast
    on = trained.augment.horizontal_flip, trained.augment.vertical_flip, trained.augment.quarter_turns
    assert (
        on == {8: (True, True, True), 4: (True, True, False), 2: (True, False, False), 1: (False, False, False)}[views]
    )
    assert found.seconds == pytest.approx(START_SECONDS + 1000 * views * seconds_an_image)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.name": "resnet", "model.weights": ""},
        {"model.name": "torchvision:squeezenet1_1", "model.weights": "pretrained"},
    ],
)
def test_there_is_none_without_pretrained_features(changes):
    assert first_number(proposed(**changes), Pace(1.0, 0.01, "cpu"), 1000, 3) is None
