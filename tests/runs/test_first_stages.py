"""Runs of the first stages of a network of timm: stopped, repeated, judged, swept."""

import pytest
import timm
import torch

from imgcls.errors import ConfigError
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.search.sweep import Sweep
from tests.runs.test_resume import assert_it_goes_on, weights

SMALL = ("data.image_size=16", "model.name=timm:test_resnet", "model.width=0", "model.weights=start.pt")
CUT = (*SMALL, "model.depth=3", "model.dropout=0.1", "train.freeze_epochs=1", "train.layer_decay=0.7")


@pytest.fixture
def tuned(project):
    """A project with the weights of a whole network of timm, whatever they can do."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        torch.save(timm.create_model("test_resnet", in_chans=1).state_dict(), project.root / "start.pt")
    return project


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tuned):
    whole = tuned.train(*CUT).run_id
    assert_it_goes_on(tuned, CUT, 6, whole)


@pytest.mark.slow
def test_a_run_is_repeated_and_judged_as_what_it_was(tuned):
    done = tuned.train(*CUT, "train.epochs=2", "train.score_epoch=1")  # so what is kept was never thawed
    kept, began = weights(tuned, done.run_id), torch.load("start.pt", weights_only=True)
    backbone = {name.removeprefix("backbone."): kept[name] for name in kept if name.startswith("backbone.")}
    assert backbone and all(torch.equal(tensor, began[name]) for name, tensor in backbone.items())
    assert not any(name.startswith("layer3.") for name in backbone)
    assert tuned.client.get_run(done.run_id).data.params["model.depth"] == "3"
    assert rerun(done.run_id, tuned.tracker).is_bitwise
    report = evaluate(done.run_id, tuned.tracker).report
    assert "timm:test_resnet, 3 stages" in report


@pytest.mark.slow
def test_a_sweep_searches_the_depth(tuned):
    space = {"model.depth": [2, 5], "train.lr": {"low": 1e-3, "high": 3e-2, "log": True}}
    settings = (*SMALL, "model.depth=5", "search.sampler=random", "search.trials=3", "train.epochs=1")
    result = Sweep(tuned.experiment(*settings).replace({"search.space": space}), tuned.tracker).run()
    assert len(result.leaderboard) == 3
    assert {record.params["model.depth"] for record in tuned.runs(kind="trial")} == {"2", "5"}


def test_a_sweep_with_a_depth_that_the_network_does_not_have_is_refused_before_it_begins(tuned):
    experiment = tuned.experiment(*SMALL, "model.depth=5").replace({"search.space": {"model.depth": [2, 5, 9]}})
    with pytest.raises(ConfigError, match=r"model\.depth = 9: timm:test_resnet has 5 stages; choose 1 to 5"):
        Sweep(experiment, tuned.tracker)


@pytest.mark.slow
def test_the_head_is_trained_alone_on_the_features_of_the_kept_stages(tuned):
    done = tuned.train(*SMALL, "model.depth=2", "train.head_only=true")
    kept, began = weights(tuned, done.run_id), torch.load("start.pt", weights_only=True)
    assert torch.equal(kept["backbone.layer1.0.conv1.weight"], began["layer1.0.conv1.weight"])
    evaluate(done.run_id, tuned.tracker)
