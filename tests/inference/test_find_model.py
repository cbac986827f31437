"""A classifier is found by whatever a user calls it, and a wrong name is answered with a near one."""

import subprocess
import sys

import onnx
import pytest

from imgcls.errors import InputError, SealedImagesError
from imgcls.inference.find_model import find_model
from imgcls.record import VersionTag
from imgcls.search.sweep import Sweep
from tests.data.make import picture


@pytest.fixture(scope="module")
def searched(make_project):
    """A project with a sweep of two trials, whose winner is registered; and its sweep, its winner, its other trial."""
    project = make_project()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        overrides = (
            "search.trials=2",
            "train.epochs=1",
            "train.warmup_epochs=0",
            "search.space.train.warmup_epochs=[0]",
        )
        sweep = Sweep(project.experiment(*overrides), project.tracker).run()
    client, winner = project.client, sweep.best_run_id
    client.create_registered_model("tiny")
    client.create_registered_model("bare")
    by_us = {VersionTag.ONNX_SHA256: "0" * 64, VersionTag.NUM_PROVED: "202"}
    by_hand = {"imgcls.config_hash": "1"}
    for name, run_id, tags in (("tiny", winner, by_us), ("tiny", winner, by_hand), ("tiny", None, by_us)):
        client.create_model_version(name, str(project.root), run_id, tags=tags)
    client.set_registered_model_alias("tiny", "champion", "1")
    (other,) = (trial.run_id for trial in project.runs(kind="trial") if trial.run_id != winner)
    return project, sweep.run_id, winner, other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{winner}", "winner"),
        ("{other}", "other"),
        ("{short}", "winner"),
        ("{SHORT}", "winner"),
        ("{sweep}", "winner"),
        ("best", "winner"),
        ("last", "winner"),
        ("models:/tiny@champion", "winner"),
        ("models:/tiny/1", "winner"),
    ],
)
def test_every_name_of_a_run_finds_it(searched, text, expected):
    project, sweep, winner, other = searched
    named = text.format(winner=winner, other=other, short=winner[:8], SHORT=winner[:8].upper(), sweep=sweep)
    assert find_model(named, project.root).run_id == {"winner": winner, "other": other}[expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lsat", "did you mean `last`"),
        ("abc", "too short"),
        ("tiny", "did you mean"),
        ("models:/tiny@champoin", "did you mean 'champion'"),
        ("models:/bare@champion", "it has none"),
        ("models:/tine@champion", "did you mean 'tiny'"),
        ("models:/tiny/4", "has no version 4"),
        ("models:/tiny/2", "was not registered by imgcls"),
        ("models:/tiny/3", "was not registered by imgcls"),
        ("models:/tiny", "give models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/tiny/latest", "give models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("modle.onnx", "did you mean"),
        ("elsewhere/a.pt2", "does not exist"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(searched, text, message):
    project, *_ = searched
    (project.root / "model.onnx").touch()
    with pytest.raises(InputError) as error:
        find_model(text, project.root)
    assert message in str(error.value)


@pytest.mark.slow
def test_an_exported_file_in_a_project_obeys_the_seal_of_its_record(shop, onnx_file, tmp_path, caplog):
    (shop.project.root / "a.onnx").write_bytes(onnx_file.path.read_bytes())
    test_image = sorted((shop.images / "test").rglob("*.*"))[13]
    own = find_model("a.onnx", shop.project.root)
    with pytest.raises(SealedImagesError):
        own.predict(test_image)
    own.predict(test_image, test_look=True)
    stranger = onnx.load(onnx_file.path)
    for entry in stranger.metadata_props:
        entry.value = "0" * 32 if entry.key == "run_id" else entry.value
    onnx.save(stranger, shop.project.root / "stranger.onnx")
    other = find_model("stranger.onnx", shop.project.root)
    for may_look in (False, True):
        with pytest.raises(SealedImagesError):
            other.predict(test_image, test_look=may_look)
    assert len(other.predict(picture(3))) == 1
    assert "its own test images are not known" in caplog.text
    assert len(find_model(str(onnx_file.path), tmp_path).predict(test_image)) == 1
    assert "no record is at hand" in caplog.text and not (tmp_path / "mlflow.db").exists()


def test_a_folder_without_a_record_is_named_and_stays_empty(tmp_path):
    with pytest.raises(InputError, match=r"has no record: mlflow\.db does not exist there"):
        find_model("best", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_wrong_name_is_answered_before_torch_is_imported(searched):
    program = (
        "import sys; from pathlib import Path\n"
        "from imgcls.inference.inputs import given; from imgcls.inference.find_model import find_model\n"
        "try: find_model('besst', Path.cwd())\n"
        "except Exception as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=searched[0].root, capture_output=True, text=True, check=True
    )
    assert "did you mean `best`?" in done.stdout and done.stdout.endswith("False\n")
