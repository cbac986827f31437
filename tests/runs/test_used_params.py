"""Params that a run shows in MLflow: what its network and its augmentation use; `config.toml` has every key."""

import tomllib

import pytest

from imgcls.config.keys import Experiment
from imgcls.runs.used_params import used_params


@pytest.mark.parametrize(
    ("changed", "shown", "hidden"),
    [
        ({}, {"model.depth", "model.dropout"}, {"model.patch", "model.encoder_seed", "augment.aspect_ratio"}),
        ({"model.name": "random-encoder"}, {"model.patch", "model.encoder_seed"}, {"model.weights"}),
        ({"model.name": "timm:resnet18"}, {"model.weights", "model.dropout"}, {"model.depth", "model.stem"}),
        ({"model.name": "torchvision:alexnet"}, {"model.weights"}, {"model.dropout", "model.width"}),
        ({"augment.random_resized_crop": [0.5, 1.0]}, {"augment.aspect_ratio"}, set()),
        ({"data.channels": 1}, {"augment.brightness"}, {"augment.saturation", "augment.hue"}),
        ({"data.channels": 3}, {"augment.saturation", "augment.hue"}, set()),
        ({"search.space.augment.saturation": [0.0], "data.channels": 1}, {"augment.saturation"}, {"augment.hue"}),
        ({"model.name": "of-a-later-version"}, {"model.depth", "model.patch"}, set()),
    ],
)
def test_what_is_used_is_shown_and_nothing_else_is_hidden(changed, shown, hidden):
    params = Experiment(name="x").replace(changed).params()
    used = used_params(params)
    assert shown <= used.keys() and not hidden & used.keys()
    assert {key for key in params.keys() - used.keys() if not key.startswith(("model.", "augment."))} == set()


def test_a_run_shows_what_it_uses_and_its_config_is_whole(project):
    done = project.train("train.epochs=2")
    params = project.client.get_run(done.run_id).data.params
    assert "model.patch" not in params and "augment.hue" not in params and params["model.depth"] == "8"
    config = tomllib.loads(project.tracker.read_text(done.run_id, "config.toml"))
    assert config["model"]["patch"] == 64 and config["augment"]["hue"] == 0.0
