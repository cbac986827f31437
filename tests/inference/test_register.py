"""Registering a run: its name, its alias, and what stands in MLflow's registry, read with MLflow's own client."""

import dataclasses
import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.store.artifact.utils.models import _parse_model_uri
from PIL import Image

from imgcls.errors import InputError
from imgcls.evaluation.judge import evaluate
from imgcls.inference import register as register_module
from imgcls.inference.export import export_run
from imgcls.inference.mlflow_model import remove_compiled
from imgcls.inference.proof import ProofError
from imgcls.inference.register import register
from imgcls.inference.run_model import load_run_model
from imgcls.inference.val_images import ValImages
from imgcls.record import VersionTag
from imgcls.tracking.store import Tracker
from tests.inference.serving import encoded
from tests.inference.test_champion import a_run

PROVED = {VersionTag.NUM_PROVED: "100", VersionTag.LARGEST_DIFFERENCE: "1e-07", VersionTag.ONNX_SHA256: "0" * 64}
"""Tags that a registered version has from its proof."""


@pytest.fixture
def registered(project, tmp_path):
    """Registers a run that is right on so many of 100 images, with a file in place of a model; gives its record."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")

    def make(num_right):
        run = a_run(project.tracker, [True] * num_right + [False] * (100 - num_right))
        scores = {"best/epoch": 1, "best/val/accuracy": num_right / 100}
        project.tracker.amend(run.run_id).log_metrics(scores, tags={"imgcls.num_val": "100"})
        project.tracker.registry().add("exp", run.run_id, tmp_path / "model", PROVED)
        return run

    return make


def champion(project, name="exp"):
    return project.client.get_model_version_by_alias(name, "champion")


def test_the_first_champion_needs_no_win_and_a_second_one_does(project, registered):
    worse, better = registered(80), registered(81)
    first = register(worse.run_id, project.tracker, alias="champion")
    assert (first.version.number, first.proof, first.verdict, first.uri) == (1, None, None, "models:/exp@champion")
    assert champion(project).run_id == worse.run_id
    with pytest.raises(InputError, match=r"@champion of exp stays .*: accuracy 0\.8100 against 0\.8000 .* p = 1 "):
        register(better.run_id, project.tracker, alias="champion")
    assert champion(project).run_id == worse.run_id
    assert register(better.run_id, project.tracker, alias="candidate").version.number == 2
    assert register(worse.run_id, project.tracker, alias="champion").version.number == 1


def test_force_is_recorded_with_the_numbers(project, registered):
    worse, better = registered(80), registered(81)
    register(worse.run_id, project.tracker, alias="champion")
    forced = register(better.run_id, project.tracker, alias="champion", force=True)
    assert forced.is_forced and forced.replaced.run_id == worse.run_id
    version = champion(project)
    assert version.run_id == better.run_id and "p = 1 (" in version.tags[VersionTag.FORCED]
    assert VersionTag.CHALLENGE not in version.tags


def test_a_better_run_replaces_the_champion_and_the_numbers_are_recorded(project, registered):
    worse, better = registered(50), registered(80)
    register(worse.run_id, project.tracker, alias="champion")
    assert not register(better.run_id, project.tracker, alias="champion", force=True).is_forced
    version = champion(project)
    assert version.run_id == better.run_id and "difference +0.3000" in version.tags[VersionTag.CHALLENGE]
    assert VersionTag.FORCED not in version.tags


@pytest.mark.parametrize("tags", [{}, {"imgcls.config_hash": "1"}, {"imgcls.num_proved": "100"}])
def test_only_a_version_that_was_proved_stands_for_a_run(project, registered, tags):
    """Anybody can make a READY version of a run with MLflow's own client."""
    run, registry = registered(80), project.tracker.registry()
    for name in ("exp", "other"):
        if name == "other":
            project.client.create_registered_model(name)
        project.client.create_model_version(name, str(project.root), run.run_id, tags=tags)
    assert registry.version_of("exp", run.run_id).number == 1
    assert registry.version_of("other", run.run_id) is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "a/b"}, "'a/b' cannot name a registered model"),
        ({"name": ""}, "'' cannot name a registered model"),
        *(({"name": f"a{one}b"}, "cannot name a registered model") for one in "?#:\n\t\x00\x7f\u2028"),
        ({"name": " a"}, "' a' cannot name a registered model"),
        ({"name": "a" * 256}, "256 characters, cannot name a registered model"),
        ({"alias": "a" * 256}, "256 characters; an alias has 255 at most"),
        ({"alias": "v3"}, "--alias 'v3'"),
        ({"alias": "Latest"}, "--alias 'Latest'"),
        ({"alias": "a b"}, "--alias 'a b'"),
        ({"force": True}, "--force is for --alias"),
    ],
)
def test_impossible_names_and_aliases_are_refused(project, registered, options, reason):
    with pytest.raises(InputError, match=reason):
        register(registered(80).run_id, project.tracker, **options)


@pytest.mark.parametrize("name", ["a" * 255, "a b", "a@b", "a%2Fb", "a;b=c&d", "größe", "[a]", "a\\b"])
def test_a_name_that_is_accepted_is_given_back_by_its_address(project, tmp_path, registered, name):
    run, alias = registered(80), "b" * 255
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    tags = project.client.get_model_version("exp", "1").tags
    project.tracker.registry().add(name, run.run_id, tmp_path / "model", tags)
    found = register(run.run_id, project.tracker, name=name, alias=alias)
    assert project.tracker.registry().find(found.uri).number == 1
    parsed = _parse_model_uri(found.uri)
    assert (parsed.name, parsed.alias) == (name, alias)


def test_the_registry_of_a_moved_project_leads_to_its_new_place(project, registered, tmp_path, monkeypatch):
    registered(80)
    moved = tmp_path / "moved"
    shutil.move(project.root, moved)
    monkeypatch.chdir(moved)
    Tracker(moved).relocate()
    client = mlflow.MlflowClient(f"sqlite:///{moved / 'mlflow.db'}")
    uri = client.get_model_version_download_uri("exp", "1")
    assert uri.startswith(moved.as_uri()) and client.get_model_version("exp", "1").source == uri
    assert (moved / uri.removeprefix(moved.as_uri() + "/") / "MLmodel").is_file()


@pytest.fixture(scope="module")
def trained(make_project):
    project = make_project()
    return project, project.train("train.epochs=2").run_id


@pytest.fixture(scope="module")
def exports():
    """The files that were exported of `trained`."""
    return []


@pytest.fixture
def exported_once(exports, tmp_path_factory, monkeypatch):
    """Registering exports the same run once for all tests of this file, since that takes ten seconds."""

    def export(model, tracker, path):
        if not exports:
            exports.append(export_run(model, tracker, tmp_path_factory.mktemp("exported") / "model.onnx"))
        shutil.copyfile(exports[0].path, path)
        return dataclasses.replace(exports[0], path=path)

    monkeypatch.setattr(register_module, "export_run", export)


@pytest.mark.slow
@pytest.mark.usefixtures("exported_once")
def test_a_registered_run_gives_its_own_predictions_for_the_bytes_of_its_val_images(trained, monkeypatch):
    project, run_id = trained
    project.client.create_registered_model("tiny")
    project.client.create_model_version("tiny", str(project.root), run_id)  # by hand: nobody proved anything
    result = register(run_id, project.tracker, alias="champion")
    assert result.proof.num_images == 202 and 0 < result.proof.largest < 1e-5 and result.proof.num_other_class == 0
    version = project.client.get_model_version_by_alias("tiny", "champion")
    assert version.run_id == run_id and version.status == "READY"
    assert version.tags["imgcls.config_hash"] == project.tracker.get(run_id).tags["imgcls.config_hash"]
    for part in (f"/runs/{run_id}?", "val/accuracy 0.", "The test split was not opened", "for the 202 val images"):
        assert part in version.description
    again = register(run_id, project.tracker, alias="champion")
    assert (again.version.number, again.proof) == (2, None)
    assert len(project.client.search_model_versions("name = 'tiny'")) == 2
    evaluate(run_id, project.tracker)
    register(run_id, project.tracker)
    described = project.client.get_model_version("tiny", "2").description
    assert "test/accuracy 0." in described and "Look 1: " in described

    monkeypatch.chdir(project.root)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.tracker.uri)
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    answers = model.predict(pd.DataFrame({"image": [encoded(Image.fromarray(square), "PNG") for square in pixels]}))
    own = load_run_model(project.tracker.get(run_id), project.tracker)
    assert np.allclose(answers.filter(like="prob/"), own.probs(pixels[:, None]), rtol=0, atol=1e-5)
    assert list(answers.columns) == ["prediction", *(f"prob/{name}" for name in own.class_names)]


@pytest.mark.slow
def test_a_run_in_bfloat16_is_proved_against_what_its_weights_give_in_float32(project):
    """No ONNX file computes in bfloat16; how far that may move the recorded predictions, `imgcls export` decides."""
    run_id = project.trained("train.precision=bfloat16").run_id
    result = register(run_id, project.tracker)
    assert result.proof.num_images == 202 and result.proof.largest < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("exported_once")
def test_a_run_that_another_process_registers_meanwhile_has_one_version(trained, tmp_path, monkeypatch):
    """The other process is done when this one has proved its model."""
    project, run_id = trained
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")

    def meanwhile(folder):
        remove_compiled(folder)
        tags = {VersionTag.NUM_PROVED: "202", VersionTag.ONNX_SHA256: "0"}
        project.tracker.registry().add("quicker", run_id, tmp_path / "model", tags)

    monkeypatch.setattr(register_module, "remove_compiled", meanwhile)
    result = register(run_id, project.tracker, name="quicker")
    assert (result.version.number, result.proof) == (1, None)
    assert len(project.client.search_model_versions("name = 'quicker'")) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("exported_once")
def test_nothing_is_registered_that_differs_from_the_run(trained, monkeypatch):
    """Val images that reach the model mirrored: as if served decoding differed from that of training."""
    project, run_id = trained
    content = ValImages.image
    monkeypatch.setattr(ValImages, "image", lambda self, row: content(self, row).transpose(0))
    with pytest.raises(ProofError, match="does not give the run's own predictions"):
        register(run_id, project.tracker, name="wrong")
    assert not project.client.search_registered_models("name = 'wrong'")
