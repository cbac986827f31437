"""A run made again from its record alone: bit by bit where they are owed."""

import pytest

from imgcls.errors import InputError
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import first_difference, rerun
from imgcls.signals import GracefulStop


def repeat(project, run_id):
    return rerun(run_id, project.tracker, project.root, GracefulStop())


def test_a_repeat_has_the_same_bits_and_says_so(project):
    done = project.train("augment.random_resized_crop=[0.5, 1.0]", "model.dropout=0.1", "train.ema_decay=0.9")
    verdict = repeat(project, done.run_id)
    assert verdict.is_bitwise and verdict.is_verified and verdict.owes_bits, verdict
    assert verdict.val_accuracy[0] == verdict.val_accuracy[1]
    record = project.tracker.get(verdict.run_id)
    assert (record.kind, record.tags["mlflow.parentRunId"]) == ("rerun", done.run_id)
    assert record.tags["imgcls.verified"] == "bitwise"
    assert "bitwise" in project.tracker.read_text(verdict.run_id, "report/report.md")
    then, now = (project.tracker.read_text(run, "predictions/val.csv") for run in (done.run_id, verdict.run_id))
    assert then == now


def test_a_record_that_another_run_made_is_not_verified(project):
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    project.client.log_metric(done.run_id, "val/loss", 0.5, step=1)
    verdict = repeat(project, done.run_id)
    assert not verdict.is_verified and verdict.word == "no"
    assert verdict.first_difference.startswith("epoch 1, val/loss: 0.5 -> ")


def test_elsewhere_a_tolerance_holds_and_the_causes_are_named(project):
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    project.client.log_metric(done.run_id, "val/loss", 0.5, step=1)
    project.client.set_tag(done.run_id, "imgcls.device", "cpu: another processor, 64 threads")
    project.client.set_tag(done.run_id, "imgcls.git_commit", "0123456789abcdef")
    verdict = repeat(project, done.run_id)
    assert verdict.is_verified and verdict.word == "within tolerance"
    assert any(cause.startswith("hardware: cpu: another processor, 64 threads -> ") for cause in verdict.causes)
    assert any("code: commit 0123456789 -> " in cause for cause in verdict.causes)
    project.client.log_metric(done.run_id, "best/val/accuracy", 0.01, step=9)
    assert not repeat(project, done.run_id).is_verified


def test_what_has_nothing_to_repeat_is_refused(project):
    done = project.train("train.epochs=1", "train.warmup_epochs=0")
    judged = evaluate(done.run_id, project.tracker, project.root)
    for run_id, why in (("nonsense", "no run"), (judged.run_id, "itself an evaluation")):
        with pytest.raises(InputError, match=why):
            repeat(project, run_id)
    assert project.runs(kind="rerun") == []


def test_the_earliest_difference_is_named():
    original = {"a": {1: 1.0, 2: 2.0}, "b": {1: 1.0, 2: 2.0}}
    assert first_difference(original, original) == ""
    assert first_difference(original, {"a": {1: 1.0, 2: 3.0}, "b": {1: 1.5, 2: 2.0}}) == "epoch 1, b: 1.0 -> 1.5"
    assert first_difference(original, {"a": {1: 1.0}, "b": {1: 1.0}}) == "epoch 2, a: 2.0 -> nan"
