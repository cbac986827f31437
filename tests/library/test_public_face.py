"""What `import imgcls` gives: quick, lazy, typed, and nothing else."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import imgcls

ROOT = Path(imgcls.__file__).parent.parent

HEAVY = {"torch", "torchvision", "mlflow", "optuna", "pydantic", "typer", "numpy", "pandas", "PIL", "matplotlib"}


def python(code, cwd=None, **environment):
    """What a fresh interpreter prints, which finds imgcls although the folder is another one."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_no_library():
    loaded = python("import sys; before = set(sys.modules); import imgcls; print(*(set(sys.modules) - before))").split()
    assert HEAVY.isdisjoint(loaded)
    assert {name for name in loaded if name.startswith("imgcls")} == {"imgcls"}


def test_loading_an_experiment_waits_for_no_torch():
    code = "import imgcls, sys; imgcls.load_experiment({'name': 'x'}); print('torch' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize("name", imgcls.__all__)
def test_every_public_name_is_there_and_told_and_explained(name):
    value = getattr(imgcls, name)
    assert name in dir(imgcls)
    assert name == "__version__" or value.__doc__


def test_what_is_not_exported_is_not_there():
    assert not {name for name in dir(imgcls) if not name.startswith("_")} - set(imgcls.__all__)
    with pytest.raises(AttributeError, match=r"has no attribute 'trian'.*train"):
        _ = imgcls.trian


def test_the_version_is_the_installed_one():
    assert imgcls.__version__ == version("imgcls")


def test_rooms_can_still_be_imported():
    assert python("from imgcls import project; print(project.MLRUNS)").strip() == "mlruns"


SCRIPT = """
from pathlib import Path

import imgcls

experiment = imgcls.load_experiment("digits", train={"lr": 3e-3})
reveal_type(experiment.train.lr)
reveal_type(imgcls.__version__)
result = imgcls.train(experiment, fresh=True, **{"train.epochs": 2})
reveal_type(result.best_epoch)
reveal_type(imgcls.evaluate(result).report)
reveal_type(imgcls.sweep("digits").best_run_id)
reveal_type(imgcls.compare(result, "best").run_ids)
reveal_type(imgcls.list_runs())
reveal_type(imgcls.load_model(result).predict("image.png", top=2))
imgcls.load_model(result).predict(path for path in ["a.png", Path("b.png")])
try:
    imgcls.evaluate(3)
except imgcls.errors.InputError:
    imgcls.unknown
"""


@pytest.mark.slow
def test_a_program_of_the_user_is_checked_by_types(tmp_path):
    """py.typed works, although the names are loaded when they are used."""
    (tmp_path / "program.py").write_text(SCRIPT)
    cache = tmp_path / "cache"
    # `make lint` has read the package and its libraries with the same settings: a minute that need not be spent twice.
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", cache)
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    command = [sys.executable, "-m", "mypy", *settings, "program.py"]
    environment = {**os.environ, "MYPYPATH": "", "PYTHONPATH": str(ROOT)}
    # The package is found as an installed one is, by py.typed.
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stdout
    revealed = [line.split('"')[1] for line in said.splitlines() if "Revealed type" in line]
    wanted = ["float", "str", "int", "str", "str", "tuple[str, ...]", *["pandas.core.frame.DataFrame"] * 2]
    assert [kind.replace("builtins.", "") for kind in revealed] == wanted, said
    errors = [line.partition("error: ")[2] for line in said.splitlines() if ": error: " in line]
    assert len(errors) == 2, said
    assert 'incompatible type "int"' in errors[0]
    assert 'has no attribute "unknown"' in errors[1]
