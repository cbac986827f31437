"""Params that a run shows in MLflow, and the digest of those that say what it trains; `config.toml` has every key."""

import tomllib

import pytest

from imgcls.config.keys import Experiment
from imgcls.runs.used_params import described_work, used_params, with_added, work_hash


@pytest.mark.parametrize(
    ("changed", "shown", "hidden"),
    [
        ({}, {"model.depth", "model.dropout"}, {"model.patch", "model.encoder_seed", "augment.aspect_ratio"}),
        ({"model.name": "random-encoder"}, {"model.patch", "model.encoder_seed"}, {"model.weights"}),
        ({"model.name": "timm:resnet18"}, {"model.weights", "model.dropout"}, {"model.depth", "model.stem"}),
        ({"model.name": "timm:resnet18", "model.depth": 3}, {"model.depth"}, {"model.stem"}),
        ({"model.name": "timm:resnet18", "search.space.model.depth": [3, 5]}, {"model.depth"}, {"model.stem"}),
        ({"model.name": "torchvision:alexnet"}, {"model.weights"}, {"model.dropout", "model.width"}),
        ({"augment.random_resized_crop": [0.5, 1.0]}, {"augment.aspect_ratio"}, set()),
        ({"data.channels": 1}, {"augment.brightness"}, {"augment.saturation", "augment.hue"}),
        ({"data.channels": 3}, {"augment.saturation", "augment.hue"}, set()),
        ({"search.space.augment.saturation": [0.0], "data.channels": 1}, {"augment.saturation"}, {"augment.hue"}),
        ({}, {"train.loss", "train.sampling"}, {"train.focal_gamma", "train.logit_adjustment"}),
        ({"train.loss": "focal"}, {"train.focal_gamma"}, {"train.logit_adjustment"}),
        ({"train.loss": "logit_adjusted"}, {"train.logit_adjustment"}, {"train.focal_gamma"}),
        (
            {"search.space.train.loss": ["cross_entropy", "focal"]},
            {"train.focal_gamma", "train.logit_adjustment"},
            {"model.patch"},
        ),
        ({}, {"train.optimizer"}, {"train.momentum"}),
        ({"train.optimizer": "sgd"}, {"train.momentum"}, set()),
        ({"search.space.train.momentum": [0.9, 0.5]}, {"train.momentum"}, set()),
        ({"model.name": "of-a-later-version"}, {"model.depth", "model.patch"}, set()),
    ],
)
def test_what_is_used_is_shown_and_nothing_else_is_hidden(changed, shown, hidden):
    params = Experiment(name="x").replace(changed).params()
    used = used_params(params)
    assert shown <= used.keys() and not hidden & used.keys()
    others = {key for key in params.keys() - used.keys() if not key.startswith(("model.", "augment."))}
    assert others <= {"train.focal_gamma", "train.logit_adjustment", "train.momentum"}


def test_a_run_shows_what_it_uses_and_its_config_is_whole(project):
    done = project.train("train.epochs=2")
    params = project.client.get_run(done.run_id).data.params
    assert "model.patch" not in params and "augment.hue" not in params and params["model.depth"] == "8"
    config = tomllib.loads(project.tracker.read_text(done.run_id, "config.toml"))
    assert config["model"]["patch"] == 64 and config["augment"]["hue"] == 0.0


@pytest.mark.parametrize(
    ("changed", "is_other_work"),
    [
        ({"train.threads": 2}, False),
        ({"train.device": "cuda:1"}, False),
        ({"search.workers": 2}, False),
        ({"search.trials": 99, "search.timeout": 60.0, "search.space.train.lr": [0.1]}, False),
        ({"report.figures": "all"}, False),
        ({"search.metric": "val/loss"}, True),  # which selects the epoch
        ({"train.precision": "bfloat16"}, True),
        ({"train.seed": 1}, True),
        ({"data.folds": 3}, True),
    ],
    ids=str,
)
def test_equal_work_has_an_equal_digest_on_any_machine_and_in_any_sweep(changed, is_other_work):
    plain = Experiment(name="n").replace({"train.threads": 1, "search.workers": 1})
    assert (work_hash(plain) != work_hash(plain.replace(changed))) == is_other_work


def test_a_run_of_timm_of_a_version_that_knew_no_depth_of_it_is_the_same_work():
    now = Experiment(name="n").replace({"model.name": "timm:resnet18"}).params()
    before = {key: value for key, value in now.items() if key != "model.depth"}
    assert described_work(used_params(before)) == described_work(used_params(now))
    cut = now | {"model.depth": "3"}
    assert described_work(used_params(before)) != described_work(used_params(cut))


def test_a_run_of_a_version_without_a_key_did_what_the_default_says():
    now = Experiment(name="n").params()
    before = {key: value for key, value in now.items() if key not in ("train.loss", "train.sampling")}
    assert used_params(with_added(before)) == used_params(now)
    assert described_work(used_params(before)) == described_work(used_params(now))
