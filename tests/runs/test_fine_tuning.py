"""Runs whose backbone is frozen at first and learns at rates of its own: stopped, killed, judged, repeated, swept."""

import subprocess
import sys

import pytest
import torch

from imgcls.errors import ConfigError, InputError
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.models.resnet import resnet
from imgcls.project import Project
from imgcls.runs.train import train
from imgcls.search.sweep import Sweep
from tests import fast_start
from tests.runs.test_resume import assert_it_goes_on, assert_same, weights

WEIGHTS = "model.weights=start.pt"
SGD = (
    WEIGHTS, "train.freeze_epochs=1", "train.optimizer=sgd", "train.layer_decay=0.7", "train.backbone_lr_scale=0.5",
    "train.ema_decay=0.9", "augment.mixup=0.2",
)  # fmt: skip
ADAMW = (WEIGHTS, "train.freeze_epochs=2", "train.layer_decay=0.7", "train.average_epochs=2")


@pytest.fixture
def tuned(project):
    """A project with a file of weights to start from, whatever they can do."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        torch.save(resnet(8, 8, "small", 10, 1).state_dict(), project.root / "start.pt")
    return project


# After each of 5 steps an epoch the run is asked whether to stop. SGD thaws after the fifth, AdamW after the tenth.
@pytest.mark.parametrize(("settings", "questions"), [
    (SGD, 5), *(pytest.param(SGD, n, marks=pytest.mark.slow) for n in (1, 4, 6, 12)),
    (ADAMW, 8), *(pytest.param(ADAMW, n, marks=pytest.mark.slow) for n in (10, 11, 12, 13)),
])  # fmt: skip
def test_a_run_stopped_before_at_or_after_the_thaw_goes_on_to_the_same_bits(tuned, settings, questions):
    whole = tuned.train(*settings).run_id
    assert_it_goes_on(tuned, settings, questions, whole)


@pytest.mark.slow
def test_a_run_is_judged_repeated_and_described_as_what_it_was(tuned):
    done = tuned.train(*SGD, "train.score_epoch=1")  # so what is kept was never thawed
    kept, began = weights(tuned, done.run_id), torch.load("start.pt", weights_only=True)
    assert {name for name in kept if torch.equal(kept[name], began[name])} == {
        n for n in kept if not n.startswith("fc.")
    }
    params = tuned.client.get_run(done.run_id).data.params
    assert {key: params[f"train.{key}"] for key in ("optimizer", "momentum", "freeze_epochs", "layer_decay")} == {
        "optimizer": "sgd", "momentum": "0.9", "freeze_epochs": "1", "layer_decay": "0.7",
    }  # fmt: skip
    assert rerun(done.run_id, tuned.tracker).is_bitwise
    report = evaluate(done.run_id, tuned.tracker).report
    assert (
        "SGD with Nesterov momentum 0.9" in report and "In the first epoch the last layer alone was trained." in report
    )


def test_an_adamw_run_shows_no_momentum(tuned):
    done = tuned.train("train.epochs=1")
    assert "train.momentum" not in tuned.client.get_run(done.run_id).data.params


@pytest.mark.slow
def test_a_sweep_searches_optimizer_and_freeze(tuned):
    experiment = tuned.experiment(WEIGHTS, "search.sampler=random", "search.trials=3", "train.epochs=2").replace(
        {"search.space": {"train.optimizer": ["adamw", "sgd"], "train.freeze_epochs": {"low": 0, "high": 1}}}
    )
    result = Sweep(experiment, tuned.tracker).run()
    trials = [record.params for record in tuned.runs(kind="trial")]
    assert len(result.leaderboard) == len(trials) == 3
    assert {(p["train.optimizer"], p["train.freeze_epochs"]) for p in trials} > {("adamw", "0")}


@pytest.mark.parametrize(("space", "why"), [
    ({"train.freeze_epochs": [0, 1], "model.weights": ["", "start.pt"]}, "model.weights is empty"),
    ({"train.freeze_epochs": {"low": 0, "high": 3}}, "train.freeze_epochs = 3: does not end within train.epochs = 3"),
    ({"train.freeze_epochs": [0, 1], "train.head_only": [False, True]}, "trains nothing before the last layer"),
])  # fmt: skip
def test_a_search_space_with_impossible_freezes_is_refused_before_it_begins(tuned, space, why):
    with pytest.raises(ConfigError, match=why):
        Sweep(tuned.experiment(WEIGHTS).replace({"search.space": space}), tuned.tracker)


NOWHERE = ("data.source=folder", "data.path=nowhere")
"""Settings of which no image can be read."""
VIT = ("model.name=timm:vit_tiny_patch16_224", "model.depth=0", "model.width=0")


@pytest.mark.parametrize(("settings", "why"), [
    ((*VIT, "data.image_size=8"), "timm:vit_tiny_patch16_224 cannot take images of 8 x 8 pixels"),
    ((WEIGHTS, "model.depth=14", "data.channels=1"), "'start.pt': these weights are of another network"),
    ((WEIGHTS, "data.channels=3"), "conv1.weight is .8, 1, 3, 3., not .8, 3, 3, 3."),
])  # fmt: skip
def test_what_a_network_refuses_is_said_before_any_image_is_read(tuned, settings, why):
    with pytest.raises(InputError, match=why):
        train(tuned.experiment(*NOWHERE, *settings), Project(tuned.root))


def test_a_sweep_refuses_what_one_of_its_networks_refuses(tuned):
    experiment = tuned.experiment(*NOWHERE, *VIT, "data.image_size=16")
    with pytest.raises(InputError, match="cannot take images of 8 x 8 pixels"):
        Sweep(experiment.replace({"search.space": {"data.image_size": [16, 8]}}), tuned.tracker)


@pytest.mark.slow
def test_each_fold_is_frozen_and_thawed(tuned):
    done = tuned.train(*SGD, "data.folds=2", "train.epochs=2")
    kept, began = weights(tuned, done.run_id), torch.load("start.pt", weights_only=True)
    assert not torch.equal(kept["members.0.conv1.weight"], began["conv1.weight"])
    assert not torch.equal(kept["members.0.conv1.weight"], kept["members.1.conv1.weight"])
    evaluate(done.run_id, tuned.tracker)


@pytest.mark.slow
@pytest.mark.parametrize("num_frozen", [12, 1], ids=["while frozen", "after the thaw"])
def test_a_process_that_is_killed_goes_on_to_the_same_bits(tuned, num_frozen):
    settings = (*SGD, f"train.freeze_epochs={num_frozen}", "train.epochs=16")
    whole = tuned.train(*settings).run_id
    options = [part for setting in settings for part in ("--set", setting)]
    command = (sys.executable, "-m", "imgcls", "train", "tiny", *options, "--fresh")
    with fast_start.Popen(command, cwd=tuned.root, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if "epoch   3/" in line)  # of which two at least are kept
        process.kill()
    (killed,) = [run for run in tuned.runs(kind="train") if run.run_id != whole]
    assert killed.status == "RUNNING"
    assert tuned.train(*settings).run_id == killed.run_id
    assert_same(tuned, killed.run_id, whole)
