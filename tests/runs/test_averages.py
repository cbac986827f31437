"""Runs that answer by the mean over views, or keep the mean of their last epochs: recorded, judged, gone on with."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.inference.run_model import load_run_model
from imgcls.record import Artifact
from imgcls.runs.val_predictions import recorded_predictions
from imgcls.search.sweep import Sweep
from imgcls.training.checkpoint import load_checkpoint
from tests import fast_start
from tests.runs.test_folds import FOLDS, folds_of
from tests.runs.test_resume import assert_it_goes_on, assert_same

VIEWS = ("data.test_views=orientations",)
AVERAGE = ("train.average_epochs=2", "train.batch_size=400")
BOTH = (*AVERAGE, "data.test_views=flips")


def columns(table, kind):
    return table[[name for name in table.columns if name.startswith(f"{kind}/")]].to_numpy()


def network_of(project, record, *overrides):
    """The network with the kept weights, which sees one view, and the images of val as it sees them."""
    prepared = project.prepare(*overrides)
    network = prepared.model(with_weights=False)
    with project.tracker.fetch(record.run_id, Artifact.BEST) as path:
        network.load_state_dict(load_checkpoint(path)["model"])  # its names are those of the network alone
    return network.eval(), prepared.normalise()(torch.from_numpy(np.array(prepared.dataset.val.pixels)))


def mean_by_hand(network, images):
    views = [view for turned in (images, images.transpose(2, 3)) for view in (turned, turned.flip(3))]
    views += [view.flip(2) for view in views]
    with torch.no_grad():
        return torch.stack([torch.softmax(network(view).double(), dim=1) for view in views]).mean(dim=0).numpy()


@pytest.mark.slow
def test_val_is_scored_by_the_mean_over_the_views(project):
    record = project.trained(*VIEWS)
    probs = mean_by_hand(*network_of(project, record, *VIEWS))
    labels = project.prepare(*VIEWS).dataset.val.labels
    metrics = project.client.get_run(record.run_id).data.metrics
    np.testing.assert_allclose(columns(recorded_predictions(record, project.tracker), "prob"), probs, atol=1e-6)
    assert metrics["val/accuracy_best"] == accuracy_score(labels, probs.argmax(axis=1))
    assert metrics["val/loss_best"] == pytest.approx(log_loss(labels, probs, labels=range(10)), rel=1e-5)
    assert project.client.get_run(record.run_id).data.params["data.test_views"] == "orientations"


@pytest.mark.slow
def test_views_change_no_step_of_the_training(project):
    plain, viewed = project.trained(), project.train(*VIEWS)
    losses = [
        [(point.step, point.value) for point in project.client.get_metric_history(run_id, "train/loss")]
        for run_id in (plain.run_id, viewed.run_id)
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [VIEWS, BOTH], ids=["views", "both"])
def test_whoever_uses_the_run_gets_the_mean(project, settings):
    """The run's model, the judge, who computes val again before test, and a repeat."""
    record = project.trained(*settings)
    model, pixels = load_run_model(record, project.tracker), project.prepare(*settings).dataset.val.pixels
    recorded = recorded_predictions(record, project.tracker)
    np.testing.assert_allclose(model.probs(pixels, raw=True), columns(recorded, "prob"), atol=1e-6)
    np.testing.assert_allclose(model.probs(pixels), columns(recorded, "calibrated"), atol=1e-6)
    result = evaluate(record.run_id, project.tracker)
    assert result.record.metrics["val/accuracy"] == record.metrics["best/val/accuracy"]
    words = "all eight orientations" if settings is VIEWS else "mirrored left and right"
    assert words in result.report


@pytest.mark.slow
def test_a_repeat_of_a_run_gives_its_bits(project):
    record = project.trained(*BOTH)
    verdict = rerun(record.run_id, project.tracker)
    assert verdict.is_bitwise and verdict.is_verified, verdict


@pytest.mark.slow
def test_the_mean_of_the_epochs_is_kept_and_judged(project):
    """`best.pt` is the mean of what a run without a mean keeps of its epochs."""
    with_mean = project.trained(*AVERAGE, "train.score_epoch=3")
    plain = project.train("train.batch_size=400", "train.score_epoch=3", "train.save_from_epoch=1")
    weights = []
    ends = [(plain.run_id, Artifact.EPOCH.format(epoch)) for epoch in (2, 3)]
    for run_id, name in [(with_mean.run_id, Artifact.BEST), *ends]:
        with project.tracker.fetch(run_id, name) as path:
            weights.append(load_checkpoint(path)["model"])
    mean, *ends = weights
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (ends[0][name] + ends[1][name]) / 2)
    result = evaluate(with_mean.run_id, project.tracker)
    assert "the mean of weights at the ends of 2 epochs up to the kept one" in result.report


@pytest.mark.parametrize("questions", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4, 5, 11))])
def test_a_run_stopped_at_any_question_goes_on_to_the_same_bits(project, questions):
    settings = (*BOTH, "train.eval_batch_size=100")
    whole = project.trained(*settings).run_id
    assert_it_goes_on(project, settings, questions, whole)


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_run_that_goes_on_to_the_same_bits(project):
    settings = (*BOTH, "train.epochs=12")
    whole = project.trained(*settings).run_id
    options = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "imgcls", "train", "tiny", "--fresh", *options]
    with fast_start.Popen(command, cwd=project.root, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if "epoch   4/" in line)
        process.kill()
    (killed,) = [record for record in project.runs(kind="train") if record.run_id != whole]
    assert killed.status == "RUNNING"
    assert project.train(*settings).run_id == killed.run_id
    assert_same(project, killed.run_id, whole)


@pytest.mark.slow
def test_a_run_in_folds_answers_by_the_mean_over_models_and_views(project):
    settings = (*FOLDS, *AVERAGE, "data.test_views=flips")
    record = project.trained(*settings)
    pixels = project.prepare(*settings).dataset.val.pixels[:20]
    model = load_run_model(record, project.tracker)
    each = [load_run_model(fold, project.tracker).probs(pixels, raw=True) for fold in folds_of(project, record.run_id)]
    np.testing.assert_allclose(model.probs(pixels, raw=True), np.mean(each, axis=0), atol=1e-6)
    table = recorded_predictions(record, project.tracker)
    by_fold = [member.probs(project.prepare(*settings).dataset.val.pixels, raw=True) for member in model.members()]
    expected = np.stack([by_fold[fold - 1][row] for row, fold in enumerate(table["fold"])])
    np.testing.assert_allclose(columns(table, "prob"), expected, atol=1e-6)
    judged = evaluate(record.run_id, project.tracker).record
    assert judged.metrics["val/accuracy"] == record.metrics["best/val/accuracy"]


@pytest.mark.slow
def test_a_sweep_searches_both_pauses_its_trials_and_names_the_better_views(project):
    """Digits have an orientation, so val prefers one view."""
    result = Sweep(
        project.experiment(
            'search.pruner="halving"', "search.pruner_warmup_epochs=1", 'search.sampler="grid"', "search.trials=4",
            'search.space={"data.test_views" = ["one", "orientations"], "train.average_epochs" = [1, 3]}',
        ),
        project.tracker,
    ).run()  # fmt: skip
    trials = project.runs(kind="trial")
    assert len({(run.params["data.test_views"], run.params["train.average_epochs"]) for run in trials}) == 4
    assert {run.outcome for run in trials} == {"completed", "pruned"}
    winner = project.tracker.get(result.leaderboard.iloc[0]["run_id"])
    assert winner.params["data.test_views"] == "one"
    assert evaluate(winner.run_id, project.tracker).record.metrics["val/accuracy"] == winner.best("val/accuracy")
