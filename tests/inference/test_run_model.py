"""The model of a run gives the run's own recorded predictions, from its record alone."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data.decode import read_image
from imgcls.data.preprocessing import Preprocessing
from imgcls.data.sources import native_side
from imgcls.data.train_side import decode_side
from imgcls.errors import InputError
from imgcls.evaluation.judge import OF_LATER_VERSIONS, evaluate
from imgcls.inference.run_model import load_run_model
from imgcls.runs.rebuild import rebuild
from imgcls.runs.val_predictions import recorded_predictions
from tests.earlier.test_earlier import archive, earlier, only  # noqa: F401

CLOSE = 1e-5


def columns(table, kind):
    return table[[name for name in table.columns if name.startswith(f"{kind}/")]].to_numpy()


def recorded_run(project, *overrides):
    record = project.trained(*overrides)
    return record, load_run_model(record, project.tracker), recorded_predictions(record, project.tracker)


@pytest.mark.parametrize("average", [0.0, 0.9], ids=["last weights", "averaged weights"])
def test_a_run_s_model_gives_its_recorded_predictions(project, average):
    record, model, table = recorded_run(project, f"train.ema_decay={average}")
    pixels = rebuild(record, project.tracker).dataset.val.pixels
    np.testing.assert_allclose(model.probs(pixels, raw=True), columns(table, "prob"), atol=CLOSE)
    np.testing.assert_allclose(model.probs(pixels), columns(table, "calibrated"), atol=CLOSE)
    assert (
        model.temperature
        == record.temperature
        == project.client.get_run(record.run_id).data.metrics["best_temperature"]
    )
    assert [model.class_names[i] for i in model.probs(pixels).argmax(axis=1)] == list(table["prediction"])


def test_the_checkpoint_says_how_its_images_were_made(project):
    record, model, _ = recorded_run(project)
    with project.tracker.fetch(record.run_id, "checkpoints/best.pt") as path:
        content = torch.load(path, weights_only=True)
    data = rebuild(record, project.tracker).experiment.data
    assert content["preprocessing"] == {
        "channels": 1, "image_size": 8, "fit": "crop", "mean": list(data.mean), "std": list(data.std), "squares": 2,
        "decode_side": 8,
    }  # fmt: skip
    assert content["class_names"] == [str(i) for i in range(10)] and content["temperature"] == model.temperature


def test_changed_weights_are_refused_by_whoever_uses_them(project):
    """Also where the changed file has right checksums of its own."""
    record, _, _ = recorded_run(project)
    with project.tracker.fetch(record.run_id, "checkpoints/best.pt") as path:
        content = torch.load(path, weights_only=True)
        content["temperature"] *= 1.5
        torch.save(content, path)
    for use in (lambda: load_run_model(record, project.tracker), lambda: evaluate(record.run_id, project.tracker)):
        with pytest.raises(InputError, match=r"best\.pt is not the one that was tracked"):
            use()
    assert not project.runs(kind="evaluation")


def test_a_checkpoint_of_another_network_is_refused(project):
    record, *_ = recorded_run(project)
    with project.tracker.fetch(record.run_id, "config.toml") as path:
        path.write_text(path.read_text().replace("depth = 8", "depth = 14"))
    with pytest.raises(InputError, match="does not fit its config"):
        load_run_model(record, project.tracker)


def test_a_run_that_an_earlier_version_began_can_be_judged_and_used(project, caplog):
    """Its best epoch may lie before the upgrade, so that its checkpoint says less than its record."""
    record, before, _ = recorded_run(project)
    with project.tracker.fetch(record.run_id, "checkpoints/best.pt") as path:
        content = torch.load(path, weights_only=True)
        torch.save({name: value for name, value in content.items() if name not in OF_LATER_VERSIONS}, path)
    project.client.delete_tag(record.run_id, "imgcls.best_sha256")
    record = project.tracker.get(record.run_id)
    with caplog.at_level(logging.INFO):
        model = load_run_model(record, project.tracker)
    assert "written by an earlier version" in caplog.text and "from its record" in caplog.text
    assert model.preprocessing == before.preprocessing and model.temperature == record.temperature
    assert evaluate(record.run_id, project.tracker).judged.run_id == record.run_id


def test_a_run_whose_checkpoint_was_removed_says_how_to_get_it_back(project):
    record, *_ = recorded_run(project)
    with project.tracker.fetch(record.run_id, "checkpoints/best.pt") as path:
        path.unlink()
    for use in (load_run_model, lambda record, tracker: evaluate(record.run_id, tracker)):
        with pytest.raises(InputError, match=f"no artifact checkpoints/best.pt.*imgcls rerun {record.run_id}"):
            use(record, project.tracker)


def test_what_an_earlier_run_did_not_record_is_derived_and_said(earlier, caplog):  # noqa: F811
    record = only(earlier, "photos", kind="train")
    with caplog.at_level(logging.INFO):
        model = load_run_model(record, earlier.tracker)
    said = ("written by an earlier version", "is fitted now", "format 1")
    assert all(words in caplog.text for words in said)
    oracle = np.load(earlier.root / "squares.npz")
    folder = earlier.root / rebuild(record, earlier.tracker).experiment.data.path
    made = np.stack([model.preprocessing.square(read_image(folder / key)) for key in oracle["val_keys"]])
    assert np.array_equal(made, oracle["val"])
    table = recorded_predictions(record, earlier.tracker).set_index("image").loc[oracle["val_keys"]]
    np.testing.assert_allclose(model.probs(made, raw=True), columns(table, "prob"), atol=1e-4)  # another torch


@pytest.mark.parametrize(
    ("source", "low", "side"),
    [("digits", 0.25, 8), ("elpv", 0.25, 16), ("fashion-mnist", 0.01, 28), ("folder", 0.01, 80)],
)
def test_the_decode_side_follows_from_the_source_without_opening_it(tmp_path, source, low, side):
    augment = AugmentConfig(random_resized_crop=(low, 1.0))
    config = DataConfig(source=source, path=str(tmp_path / "nowhere"))
    assert decode_side(8, augment, native_side(config, tmp_path / "nowhere")) == side


def test_format_1_makes_its_square_twice():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    once = Preprocessing(3, 16, "crop", (0.5,) * 3, (0.5,) * 3, 2, 16)
    twice = Preprocessing(3, 16, "crop", (0.5,) * 3, (0.5,) * 3, 1, 32)
    larger = image.resize((32, 32), Image.Resampling.BILINEAR, box=(15, 0, 75, 60))  # as format 1 had it
    by_hand = larger.resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(twice.square(image), np.asarray(by_hand).transpose(2, 0, 1))
    assert not np.array_equal(once.square(image), twice.square(image))
