import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from imgcls.config.load import load_experiment
from imgcls.errors import DataError, InputError, Interrupted, TrainingError
from imgcls.runs.announce import announce
from imgcls.runs.prepare import cached_dataset
from tests.data.make import picture, write, write_classes
from tests.stops import StopAfter

PER_EPOCH = {"train/loss", "val/loss", "val/accuracy", "train/lr", "epoch_seconds", "images_per_second"}
TIMINGS = {"epoch_seconds", "images_per_second"}


def curves(project, run_id):
    return {name: project.tracker.history(run_id, name) for name in sorted(PER_EPOCH - TIMINGS)}


def test_the_record_of_a_run_is_whole(project):
    done = project.trained()
    run = project.client.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.02"
    assert run.data.params["model.depth"] == "8"
    assert run.data.params["data.channels"] == "1"
    assert run.data.params["train.device"] == "cpu"
    assert "auto" not in {run.data.params[key] for key in ("data.mean", "data.std", "train.precision", "model.stem")}
    for name in PER_EPOCH:
        assert [point.step for point in project.client.get_metric_history(done.run_id, name)] == [1, 2, 3], name
    for tag in ("config_hash", "data_fingerprint", "test_fingerprint", "device", "host", "pid", "process"):
        assert run.data.tags[f"imgcls.{tag}"]
    assert {i.tags[0].value for i in run.inputs.dataset_inputs} == {"train", "val"}
    process = json.loads(run.data.tags["imgcls.process"])
    assert process.keys() == {"versions", "claims", "heartbeat", "identity"} and process["versions"]["torch"]
    # MLflow's UI cuts a description off after three lines, so the score is in the first.
    assert run.data.tags["mlflow.note.content"].startswith("val/accuracy **0.")
    paths = {
        artifact.path
        for folder in (None, "checkpoints", "predictions", "figures")
        for artifact in project.client.list_artifacts(done.run_id, folder)
    }
    assert {
        "config.toml", "checkpoints/best.pt", "checkpoints/last.pt", "predictions/val.csv", "figures/curves.png",
    } <= paths  # fmt: skip


def test_best_is_the_best_epoch_and_its_predictions_give_its_score(project):
    done = project.trained()
    metrics = project.client.get_run(done.run_id).data.metrics
    accuracy = dict(project.tracker.history(done.run_id, "val/accuracy"))
    assert metrics["val/accuracy_best"] == max(accuracy.values()) == accuracy[int(metrics["best_epoch"])]
    table = pd.read_csv(
        io.StringIO(project.tracker.read_text(done.run_id, "predictions/val.csv")), dtype={"label": str}
    )
    assert accuracy_score(table["label"], table["prediction"].astype(str)) == metrics["val/accuracy_best"]
    probs = table[[f"prob/{i}" for i in range(10)]].to_numpy()
    np.testing.assert_allclose(
        log_loss(table["label"], probs, labels=[str(i) for i in range(10)]), metrics["val/loss_best"], rtol=1e-6
    )


def test_the_same_run_twice_gives_the_same_bits(project):
    first, second = project.trained("augment.rotation=10.0"), project.train("augment.rotation=10.0")
    assert curves(project, first.run_id) == curves(project, second.run_id)
    weights = []
    for done in (first, second):
        with project.tracker.fetch(done.run_id, "checkpoints/best.pt") as path:
            weights.append(torch.load(path, weights_only=True)["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_another_seed_gives_another_run(project):
    first, second = project.trained(), project.train("train.seed=1")
    assert curves(project, first.run_id) != curves(project, second.run_id)


def test_the_recorded_config_feeds_a_new_run(project):
    done = project.trained()
    with project.tracker.fetch(done.run_id, "config.toml") as path:
        again = load_experiment(path)
    (project.root / "experiments" / "tiny.toml").write_text(again.to_toml())
    repeated = project.train()
    assert curves(project, done.run_id) == curves(project, repeated.run_id)
    assert project.tracker.get(repeated.run_id).params == project.tracker.get(done.run_id).params


def test_a_loss_that_is_not_finite_fails_the_run_with_its_step(project):
    with pytest.raises(TrainingError, match=r"loss is nan at epoch \d+, step \d+"):
        project.train("train.lr=1e30", "train.warmup_epochs=0")
    (record,) = project.runs(kind="train")
    assert record.status == "FAILED"
    assert "step" in record.tags["imgcls.reason"]


def test_a_stop_is_granted_after_a_whole_step_and_leaves_a_checkpoint(project):
    # 5 steps an epoch; the question after step 3 of epoch 2 is the eighth.
    with pytest.raises(Interrupted, match="SIGTERM after epoch 2, step 3"), StopAfter(7):
        project.train()
    (record,) = project.runs(kind="train")
    assert (record.status, record.outcome) == ("KILLED", "interrupted")
    with project.tracker.fetch(record.run_id, "checkpoints/last.pt") as path:
        state = torch.load(path, weights_only=True)["state"]
    assert (state["epoch"], state["step"], len(state["history"])) == (1, 3, 1)


def test_a_pruned_run_says_so_and_keeps_its_scores(project):
    done = project.train(prune=lambda result: result.epoch == 2)
    record = project.tracker.get(done.run_id)
    assert (record.status, record.outcome) == ("FINISHED", "pruned")
    assert len(project.tracker.history(done.run_id, "val/loss")) == 2


def test_epoch_checkpoints_where_asked(project):
    done = project.train("train.save_from_epoch=2")
    names = {a.path for a in project.client.list_artifacts(done.run_id, "checkpoints")}
    assert names == {f"checkpoints/{name}.pt" for name in ("best", "last", "epoch_0002", "epoch_0003")}


def test_the_time_expected_is_said_once_an_earlier_run_tells_it(project, caplog):
    caplog.set_level("INFO")
    prepared = project.prepare("train.epochs=2")
    announce(prepared, project.tracker, runs="3 trials")
    assert caplog.messages[-1].endswith("; 3 trials")
    project.train("train.epochs=1", "train.warmup_epochs=0")
    (run,) = project.runs(kind="train")
    project.client.log_metric(run.run_id, "epoch_seconds", 90.0, step=2)
    announce(prepared, project.tracker, runs="3 trials")
    assert caplog.messages[-1].endswith(
        "; 3 trials, about 3 min 00 s of training each, going by the newest runs of this experiment"
    )


def test_nothing_is_logged_for_an_experiment_that_is_refused(project):
    with pytest.raises(InputError, match="depth"):
        project.train("model.depth=17")
    assert project.runs() == []


def test_val_loss_can_select(project):
    done = project.train('search.metric="val/loss"')
    losses = dict(project.tracker.history(done.run_id, "val/loss"))
    assert project.client.get_run(done.run_id).data.metrics["val/loss_best"] == min(losses.values())


def test_a_run_whose_images_find_no_room_in_the_cache_has_the_same_bits(project, monkeypatch, tmp_path):
    write_classes(project.root / "images", {"cat": 30, "dog": 30})
    settings = (
        "data.source=folder",
        "data.path=images",
        "augment.random_resized_crop=[0.5, 1.0]",
        "train.epochs=2",
        "train.batch_size=8",
    )
    cached = project.train(*settings)
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path))
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "0")
    cached_dataset.cache_clear()
    anew = project.train(*settings)
    assert curves(project, anew.run_id) == curves(project, cached.run_id)
    assert project.tracker.get(anew.run_id).params == project.tracker.get(cached.run_id).params


def test_trials_that_differ_in_their_augmentation_load_the_images_once(project):
    """The smallest crop alone decides how the images are stored."""
    settings = ("augment.cutout=0.2", "augment.rotation=10.0", "augment.mixup=0.3", "augment.brightness=0.1")
    first, *others = (project.prepare(*of).dataset for of in ((), settings[:1], settings))
    assert all(other is first for other in others)
    cropped = project.prepare(*settings, "augment.random_resized_crop=[0.25, 1.0]").dataset
    assert cropped is not first and project.prepare(*settings).dataset is first


def test_leaks_stop_a_run_before_it_starts(project, leaky):
    with pytest.raises(DataError, match="splits leak: 1 of 9 test images"):
        project.train(*leaky)
    assert project.runs() == []


@pytest.mark.parametrize("kind", ["train", "trial"])
def test_a_run_that_goes_on_with_leaks_says_so_from_then_on(project, leaky, kind):
    done = project.train(*leaky, "data.allow_leaks=true", kind=kind)
    run = project.client.get_run(done.run_id)
    summary = "1 of 9 test images stand in train or val, pixel by pixel"
    assert (run.data.tags["imgcls.leaks"], run.data.tags["imgcls.num_leaked"]) == (summary, "1")
    assert run.data.params["data.allow_leaks"] == "true"
    assert summary in run.data.tags["mlflow.note.content"]
    shown = {artifact.path for artifact in project.client.list_artifacts(done.run_id, "figures")}
    assert ("figures/near_duplicates.png" in shown) == (kind == "train")


def test_copies_in_a_split_under_two_labels_are_named_and_shown_but_never_those_of_test(project, leaky):
    splits = ("train", "val", "test")
    for seed, split in enumerate(splits, 1):
        write(project.root / "images" / split / "cat" / "whole.png", picture(seed))
        write(project.root / "images" / split / "dog" / "turned.jpg", np.rot90(picture(seed)), quality=90)
    run_id = project.train(*leaky, "data.allow_leaks=true").run_id
    rows = project.tracker.read_text(run_id, "report/near_duplicates.csv").splitlines()
    assert len(rows) == 5, "header, one pair of train and val, one within each split"
    for split, row in zip(splits, rows[2:], strict=True):
        assert sorted(row.split(",")) == sorted((split, f"{split}/cat/whole.png", split, f"{split}/dog/turned.jpg"))
    shown = {artifact.path for artifact in project.client.list_artifacts(run_id, "figures")}
    assert {f"figures/different_classes_{split}.png" for split in splits} & shown == {
        "figures/different_classes_train.png",
        "figures/different_classes_val.png",
    }


def test_a_run_without_leaks_has_no_tag_of_them(project):
    tags = project.client.get_run(project.trained("train.epochs=1", "train.warmup_epochs=0").run_id).data.tags
    assert "imgcls.leaks" not in tags and tags["imgcls.num_leaked"] == "0"
    assert "Caution" not in tags["mlflow.note.content"]


def test_what_the_crop_cuts_off_is_said_before_the_first_run_that_crops(project, leaky, caplog):
    said = 'images are far from square, and data.fit = "crop" cuts 17% off'
    for fit, is_said in (("pad", False), ("crop", True), ("crop", False)):
        settings = (*leaky, "data.allow_leaks=true", f"data.fit={fit}")
        announce(project.prepare(*settings), project.tracker)
        assert (said in caplog.text) == is_said
        project.train(*settings)
        caplog.clear()
