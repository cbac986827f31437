"""What predict gives for files is what the run recorded for the same images."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from imgcls.errors import InputError, NoReadableImageError
from imgcls.inference import predictions
from imgcls.inference.prediction_table import as_csv, as_facts, as_text
from imgcls.runs.val_predictions import recorded_predictions
from tests.data.make import noise, picture

CLOSE = 1e-5


def probs(table, kind="prob"):
    return table[[f"{kind}/{name}" for name in ("coat", "shoe, left")]].to_numpy()


@pytest.mark.parametrize(("raw", "kind"), [(True, "prob"), (False, "calibrated")])
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_run_s_val_files_get_their_recorded_predictions(shop, monkeypatch, raw, kind, batch):
    monkeypatch.setattr(predictions, "BATCH", batch)
    recorded = recorded_predictions(shop.record, shop.project.tracker).set_index("image")
    table = shop.model().predict("images/val", raw=raw)
    assert list(table.columns) == ["image", "prediction", "prob/coat", "prob/shoe, left"]
    recorded = recorded.loc[[name.removeprefix("images/") for name in table["image"]]]
    assert len(table) == 21 and list(table["prediction"]) == list(recorded["prediction"])
    np.testing.assert_allclose(probs(table), probs(recorded, kind), atol=CLOSE, rtol=0)
    assert probs(table).dtype == np.float64 and np.allclose(probs(table).sum(axis=1), 1)


def test_arrays_images_and_bytes_are_predicted_as_their_files(shop):
    paths = sorted((shop.images / "val").rglob("*.*"))[:7]
    by_path = shop.model().predict(paths)
    assert list(by_path["image"]) == [str(path) for path in paths]
    images = [Image.open(path) for path in paths]
    for given in (images, [path.read_bytes() for path in paths]):
        table = shop.model().predict(given)
        assert list(table["image"]) == [str(row) for row in range(7)]
        assert np.array_equal(probs(table), probs(by_path))


@pytest.mark.parametrize("source", ["digits", "grey files"])
def test_grey_images_are_predicted_as_recorded(project, source):
    """By a network that sees one channel, and by one that sees three."""
    if source == "digits":
        done = project.trained("train.epochs=1", "train.warmup_epochs=0")
        images = [np.asarray(image) for image in project.prepare().dataset.val.pixels[:, 0]]
    else:
        for seed in range(24):
            path = project.root / "grey" / ("train", "val")[seed % 4 == 0] / "ab"[seed // 2 % 2] / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(seed)[..., 0]).save(path)
        done = project.train(
            'data.source="folder"', 'data.path="grey"', "train.epochs=1", "train.warmup_epochs=0", "train.batch_size=4"
        )
        images = sorted((project.root / "grey" / "val").rglob("*.png"))
    from imgcls.inference.find_model import find_run_model

    record = project.tracker.get(done.run_id)
    recorded = recorded_predictions(record, project.tracker)
    table = find_run_model(done.run_id, project.tracker).predict(images)
    if source == "grey files":
        recorded = recorded.sort_values("image")
    columns = [name for name in table.columns if name.startswith("prob/")]
    calibrated = [f"calibrated/{name.removeprefix('prob/')}" for name in columns]
    np.testing.assert_allclose(table[columns], recorded[calibrated], atol=CLOSE, rtol=0)
    assert list(table["prediction"]) == list(recorded["prediction"])


def test_what_cannot_be_read_is_listed_and_the_rest_is_predicted(shop, tmp_path, caplog):
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path in paths:
        Image.fromarray(noise(len(path.name))).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:50])
    with caplog.at_level(logging.INFO):
        table = shop.model().predict(paths)
    assert list(table["image"]) == [str(paths[0]), str(paths[2])]
    (reason,) = table.attrs["unreadable"]
    assert reason.startswith(f"{paths[1]}: ") and reason in caplog.text and "1 input could not be read" in caplog.text
    with pytest.raises(NoReadableImageError, match=r"none of the images can be read(.|\n)*b\.png"):
        shop.model().predict(paths[1])
    assert NoReadableImageError.exit_code == 1


@pytest.mark.parametrize("top", [0, 3, "1", 1.0, True])
def test_more_classes_than_there_are_cannot_be_named(shop, top):
    with pytest.raises(InputError, match="there are 2 classes"):
        shop.model().predict(noise(0), top=top)


def test_the_most_probable_classes_come_first(shop):
    table = shop.model().predict("images/val", top=2)
    assert list(table.columns[-4:]) == ["class_1", "prob_1", "class_2", "prob_2"]
    for row in as_facts(table):
        best, other = sorted(("coat", "shoe, left"), key=lambda name: -row[f"prob/{name}"])
        assert (row["class_1"], row["class_2"], row["prediction"]) == (best, other, best)
        assert (row["prob_1"], row["prob_2"]) == (row[f"prob/{best}"], row[f"prob/{other}"])


def test_csv_and_text_keep_odd_names(shop, tmp_path):
    import pandas as pd

    paths = [tmp_path / 'a "quoted", name.png', tmp_path / "new\nline\t.png", tmp_path / "d" / "new\nline\t.png"]
    for seed, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(seed)).save(path)
    table = shop.model().predict(paths)
    read = pd.read_csv(io.StringIO(as_csv(table)))
    assert list(read["image"]) == [str(path) for path in paths]
    assert list(read.columns) == list(table.columns)
    assert np.array_equal(probs(read), probs(table))
    header, *lines = as_text(table, 2).splitlines()
    assert header.split("  ")[0] == "image" and len(lines) == 3
    for line, row in zip(lines, as_facts(table), strict=True):
        assert row["prediction"] in line and f"{max(row['prob/coat'], row['prob/shoe, left']):.4f}" in line


def test_memory_does_not_grow_with_the_images(shop, monkeypatch):
    """However many there are, the network sees `BATCH` at a time, and each piece is let go of."""
    sizes = []
    model = shop.model()
    of_squares = model.probs
    monkeypatch.setattr(model, "probs", lambda squares, raw: sizes.append(len(squares)) or of_squares(squares, raw=raw))
    table = model.predict([noise(seed) for seed in range(150)])
    assert len(table) == 150 and sizes == [64, 64, 22]
