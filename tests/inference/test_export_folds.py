"""The models of all folds leave as one file, which is proved against what each of them recorded."""

import io
from types import SimpleNamespace

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

from imgcls.inference import export
from imgcls.inference.export import export_run
from imgcls.inference.exported_model import load_exported
from imgcls.inference.proof import ProofError
from imgcls.inference.register import register
from imgcls.inference.run_model import load_run_model
from imgcls.record import Artifact
from tests.inference.serving import encoded
from tests.runs.test_folds import FOLDS, folds_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registered(make_project):
    """A registered run: its project, the run, what registering gave, the ONNX file in the registry, and the program.

    The program is what torch's exporter made of the graph of the run; it takes ten seconds.
    """
    project, programs = make_project(), []
    trace = export.traced
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.setattr(export, "traced", lambda graph: (programs.append(trace(graph)), programs[-1])[1])
        run = project.trained(*FOLDS)
        result = register(run.run_id, project.tracker, alias="champion")
    (path,) = (project.root / "mlruns").rglob("model.onnx")
    return SimpleNamespace(project=project, run=run, result=result, path=path, program=programs[0])


def mean_of_the_models(project, run, squares):
    each = [load_run_model(fold, project.tracker).probs(squares, raw=True) for fold in folds_of(project, run.run_id)]
    return np.mean(each, axis=0)


def test_the_file_gives_the_mean_of_the_models(registered, tmp_path, monkeypatch):
    project, run = registered.project, registered.run
    monkeypatch.setattr(export, "traced", lambda _graph: registered.program)
    path = export_run(load_run_model(run, project.tracker), project.tracker, tmp_path / "folds.pt2").path
    squares = project.prepare(*FOLDS).dataset.val.pixels[:20]
    given = load_exported(path, is_trusted=True).probs(squares)
    np.testing.assert_allclose(given, mean_of_the_models(project, run, squares), atol=1e-5)


def test_the_onnx_file_gives_the_mean_of_the_models_without_imgcls(registered):
    project, run = registered.project, registered.run
    squares = project.prepare(*FOLDS).dataset.val.pixels[:20]
    (given,) = onnxruntime.InferenceSession(registered.path).run(["probs"], {"images": np.moveaxis(squares, 1, 3)})
    np.testing.assert_allclose(given, mean_of_the_models(project, run, squares), atol=1e-5)


def test_the_registered_model_gives_the_mean_of_the_models(registered, monkeypatch):
    project, run, result = registered.project, registered.run, registered.result
    assert result.proof.num_images == run.num_val and 0 < result.proof.largest < 1e-5
    version = project.client.get_model_version_by_alias("tiny", "champion")
    assert "this model gave the mean of the 3 for the" in version.description
    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.tracker.uri)
    squares = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    asked = pd.DataFrame({"image": [encoded(Image.fromarray(square), "PNG") for square in squares]})
    answers = mlflow.pyfunc.load_model("models:/tiny@champion").predict(asked)
    expected = mean_of_the_models(project, run, squares[:, None])
    np.testing.assert_allclose(answers.filter(like="prob/"), expected, atol=1e-5)


def test_nothing_leaves_where_a_model_does_not_give_what_its_fold_recorded(project, registered, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "traced", lambda _graph: registered.program)  # of the same network
    run = project.trained(*FOLDS)
    path = run.folder / Artifact.VAL_PREDICTIONS
    table = pd.read_csv(io.StringIO(path.read_text()), dtype={"label": str, "prediction": str, "digest": str})
    table["fold"] = table["fold"] % 3 + 1  # as if each image had been in the next fold
    path.write_text(table.to_csv(index=False))
    with pytest.raises(ProofError, match="the model of fold"):
        export_run(load_run_model(run, project.tracker), project.tracker, tmp_path / "folds.pt2")
    assert not [*tmp_path.glob("folds*")]
