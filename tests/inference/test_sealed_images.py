"""Test images are identified by their pixels, and nothing about them is shown before a look is written down."""

import logging
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgcls.data.decode import read_image
from imgcls.errors import DataError, SealedError, SealedImagesError
from imgcls.evaluation import judge
from imgcls.evaluation.compare import compare
from imgcls.evaluation.ledger import as_text, past_looks
from imgcls.inference import predictions, sealed_images
from imgcls.inference.find_model import find_run_model
from imgcls.reporting.runs_table import runs_table
from imgcls.runs.prepare import cached_dataset
from imgcls.runs.rebuild import rebuild
from tests.data.make import picture
from tests.earlier.test_earlier import archive, earlier, only  # noqa: F401
from tests.inference.test_export import eager
from tests.photographs import QUICK, save_photograph, write_photographs


def test_image(images, number):
    """The path of a test image; each test has its own, since it leaves a look at it."""
    return sorted((images / "test").rglob("*.*"))[number]


test_image.__test__ = False


def looks(shop):
    return shop.project.runs(kind="evaluation")


def refused_on(shop, images):
    """Refused before any probability of a test image is computed, and nothing is written down."""
    before, model = len(looks(shop)), shop.model()
    with pytest.raises(SealedImagesError) as error:
        model.predict(images)
    assert len(looks(shop)) == before
    return str(error.value)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda path, _: path,
        lambda path, _: path.read_bytes(),
        lambda path, _: Image.open(path),
        lambda path, _: np.asarray(read_image(path)),
        lambda path, folder: save(read_image(path), folder / "saved.png"),
        lambda path, folder: save(read_image(path).convert("RGB"), folder / "copy.tif"),
        lambda path, folder: shutil.copy(path, folder / "IMG_0001"),
    ],
    ids=["path", "bytes", "image", "array", "PNG", "TIFF in RGB", "another name"],
)
@pytest.mark.parametrize("number", [0, 3, 5])
def test_a_test_image_is_refused_however_it_is_given(shop, tmp_path, as_given, number):
    given = as_given(test_image(shop.images, number), tmp_path)
    said = refused_on(shop, [picture(1), given])
    assert "1 image is a test image" in said and "--test-look" in said


def save(image, path):
    image.save(path)
    return path


def test_the_refusal_counts_and_names_them(shop):
    said = refused_on(shop, [str(shop.images)])
    assert "16 images are test images" in said and "and 6 more" in said
    assert str(test_image(shop.images, 0)) in said


def test_no_probability_of_a_test_image_is_computed_before_its_look_is_in_the_store(shop, monkeypatch):
    path, model = test_image(shop.images, 1), shop.model()
    sealed = model.preprocessing.square(read_image(path))
    others = shop.images / "val"
    before, seen = looks(shop), []
    of_squares = model.probs

    def probs(squares, *, raw=False):
        if any(np.array_equal(square, sealed) for square in squares):
            new = looks(shop)[len(before) :]
            seen.append([look for look in new if look.outcome == "completed" and look.num_test == 1])
        return of_squares(squares, raw=raw)

    monkeypatch.setattr(model, "probs", probs)
    with pytest.raises(SealedImagesError):
        model.predict([others, path])
    assert seen == []
    table = model.predict([others, path], test_look=True)
    (at_that_time,) = seen
    assert len(at_that_time) == 1
    assert list(table["image"])[-1] == str(path) and not table.isna().any(axis=None)
    alone = table[table["image"] == str(path)][["prob/coat", "prob/shoe, left"]].to_numpy()
    np.testing.assert_allclose(alone[0], of_squares(sealed[None])[0], atol=1e-6)


def test_a_look_for_predictions_is_in_the_record_and_has_no_scores(shop, caplog):
    path = test_image(shop.images, 2)
    with caplog.at_level(logging.INFO):
        shop.model().predict(path, test_look=True)
    look = looks(shop)[-1]
    run = shop.project.client.get_run(look.run_id)
    assert f"look 1 at a test split, at 1 image ({look.run_id})" in caplog.text
    expected = {
        "mlflow.parentRunId": shop.run_id, "imgcls.evaluated_run_id": shop.run_id, "imgcls.test_look": "1",
        "imgcls.look_for": "predictions", "imgcls.num_test": "1", "imgcls.outcome": "completed",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert "imgcls.test_fingerprint" not in run.data.tags and "test/accuracy" not in run.data.metrics
    from imgcls.data.decode import digest

    listed = shop.project.tracker.read_text(look.run_id, "report/test_images.txt").split()
    assert listed == [digest(read_image(path)).hex()[:16]]
    assert "predictions" in as_text(past_looks(shop.project.tracker)).splitlines()[-1]
    past = past_looks(shop.project.tracker)[-1]
    assert past.test is None and past.flat()["imgcls.look_for"] == "predictions"
    assert f"predictions by {shop.record.name}" in runs_table(looks(shop))


def test_a_look_at_these_images_for_this_run_suffices(shop, caplog):
    both = [test_image(shop.images, 8), test_image(shop.images, 9)]
    first = shop.model().predict(both, test_look=True)
    before = looks(shop)
    refused_on(shop, both)  # permission is needed each time
    with caplog.at_level(logging.INFO):
        again = shop.model().predict(both[1], test_look=True)
    assert looks(shop) == before
    assert f"these test images were opened for this run before (look 1, {before[-1].run_id})" in caplog.text
    assert again["prob/coat"][0] == pytest.approx(first["prob/coat"][1], abs=1e-6)
    shop.model().predict([both[1], test_image(shop.images, 10)], test_look=True)
    assert [look.look for look in looks(shop)[len(before) :]] == [2]


def test_test_images_that_change_in_between_are_not_predicted(shop, tmp_path, monkeypatch):
    path, model = shutil.copy(test_image(shop.images, 11), tmp_path / "a.png"), shop.model()
    look = judge.look_to_predict

    def look_and_change(*arguments):
        save_photograph(tmp_path / "other", 999).replace(path)
        return look(*arguments)

    monkeypatch.setattr(sealed_images, "look_to_predict", look_and_change)
    with pytest.raises(DataError, match="changed while the program ran"):
        model.predict(path, test_look=True)


def test_without_the_record_of_the_look_nothing_is_predicted(shop, monkeypatch):
    model = shop.model()
    monkeypatch.setattr(judge.Run, "set_tags", lambda *_: None)
    monkeypatch.setattr(model, "probs", pytest.fail)
    with pytest.raises(SealedError, match="is not in the tracker"):
        model.predict(test_image(shop.images, 12), test_look=True)


def test_a_model_outside_of_a_project_knows_no_test_images_and_says_so(shop, caplog):
    model = shop.model()
    with caplog.at_level(logging.WARNING):
        table = eager(model, tracker=shop.project.tracker).predict(test_image(shop.images, 0))
    assert len(table) == 1
    assert "no record is at hand, so it is not known whether these images are of a test split" in caplog.text


def flipped_bit(image):
    pixels = np.array(image)
    pixels.flat[0] ^= 1
    return Image.fromarray(pixels)


CHANGES = {
    "mirrored": ImageOps.mirror,
    "one bit": flipped_bit,
    "grey": lambda image: image.convert("L"),
    "smaller": lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_test_image_of_a_sealed_split_is_warned_of_before_anything_is_predicted(
    shop, tmp_path, caplog, monkeypatch, change
):
    image = read_image(test_image(shop.images, 4)).convert("RGB")
    copy = save(CHANGES[change](image), tmp_path / "copy.png")
    model, said = shop.model(), []
    of_squares = model.probs
    monkeypatch.setattr(model, "probs", lambda *given, **how: (said.append(caplog.text), of_squares(*given, **how))[1])
    with caplog.at_level(logging.WARNING):
        assert len(model.predict([picture(77), copy])) == 2
    assert "1 image looks like test images, sealed or opened" in said[0]
    assert str(copy) in said[0] and "not written down as a look" in said[0]


def test_the_sketches_of_the_sealed_images_are_in_the_record(shop):
    with shop.project.tracker.fetch(shop.run_id, "report/sealed_test_sketches.npy") as path:
        sketches = np.load(path)
    assert sketches.shape == (16, 272) and sketches.dtype == np.uint8


# --- with records of their own ---------------------------------------------------------------------------------------


@pytest.fixture
def own(project):
    """A project with photographs, and a function that trains on them."""
    write_photographs(project.root / "images")
    return project


def one_epoch(project, *overrides):
    return project.train(*QUICK, "train.epochs=1", *overrides).run_id


@pytest.mark.slow
def test_test_images_of_another_run_s_look_are_refused_too(own, caplog):
    judged = one_epoch(own)
    judge.evaluate(judged, own.tracker)
    (own.root / "images" / "test").rename(own.root / "sealed")
    other = one_epoch(own, "data.image_size=12")
    assert not own.tracker.get(other).test_fingerprint
    model = find_run_model(other, own.tracker)
    path = sorted((own.root / "sealed").rglob("*.*"))[0]
    with pytest.raises(SealedImagesError):
        model.predict(path)
    copy = own.root / "smaller.jpg"
    read_image(path).convert("RGB").resize((60, 50)).save(copy, quality=90)
    with caplog.at_level(logging.WARNING):
        assert len(model.predict([copy, picture(77)])) == 2
    assert "1 image looks like test images, sealed or opened" in caplog.text and str(copy) in caplog.text
    model.predict(path, test_look=True)
    assert [look.number for look in past_looks(own.tracker)] == [1, 2]


@pytest.mark.slow
def test_a_run_that_was_judged_needs_no_further_look_and_its_scores_stay_its_scores(own):
    first, second = one_epoch(own), one_epoch(own, "train.seed=1")
    path = sorted((own.root / "images" / "test").rglob("*.*"))[0]
    find_run_model(first, own.tracker).predict(path, test_look=True)
    judged = judge.evaluate(first, own.tracker)
    assert judged.record.look == 2 and not judged.is_recorded
    find_run_model(first, own.tracker).predict("images/test", test_look=True)
    assert len(own.runs(kind="evaluation")) == 2
    find_run_model(second, own.tracker).predict("images/test", test_look=True)
    assert own.runs(kind="evaluation")[-1].look == 3
    # What reads evaluations takes those with scores.
    assert judge.evaluate(first, own.tracker).run_id == judged.run_id
    comparison = compare([first, second], own.tracker)
    assert comparison.test is None and "Not evaluated yet: run 2" in comparison.test_note


def test_a_run_without_its_list_asks_the_source_and_says_what_it_does_not_know(own, caplog):
    run_id = one_epoch(own)
    listing = own.tracker.get(run_id).folder / "report" / "sealed_test_images.txt"
    names = listing.read_text().split()
    assert len(names) == 16 and names == sorted(names)
    listing.unlink()
    path = sorted((own.root / "images" / "test").rglob("*.*"))[0]
    with pytest.raises(SealedImagesError):
        find_run_model(run_id, own.tracker).predict(path)
    with caplog.at_level(logging.WARNING):
        find_run_model(run_id, own.tracker).predict(ImageOps.mirror(read_image(path)))
    assert "1 image looks like test images" in caplog.text
    moved = own.root / "elsewhere.bin"
    shutil.copy(path, moved)
    shutil.rmtree(own.root / "images")
    cached_dataset.cache_clear()
    predictions_log = logging.getLogger(predictions.__name__)
    with caplog.at_level(logging.WARNING, predictions_log.name):
        assert len(find_run_model(run_id, own.tracker).predict(moved)) == 1
    assert f"run {run_id} has no list of its test images" in caplog.text and "images" in caplog.text


@pytest.mark.slow
def test_looks_whose_images_are_not_known_are_said(own, caplog):
    run_id = one_epoch(own)
    evaluation = judge.evaluate(run_id, own.tracker)
    (own.tracker.get(evaluation.run_id).folder / "report" / "test_images.txt").unlink()
    (own.root / "mlruns" / ".looks" / f"{evaluation.run_id}.npz").unlink()
    with caplog.at_level(logging.WARNING):
        find_run_model(run_id, own.tracker).predict(picture(5))
    assert "1 earlier look at test splits did not record which images" in caplog.text


@pytest.mark.slow
def test_sweeps_and_trials_list_their_sealed_images(project):
    from imgcls.search.sweep import Sweep

    experiment = project.experiment(
        "search.trials=1", "train.epochs=1", "train.warmup_epochs=0", "search.space.train.warmup_epochs=[0]"
    )
    found = Sweep(experiment, project.tracker).run()
    dataset = project.prepare().dataset
    names = {row.tobytes().hex()[:16] for row in dataset.test.hashes().digests}
    for run_id in (found.run_id, found.best_run_id):
        assert set(project.tracker.read_text(run_id, "report/sealed_test_images.txt").split()) == names
    val = [np.asarray(image) for image in dataset.val.pixels[:5, 0]]
    assert len(find_run_model(found.run_id, project.tracker).predict(val)) == 5


@pytest.mark.slow
def test_the_test_images_of_a_run_of_an_earlier_version_are_taken_from_its_source(earlier):  # noqa: F811
    record = only(earlier, "photos", kind="train")
    dataset = rebuild(record, earlier.tracker).dataset
    folder = earlier.root / rebuild(record, earlier.tracker).experiment.data.path
    model = find_run_model(record.run_id, earlier.tracker)
    with pytest.raises(SealedImagesError):
        model.predict(folder / dataset.test.hashes().keys[0])
    assert len(model.predict(folder / dataset.val.keys[0])) == 1
