"""The example of README.md runs as it stands, in a folder with nothing but `experiments/`."""

import re
import shutil

import pytest

from tests.library.test_public_face import ROOT, python

PAGE = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "digits.toml", tmp_path / "experiments")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    said = python(example, cwd=tmp_path)
    accuracy = float(said.partition("\n")[0])
    assert accuracy > 0.9
    assert "95% interval" in said
    assert "Look 1" in said
    assert re.search(r"prediction +class_1 +prob_1", said)
    assert len(re.findall(r"^\d+ +[0-9a-f]{32} +(train|evaluation)", said, re.MULTILINE)) == 2
    assert (tmp_path / "mlflow.db").is_file()
