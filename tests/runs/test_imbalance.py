"""Runs that make up for uneven classes: what they record, that they go on, and that what is used is what was scored."""

import io
import os
import signal
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from imgcls.errors import ConfigError, Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.inference.export import inference_graph
from imgcls.inference.export_proof import ValReference, prove_export
from imgcls.inference.run_model import load_run_model
from imgcls.record import Artifact
from imgcls.search.sweep import Sweep
from tests import fast_start
from tests.inference.test_export import eager
from tests.runs.test_resume import assert_same
from tests.stops import StopAfter

BALANCED = ("train.sampling=balanced", "train.loss=focal")
ADJUSTED = ("train.loss=logit_adjusted", "augment.mixup=0.2")


def val_table(project, run_id):
    return pd.read_csv(io.StringIO(project.tracker.read_text(run_id, Artifact.VAL_PREDICTIONS)))


def probabilities(table):
    return table[[name for name in table if name.startswith("prob/")]].to_numpy()


@pytest.mark.parametrize(
    ("settings", "params"),
    [
        (BALANCED, {"train.sampling": "balanced", "train.loss": "focal", "train.focal_gamma": "2.0"}),
        (ADJUSTED, {"train.sampling": "natural", "train.loss": "logit_adjusted", "train.logit_adjustment": "1.0"}),
    ],
)
def test_val_loss_stays_the_cross_entropy_and_the_record_names_what_was_descended(project, settings, params):
    run = project.trained(*settings)
    recorded = project.client.get_run(run.run_id).data.params
    about = ("train.sampling", "train.loss", "train.focal_gamma", "train.logit_adjustment")
    assert {key: recorded[key] for key in about if key in recorded} == params
    table = val_table(project, run.run_id)
    assert run.best("val/loss") == pytest.approx(log_loss(table["label"].astype(str), probabilities(table)), rel=1e-5)
    assert run.tags["imgcls.loss"] == "2"


@pytest.mark.parametrize("settings", [BALANCED, ADJUSTED])
def test_a_stopped_run_goes_on_to_the_same_bits(project, settings):
    whole = project.trained(*settings).run_id
    with pytest.raises(Interrupted), StopAfter(7):
        project.train(*settings, fresh=True)
    (stopped,) = project.runs(outcome="interrupted")
    assert project.train(*settings).run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)


KILLED = """
import os, signal, sys
from imgcls.training.loss import LossSum
add, steps = LossSum.add, []

def killing(self, *arguments):
    steps.append(arguments)
    if len(steps) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, *arguments)

LossSum.add = killing
sys.argv = ["imgcls", "train", "tiny", *sys.argv[1:]]
from imgcls.cli.app import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("settings", [BALANCED, ADJUSTED])
def test_a_killed_run_goes_on_to_the_same_bits(project, settings):
    whole = project.trained(*settings).run_id
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-c", KILLED, "--fresh", *options]
    killed = fast_start.run(command, cwd=project.root, env=os.environ, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = project.runs(kind="train")[-1]
    assert left.run_id != whole and left.status == "RUNNING"
    assert project.train(*settings).run_id == left.run_id
    assert_same(project, left.run_id, whole)


@pytest.mark.parametrize("settings", [BALANCED, ADJUSTED])
@pytest.mark.slow
def test_the_judge_and_a_repetition_find_the_recorded_scores(project, settings):
    run = project.trained(*settings)
    assert rerun(run.run_id, project.tracker).is_bitwise
    assert (
        evaluate(run.run_id, project.tracker).judged.run_id == run.run_id
    )  # it computes val again before it opens test


@pytest.mark.slow
def test_the_adjustment_stays_in_the_loss_and_what_is_exported_is_the_network(project):
    run = project.trained(*ADJUSTED)
    model = load_run_model(run, project.tracker)
    assert not [name for name in model.network.state_dict() if "shift" in name]
    reference, graph = ValReference.of(model, project.tracker), inference_graph(model)
    proof = prove_export(eager(model, graph=graph, tracker=project.tracker), reference, graph)  # raises where it fails
    assert proof.squares.num_images == run.num_val and proof.squares.largest < 1e-5


def test_the_shares_of_the_classes_are_those_of_the_folds_own_train(project):
    prepared = project.prepare("data.folds=3", "train.logit_adjustment=0.5", *ADJUSTED)
    for number in (1, 2, 3):
        of_fold = prepared.of_fold(number)
        nums = np.bincount(prepared.dataset.train.labels[prepared.dataset.folds != number])
        shift = of_fold.task_on_images().loss.shift
        assert torch.allclose(shift, 0.5 * torch.tensor(nums / nums.sum()).log().float(), rtol=1e-6)


def test_a_run_with_a_key_of_a_version_before_at_its_default_goes_on(project):
    """The params of such a run lack what came later; its identity is the same."""
    whole = project.trained().run_id
    with pytest.raises(Interrupted), StopAfter(7):
        project.train(fresh=True)
    (stopped,) = project.runs(outcome="interrupted")
    assert project.train("train.loss=cross_entropy", "train.sampling=natural").run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)


def test_a_space_whose_values_make_up_twice_is_refused_before_a_trial_runs(project):
    space = 'search.space.train.loss=["cross_entropy", "logit_adjusted"]'
    twice = r'train\.loss = "logit_adjusted": makes up .* train\.sampling = "balanced"'
    for other in ("train.sampling=balanced", 'search.space.train.sampling=["natural", "balanced"]'):
        with pytest.raises(ConfigError, match=twice):
            Sweep(project.experiment(space, other), project.tracker).run()
    assert project.runs() == []


@pytest.mark.slow
def test_losses_are_searched_and_a_sweep_goes_on(project):
    settings = (
        'search.space.train.loss=["cross_entropy", "focal", "logit_adjusted"]', "search.space.train.lr=[0.02]",
        "search.space.train.focal_gamma={ low = 0.5, high = 3.0 }", "search.space.model.depth=[8]", "search.trials=4",
    )  # fmt: skip
    with pytest.raises(Interrupted), StopAfter(20):
        Sweep(project.experiment(*settings), project.tracker).run()
    result = Sweep(project.experiment(*settings), project.tracker).run()
    trials = project.tracker.children(result.run_id, "trial")
    assert len(trials) == 4 and {trial.params["train.loss"] for trial in trials} > {"cross_entropy"}
    assert {0.5 <= float(trial.params["train.focal_gamma"]) <= 3.0 for trial in trials} == {True}
