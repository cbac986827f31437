"""A run in folds: what it records is what its folds recorded, and nothing selected them one by one."""

import io
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, log_loss

from imgcls.errors import InputError, Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.inference.run_model import load_run_model
from imgcls.models.ensemble import Ensemble
from imgcls.record import Artifact, Tag
from imgcls.runs.folds import FoldsTraining, out_of_fold_logits
from imgcls.runs.record_writer import RecordWriter
from imgcls.tracking.find_run import newest_runs
from imgcls.training.checkpoint import checkpoint_digest, save_checkpoint
from tests.data.make import write_classes
from tests.runs.test_resume import KilledError, assert_same, points
from tests.stops import StopAfter

FOLDS = ("data.folds=3",)
BEST_OF_CURVE = (*FOLDS, "train.folds_epoch=best", "train.epochs=5", "train.lr=0.03", "train.batch_size=64")
NUM_IMAGES = 1348


@contextmanager
def killed_at_the_end(monkeypatch, owner, step):
    """In this block, a run in folds is killed before a step of its end."""
    original = getattr(owner, step)

    def killed(self, *arguments):
        prepared = self._prepared if owner is RecordWriter else self.prepared
        if prepared.has_folds:
            raise KilledError
        return original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, killed)
        yield


def table(project, run_id):
    return pd.read_csv(io.StringIO(project.tracker.read_text(run_id, Artifact.VAL_PREDICTIONS)))


def folds_of(project, run_id):
    return sorted(project.tracker.children(run_id, "fold"), key=lambda record: record.tags[Tag.FOLD])


def history(project, run_id, name):
    return {point.step: point.value for point in project.client.get_metric_history(run_id, name)}


@pytest.mark.slow
def test_the_predictions_of_a_run_are_those_of_its_folds(project):
    run = project.trained(*FOLDS)
    folds, own = folds_of(project, run.run_id), table(project, run.run_id)
    assert [record.tags[Tag.FOLD] for record in folds] == ["1", "2", "3"] and len(own) == NUM_IMAGES
    for number, record in enumerate(folds, 1):
        of_fold, theirs = own[own["fold"] == number].reset_index(drop=True), table(project, record.run_id)
        shared = [name for name in theirs if not name.startswith("calibrated/")]
        pd.testing.assert_frame_equal(of_fold[shared], theirs[shared], check_exact=True)
    probs = own[[name for name in own if name.startswith("prob/")]].to_numpy()
    assert run.best("val/accuracy") == pytest.approx(accuracy_score(own["label"], own["prediction"]), abs=1e-12)
    assert run.best("val/loss") == pytest.approx(log_loss(own["label"].astype(str), probs), rel=1e-5)
    assert run.num_val == NUM_IMAGES and run.temperature == 1.0 and run.best_epoch == 3


def test_the_metrics_of_an_epoch_are_means_over_the_folds(project):
    run = project.trained(*FOLDS)
    for name in ("train/loss", "val/accuracy", "val/loss"):
        each = [history(project, record.run_id, name) for record in folds_of(project, run.run_id)]
        means = {epoch: np.mean([of[epoch] for of in each]) for epoch in (1, 2, 3)}
        assert history(project, run.run_id, name) == pytest.approx(means, rel=1e-12)


@pytest.mark.slow
def test_the_last_epoch_is_fixed_before_and_the_best_one_is_that_of_the_mean_curve(project):
    assert project.trained(*FOLDS).params["train.score_epoch"] == "3"
    run = project.train(*BEST_OF_CURVE)
    record = project.tracker.get(run.run_id)
    curve = history(project, run.run_id, "val/accuracy")
    own = {fold.run_id: history(project, fold.run_id, "val/accuracy") for fold in folds_of(project, run.run_id)}
    assert curve[record.best_epoch] == max(curve.values()) and record.best_epoch < 5
    assert any(max(of, key=of.get) != record.best_epoch for of in own.values())  # or the test would tell nothing
    assert "This epoch was chosen by val" in record.tags[Tag.DESCRIPTION]
    for fold in folds_of(project, run.run_id):
        assert not [*(fold.folder / "checkpoints").glob("epoch_*")]
    assert evaluate(run.run_id, project.tracker).val["accuracy"] == record.best("val/accuracy")


def test_the_models_together_predict_the_mean_of_their_probabilities(project):
    run = project.trained(*FOLDS)
    model = load_run_model(run, project.tracker)
    squares = project.prepare(*FOLDS).dataset.val.pixels[:50]
    each = [
        load_run_model(record, project.tracker).probs(squares, raw=True) for record in folds_of(project, run.run_id)
    ]
    np.testing.assert_allclose(model.probs(squares), np.mean(each, axis=0), atol=1e-6)


@pytest.mark.slow
def test_the_judge_recomputes_the_scores_of_the_folds_and_says_whose_they_are(project):
    run = project.trained(*FOLDS, judged=True)
    (look,) = project.runs(kind="evaluation")
    assert look.metrics["val/accuracy"] == run.best("val/accuracy")
    report = project.tracker.read_text(look.run_id, Artifact.REPORT)
    assert "the 3 together were not scored on val" in report and "None was fitted" in report
    table = pd.read_csv(io.StringIO(project.tracker.read_text(look.run_id, Artifact.TEST_PREDICTIONS)))
    assert look.metrics["test/accuracy"] == pytest.approx((table["label"] == table["prediction"]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["train.class_weights=auto", "train.loss=logit_adjusted"])
def test_a_run_of_one_fold_answers_though_no_image_of_its_training_is_at_hand(project, settings):
    prepared = project.prepare(*FOLDS, settings)
    of_one = replace(prepared, dataset=prepared.dataset.of_first_folds(1))
    ensemble = Ensemble([prepared.of_fold(1).model()])
    of_all = out_of_fold_logits(ensemble, prepared)
    np.testing.assert_array_equal(out_of_fold_logits(ensemble, of_one), of_all[prepared.dataset.rows_of_fold(1)])


def test_models_in_each_others_place_are_not_judged(project):
    """Together they would be the same, but no image of val would be new to its model."""
    run = project.trained(*FOLDS)
    path = run.folder / Artifact.BEST
    content = torch.load(path, weights_only=True)
    swap = {"0": "1", "1": "0", "2": "2"}
    content["model"] = {
        ".".join([first, swap[number], *rest]): tensor
        for (first, number, *rest), tensor in ((name.split("."), tensor) for name, tensor in content["model"].items())
    }
    save_checkpoint(path, content)
    project.client.set_tag(run.run_id, Tag.BEST_SHA256, checkpoint_digest(path))
    with pytest.raises(InputError, match="was tracked with val/accuracy"):
        evaluate(run.run_id, project.tracker)


@pytest.mark.parametrize("questions", [14, *(pytest.param(number, marks=pytest.mark.slow) for number in (3, 25))])
def test_a_run_stopped_in_any_fold_goes_on_to_the_same_bits(project, questions):
    whole = project.trained(*FOLDS)
    with pytest.raises(Interrupted), StopAfter(questions):
        project.train(*FOLDS, fresh=True)
    stopped = next(record for record in project.runs(kind="train") if record.outcome == "interrupted")
    assert project.train(*FOLDS).run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole.run_id)
    pairs = zip(folds_of(project, stopped.run_id), folds_of(project, whole.run_id), strict=True)
    for fold, expected in pairs:
        assert points(project, fold.run_id) == points(project, expected.run_id)


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "step"), [(RecordWriter, "end"), (FoldsTraining, "_end_those_under_way")])
def test_a_run_killed_at_its_end_goes_on_to_the_same_bits(project, monkeypatch, owner, step):
    """Also after the weights of single epochs, of which it was made, are removed."""
    settings = (*FOLDS, "train.folds_epoch=best")
    whole = project.trained(*settings)
    with killed_at_the_end(monkeypatch, owner, step), pytest.raises(KilledError):
        project.train(*settings, fresh=True)
    monkeypatch.chdir(project.root)
    run_id = project.train(*settings).run_id
    assert_same(project, run_id, whole.run_id)


@pytest.mark.slow
def test_the_model_of_a_fold_that_is_gone_is_trained_again(project):
    """Those of later folds do not take its place: they were trained on its images."""
    with pytest.raises(Interrupted), StopAfter(45):
        project.train(*FOLDS)
    run = project.runs(kind="train")[0]
    first, second, _ = folds_of(project, run.run_id)
    assert second.outcome == "completed"
    project.client.delete_run(first.run_id)
    assert project.train(*FOLDS).run_id == run.run_id
    assert second.run_id in {fold.run_id for fold in folds_of(project, run.run_id)} and len(project.runs()) == 4
    assert evaluate(run.run_id, project.tracker).val["accuracy"] == project.tracker.get(run.run_id).best("val/accuracy")


@pytest.mark.slow
def test_a_rerun_is_bitwise_and_folds_are_not_listed(project):
    run = project.trained(*FOLDS)
    verdict = rerun(run.run_id, project.tracker)
    assert verdict.is_bitwise and len(folds_of(project, verdict.now.run_id)) == 3
    assert [record.kind for record in newest_runs(project.tracker, None, 2)] == ["rerun", "train"]
    one = project.train(*FOLDS, "data.fold=2")
    assert (
        table(project, one.run_id)["prob/3"].tolist()
        == table(project, folds_of(project, run.run_id)[1].run_id)["prob/3"].tolist()
    )


@pytest.mark.slow
@pytest.mark.parametrize("epoch", ["train.folds_epoch=last", "train.folds_epoch=best"])
def test_labels_without_meaning_are_predicted_at_chance(project, epoch):
    """Nothing of an image's own label reaches the model that scores it; these images are noise."""
    write_classes(project.root / "noise", {"a": 150, "b": 150, "c": 150, "d": 150})
    settings = ("data.source=folder", "data.path=noise", "data.test_fraction=0.0", "data.folds=5", epoch)
    quick = ("data.channels=1", "train.epochs=6", "train.batch_size=64", "train.lr=0.01")
    run = project.tracker.get(project.train(*settings, *quick).run_id)
    assert run.metrics["train/loss"] < 1.25  # it learned its train images, of which chance gives 1.39
    low, high = binomtest(150, 600).proportion_ci(0.99)
    assert low < run.best("val/accuracy") < high
