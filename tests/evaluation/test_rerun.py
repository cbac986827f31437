"""A run made again from its record alone: bit by bit where they are owed."""

import json
from dataclasses import replace
from importlib.metadata import version

import pytest

from imgcls.config.train_keys import TrainConfig
from imgcls.errors import DataError, InputError
from imgcls.evaluation.rerun import _other_code, first_difference, rerun
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import other_versions, same_place
from imgcls.tracking import provenance
from imgcls.training.device import UNKNOWN_MODEL, prepare_device
from tests.data.make import noise, write, write_class


def repeat(project, run_id):
    return rerun(run_id, project.tracker)


def test_a_repeat_has_the_same_bits_and_says_so(project):
    done = project.trained("augment.random_resized_crop=[0.5, 1.0]", "model.dropout=0.1", "train.ema_decay=0.9")
    verdict = repeat(project, done.run_id)
    assert verdict.is_bitwise and verdict.is_verified and verdict.owes_bits, verdict
    assert verdict.val_accuracy[0] == verdict.val_accuracy[1]
    record = project.tracker.get(verdict.now.run_id)
    assert (record.kind, record.tags["mlflow.parentRunId"]) == ("rerun", done.run_id)
    assert record.tags["imgcls.verified"] == "bitwise"
    assert "bitwise" in project.tracker.read_text(verdict.now.run_id, "report/report.md")
    then, now = (project.tracker.read_text(run, "predictions/val.csv") for run in (done.run_id, verdict.now.run_id))
    assert then == now


def test_a_record_that_another_run_made_is_not_verified(project):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    project.client.log_metric(done.run_id, "val/loss", 0.5, step=1)
    verdict = repeat(project, done.run_id)
    assert not verdict.is_verified and verdict.word == "no"
    assert verdict.first_difference.startswith("epoch 1, val/loss: 0.5 -> ")


def test_another_temperature_is_not_verified(project):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    project.client.log_metric(done.run_id, "best_temperature", 2.5, step=1)
    verdict = repeat(project, done.run_id)
    assert not verdict.is_verified and verdict.first_difference.startswith("epoch 1, best/temperature: 2.5 -> ")


def test_elsewhere_a_tolerance_holds_and_the_causes_are_named(project):
    done = project.trained("train.epochs=1", "train.warmup_epochs=0")
    project.client.log_metric(done.run_id, "val/loss", 0.5, step=1)
    project.client.set_tag(done.run_id, "imgcls.device", "cpu: another processor, 64 threads")
    project.client.set_tag(done.run_id, "imgcls.git_commit", "0123456789abcdef")
    verdict = repeat(project, done.run_id)
    assert verdict.is_verified and verdict.word == "within tolerance"
    assert any(cause.startswith("hardware: cpu: another processor, 64 threads -> ") for cause in verdict.causes)
    assert any("code: commit 0123456789 -> " in cause for cause in verdict.causes)
    project.client.log_metric(done.run_id, "val/accuracy_best", 0.01, step=9)
    assert not repeat(project, done.run_id).is_verified


def of_tags(**tags):
    tags = {f"imgcls.{name}": value for name, value in tags.items()}
    return RunRecord("0", "exp", "a run", "FINISHED", 0, {}, {}, tags)


def test_what_is_unknown_on_both_sides_is_not_equal(monkeypatch, tmp_path):
    """A package that does not tell its version, a processor without a name, a git that did not answer."""
    monkeypatch.setattr(provenance, "version", lambda name: None if name == "pillow" else version(name))
    device = prepare_device(TrainConfig(device="cpu", threads=1))
    unnamed = replace(device, name=f"{UNKNOWN_MODEL} of aarch64")
    then = of_tags(
        versions=json.dumps(provenance.versions()), device=str(unnamed), git_commit="abc", git_dirty="unknown"
    )
    assert other_versions(then) == ["pillow unknown -> unknown"]
    assert _other_code(then, of_tags(git_commit="abc", git_dirty="false")) == [
        "code: whether files changed since the commit is unknown (then: git did not tell)"
    ]
    then = of_tags(git_commit="abc", git_dirty="true", git_changed="imgcls/rng.py")
    assert _other_code(then, of_tags(git_commit="abc", git_dirty="false")) == [
        "code: files changed since the commit (then: imgcls/rng.py)"
    ]
    monkeypatch.undo()
    then = of_tags(versions=json.dumps(provenance.versions()), device=str(unnamed))
    assert not same_place(then, Prepared(None, None, unnamed, tmp_path))
    then = of_tags(versions=json.dumps(provenance.versions()), device=str(device))
    assert same_place(then, Prepared(None, None, device, tmp_path))


@pytest.mark.slow
def test_what_has_nothing_to_repeat_is_refused(project):
    project.trained("train.epochs=1", "train.warmup_epochs=0", judged=True)
    (judged,) = project.runs(kind="evaluation")
    for run_id, why in (("nonsense", "no run"), (judged.run_id, "itself an evaluation")):
        with pytest.raises(InputError, match=why):
            repeat(project, run_id)
    assert project.runs(kind="rerun") == []


def test_the_earliest_difference_is_named():
    original = {"a": {1: 1.0, 2: 2.0}, "b": {1: 1.0, 2: 2.0}}
    assert first_difference(original, original) == ""
    assert first_difference(original, {"a": {1: 1.0, 2: 3.0}, "b": {1: 1.5, 2: 2.0}}) == "epoch 1, b: 1.0 -> 1.5"
    assert first_difference(original, {"a": {1: 1.0}, "b": {1: 1.0}}) == "epoch 2, a: 2.0 -> nan"


def test_images_that_an_earlier_version_left_out_are_not_said_to_have_changed(project):
    """What it recorded lacks the tag that counts ignored files."""
    for start, kind in ((0, "cat"), (50, "dog")):
        write_class(project.root / "images" / kind, range(start, start + 12))
    done = project.train("data.source=folder", "data.path=images", "train.epochs=1", "train.warmup_epochs=0")
    write(project.root / "images" / "cat" / "more.gif", noise(99))
    for is_earlier in (False, True):
        if is_earlier:
            project.client.delete_tag(done.run_id, "imgcls.num_ignored")
        with pytest.raises(DataError, match="fingerprint") as caught:
            repeat(project, done.run_id)
        assert ("left out GIF, AVIF and files without an ending" in str(caught.value)) is is_earlier
