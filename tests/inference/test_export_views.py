"""A run that answers by the mean over views leaves as one file that does so too, and gives its recorded predictions."""

import numpy as np
import onnxruntime
import pytest
import torch

from imgcls.inference import export
from imgcls.inference.export import export_run, inference_graph
from imgcls.inference.exported_model import load_exported
from imgcls.inference.proof import ProofError
from imgcls.inference.run_model import load_run_model
from imgcls.models.views import MeanOverViews
from imgcls.runs.val_predictions import recorded_predictions
from tests.runs.test_folds import FOLDS

VIEWS = ("data.test_views=orientations",)


@pytest.fixture
def viewed(project):
    """A run of eight orientations: its model, its val images and what it recorded of them."""
    model = load_run_model(project.trained(*VIEWS), project.tracker)
    table = recorded_predictions(model.record, project.tracker)
    recorded = table[[name for name in table.columns if name.startswith("calibrated/")]].to_numpy()
    return model, project.prepare(*VIEWS).dataset.val.pixels, recorded


@pytest.fixture(scope="module")
def programs():
    """What torch's exporter made of the graph of `viewed`, once for both formats: it takes ten seconds."""
    return []


@pytest.fixture
def traced_once(programs, monkeypatch):
    trace = export.traced

    def traced(graph):
        if not programs:
            programs.append(trace(graph))
        return programs[0]

    monkeypatch.setattr(export, "traced", traced)


def test_the_graph_shows_all_views_at_once_and_the_run_s_own_model_one_by_one(viewed):
    model, pixels, recorded = viewed
    graph = inference_graph(model)
    assert graph.network.at_once and not model.network.at_once
    with torch.inference_mode():
        probs = graph(torch.from_numpy(np.array(pixels)).permute(0, 2, 3, 1)).numpy()
    np.testing.assert_allclose(probs, recorded, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
def test_the_onnx_file_gives_the_recorded_predictions(project, viewed, tmp_path):
    model, pixels, recorded = viewed
    path = export_run(model, project.tracker, tmp_path / "views.onnx").path
    session = onnxruntime.InferenceSession(path)
    for rows in (slice(0, 1), slice(1, 8), slice(None)):  # any number of images
        (probs,) = session.run(["probs"], {"images": pixels[rows].transpose(0, 2, 3, 1)})
        np.testing.assert_allclose(probs, recorded[rows], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
def test_the_pt2_file_gives_the_recorded_predictions(project, viewed, tmp_path):
    model, pixels, recorded = viewed
    path = export_run(model, project.tracker, tmp_path / "views.pt2").path
    np.testing.assert_allclose(load_exported(path, is_trusted=True).probs(pixels), recorded, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_model_that_shows_other_views_than_the_run_does_not_leave(project, viewed, tmp_path):
    model, _, _ = viewed
    assert isinstance(model.network, MeanOverViews)
    model.network.views = model.network.views[:2]
    with pytest.raises(ProofError):
        export_run(model, project.tracker, tmp_path / "views.pt2")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_graph_of_a_run_in_folds_gives_the_mean_over_models_and_views(project):
    settings = (*FOLDS, "data.test_views=flips")
    model = load_run_model(project.trained(*settings), project.tracker)
    squares = project.prepare(*settings).dataset.val.pixels[:20]
    graph = inference_graph(model)
    assert all(member.at_once for member in graph.network.members)
    with torch.inference_mode():
        probs = graph(torch.from_numpy(np.array(squares)).permute(0, 2, 3, 1)).numpy()
    each = [member.probs(squares, raw=True) for member in model.members()]
    np.testing.assert_allclose(probs, np.mean(each, axis=0), atol=1e-5)
