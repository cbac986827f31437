import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from imgcls.data.held_out import HeldOut
from imgcls.errors import DataError, InputError
from imgcls.evaluation.judge import evaluate
from imgcls.search.sweep import Sweep
from imgcls.tracking.store import Tracker

DIGITS = [str(i) for i in range(10)]


def judge(project, run_id, **options):
    return evaluate(run_id, project.tracker, **options)


def refused(project, run_id, error, match):
    """Refused before anything is written down."""
    before = len(project.runs())
    with pytest.raises(error, match=match):
        judge(project, run_id)
    assert len(project.runs()) == before


@pytest.fixture(scope="module")
def judged(make_project):
    """A project, its finished run and what the evaluation of it gave."""
    made = make_project()
    done = made.trained()
    return made, done, judge(made, done.run_id)


def test_the_record_of_an_evaluation_is_whole(judged):
    project, done, result = judged
    run = project.client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["imgcls.kind"] == "evaluation"
    assert run.data.tags["imgcls.evaluated_run_id"] == run.data.tags["mlflow.parentRunId"] == done.run_id
    assert run.data.tags["imgcls.test_look"] == "1"
    assert run.data.tags["imgcls.test_fingerprint"] == project.tracker.get(done.run_id).tags["imgcls.test_fingerprint"]
    names = ("loss", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1", "auroc", "ece")
    assert {f"test/{name}" for name in names} <= set(run.data.metrics)
    assert run.data.metrics["val_test_gap"] == result.val["accuracy"] - result.test["accuracy"]
    paths = {
        artifact.path
        for folder in ("predictions", "report", "figures")
        for artifact in project.client.list_artifacts(result.run_id, folder)
    }
    assert paths == {
        "predictions/test.csv", "report/report.md", "report/per_class.csv", "report/test_images.txt",
        "report/test_sketches.npy", "report/report.html",
        "figures/confusion_matrix.png", "figures/reliability.png", "figures/worst_mistakes.png",
    }  # fmt: skip


def test_scores_are_those_of_scikit_learn_on_the_stored_predictions(judged):
    project, _, result = judged
    table = pd.read_csv(io.StringIO(project.tracker.read_text(result.run_id, "predictions/test.csv")), dtype=str)
    labels, predictions = table["label"], table["prediction"]
    probs = table[[f"prob/{name}" for name in DIGITS]].astype(float).to_numpy()
    metrics = project.client.get_run(result.run_id).data.metrics
    assert len(table) == 449
    assert metrics["test/accuracy"] == accuracy_score(labels, predictions)
    assert metrics["test/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert metrics["test/macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert metrics["test/loss"] == pytest.approx(log_loss(labels, probs, labels=DIGITS))
    assert metrics["test/auroc"] == pytest.approx(roc_auc_score(labels, probs, multi_class="ovr", labels=DIGITS))
    assert metrics["best_temperature"] != 1
    calibrated = table[[f"calibrated/{name}" for name in DIGITS]].astype(float).to_numpy()
    assert metrics["test/calibrated_loss"] == pytest.approx(log_loss(labels, calibrated, labels=DIGITS))
    assert metrics["test/calibrated_loss_low"] < metrics["test/calibrated_loss"] < metrics["test/calibrated_loss_high"]
    confidence, right = calibrated.max(axis=1), (labels == predictions).to_numpy()
    bins = np.ceil(confidence * 15)
    gaps = [abs((right[bins == one] - confidence[bins == one]).sum()) for one in np.unique(bins)]
    assert metrics["test/calibrated_ece"] == pytest.approx(sum(gaps) / len(table))
    assert result.flat()["test/calibrated_loss"] == metrics["test/calibrated_loss"]
    assert result.flat()["best/temperature"] == metrics["best_temperature"]
    correct = int((labels == predictions).sum())
    wilson = binomtest(correct, len(table)).proportion_ci(method="wilson")
    assert (metrics["test/accuracy_low"], metrics["test/accuracy_high"]) == pytest.approx((wilson.low, wilson.high))


def test_the_look_is_written_down_before_the_split_is_opened(project, monkeypatch):
    done = project.trained()

    def crash(_, look):
        record = project.runs(kind="evaluation")[-1]
        assert (record.run_id, record.tags["imgcls.test_look"]) == (look.run_id, str(look.number))
        looks.append(look.number)
        raise MemoryError("crashed while looking")

    looks = []
    monkeypatch.setattr(HeldOut, "open", crash)
    for _ in range(2):
        with pytest.raises(MemoryError):
            judge(project, done.run_id)
    assert looks == [1, 2]  # a crash after the opening still counts


def test_a_description_that_cannot_be_changed_hides_no_result(project, monkeypatch, caplog):
    done = project.trained()

    def refuse(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Tracker, "amend", refuse)
    assert judge(project, done.run_id).record.look == 1
    assert f"the description of run {done.run_id} does not show these scores: no space left" in caplog.text


@pytest.mark.slow
def test_looks_of_deleted_evaluations_count(project):
    done = project.trained()
    first = judge(project, done.run_id)
    project.client.delete_run(first.run_id)
    assert judge(project, project.train("train.seed=1").run_id).record.look == 2


@pytest.mark.slow
def test_a_sweep_stands_for_its_winner(project):
    found = Sweep(project.experiment("search.trials=1"), project.tracker).run()
    assert judge(project, found.run_id).judged.run_id == found.best_run_id


def test_an_unknown_run_is_refused(project):
    refused(project, "nonsense", InputError, "no run 'nonsense'")


@pytest.mark.slow
def test_an_evaluation_is_not_evaluated(project):
    done = project.trained()
    refused(project, judge(project, done.run_id).run_id, InputError, f"itself an evaluation, of run {done.run_id}")


@pytest.mark.parametrize("outcome", ["running", "interrupted", "failed"])
def test_a_run_that_did_not_end_well_is_refused(project, outcome):
    done = project.trained()
    project.client.set_tag(done.run_id, "imgcls.outcome", outcome)
    refused(project, done.run_id, InputError, rf"not finished \({outcome}")


def test_a_pruned_run_is_refused(project):
    done = project.train(prune=lambda _: True)
    refused(project, done.run_id, InputError, r"not finished \(pruned")


def test_a_run_without_checkpoint_is_refused(project):
    done = project.trained()
    with project.tracker.fetch(done.run_id, "checkpoints/best.pt") as path:
        path.unlink()
    refused(project, done.run_id, InputError, "no artifact checkpoints/best.pt")


def test_a_checkpoint_that_is_not_the_tracked_one_is_refused(project):
    done = project.trained()
    with project.tracker.fetch(done.run_id, "checkpoints/best.pt") as path:
        content = torch.load(path, weights_only=True)
        content["model"]["fc.bias"][3] += 1e-3
        torch.save(content, path)
    refused(project, done.run_id, InputError, "not the one that was tracked")


def change_best(project, run_id, change):
    """Changes `best.pt` of a run of an earlier version, which recorded no digest of it."""
    project.client.delete_tag(run_id, "imgcls.best_sha256")
    with project.tracker.fetch(run_id, "checkpoints/best.pt") as path:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)


def test_without_a_recorded_digest_a_changed_checkpoint_is_found_by_what_it_predicts(project):
    done = project.trained()
    change_best(project, done.run_id, lambda content: content["model"]["fc.bias"][3].add_(1e-3))
    refused(project, done.run_id, InputError, "not the one that was tracked")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", 2), ("class_names", [*DIGITS[1:], DIGITS[0]]), ("class_names", None)],
)
def test_a_checkpoint_that_says_something_else_than_the_record_is_refused(project, name, value):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    change_best(project, done.run_id, lambda content: content.update({name: value}))
    refused(project, done.run_id, InputError, f"says {name} .*; it is not the one that was tracked")


@pytest.mark.parametrize(("shift", "accepted"), [(0.0, True), (5.0, False)])
@pytest.mark.slow
def test_elsewhere_one_image_in_500_may_differ(project, shift, accepted):
    done = project.trained()
    project.client.set_tag(done.run_id, "imgcls.device", "cuda: another machine")

    def change(content):
        content["model"]["fc.bias"] += 1e-6  # other bits, the same predictions
        content["model"]["fc.bias"][3] += shift

    change_best(project, done.run_id, change)
    if accepted:
        assert judge(project, done.run_id).record.look == 1
    else:
        refused(project, done.run_id, InputError, "images differ, where 1 may between machines")


@pytest.fixture
def photographs(tmp_path):
    """train and test of two plain colours, in a folder."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, colour in (("blue", (20, 20, 200)), ("red", (200, 20, 20))):
            folder = tmp_path / "photographs" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + draws.normal(0, 20, (12, 12, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photographs"


def folder_run(project, path, *more):
    return project.train(
        'data.source="folder"', f"data.path={path}", "train.batch_size=4", "data.val_fraction=0.25", *more
    )


def test_a_folder_of_images_is_judged_on_its_own_test_split(project, photographs):
    assert judge(project, folder_run(project, photographs).run_id).flat()["test/accuracy"] >= 0.5


def test_changed_test_images_are_noticed(project, photographs):
    done = folder_run(project, photographs)
    Image.new("RGB", (12, 12)).save(photographs / "test" / "red" / "0.png")
    refused(project, done.run_id, DataError, "the test split changed since run")


def test_changed_training_images_are_noticed(project, photographs):
    done = folder_run(project, photographs)
    (photographs / "train" / "red" / "0.png").unlink()
    refused(project, done.run_id, DataError, "the data changed since run")


def test_without_a_test_split_there_is_nothing_to_open(project, photographs):
    (photographs / "test").rename(photographs / "attic")
    done = folder_run(project, photographs)
    refused(project, done.run_id, DataError, "no test split")
