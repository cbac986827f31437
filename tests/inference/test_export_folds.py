"""The models of all folds leave as one file, which is proved against what each of them recorded."""

import io

import numpy as np
import pandas as pd
import pytest

from imgcls.inference.export import export_run
from imgcls.inference.exported_model import load_exported
from imgcls.inference.proof import ProofError
from imgcls.inference.run_model import load_run_model
from imgcls.record import Artifact
from tests.runs.test_folds import FOLDS, folds_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_the_file_gives_the_mean_of_the_models(project, tmp_path, ending):
    run = project.trained(*FOLDS)
    path = export_run(load_run_model(run, project.tracker), project.tracker, tmp_path / f"folds.{ending}").path
    squares = project.prepare(*FOLDS).dataset.val.pixels[:20]
    each = [load_run_model(fold, project.tracker).probs(squares, raw=True) for fold in folds_of(project, run.run_id)]
    np.testing.assert_allclose(load_exported(path, is_trusted=True).probs(squares), np.mean(each, axis=0), atol=1e-5)


def test_nothing_leaves_where_a_model_does_not_give_what_its_fold_recorded(project, tmp_path):
    run = project.trained(*FOLDS)
    path = run.folder / Artifact.VAL_PREDICTIONS
    table = pd.read_csv(io.StringIO(path.read_text()), dtype={"label": str, "prediction": str, "digest": str})
    table["fold"] = table["fold"] % 3 + 1  # as if each image had been in the next fold
    path.write_text(table.to_csv(index=False))
    with pytest.raises(ProofError, match="the model of fold"):
        export_run(load_run_model(run, project.tracker), project.tracker, tmp_path / "folds.onnx")
    assert not [*tmp_path.glob("folds*")]
