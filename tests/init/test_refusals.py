"""What `imgcls init` refuses before it looks at any image."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.errors import ConfigError, InputError, ResourceError
from imgcls.init.verb import init
from tests.data.make import write_classes


@pytest.mark.parametrize("name", ["pets.toml", "pets.TOML"])
def test_a_name_with_the_ending_of_the_file_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"without \.toml; write 'pets'"):
        init(name, tmp_path / "nowhere", 60.0, tmp_path)


@pytest.mark.parametrize("folder", ["", " "])
def test_an_empty_folder_name_is_refused(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"FOLDER = '.?': is empty; name the folder of images"):
        CliRunner().invoke(app, ["init", "pets", folder], catch_exceptions=False)


@pytest.mark.parametrize("place", ["experiments", "mlruns", "mlruns/.init"])
def test_a_project_that_cannot_be_written_is_refused_first(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file, so nothing can be written into it")
    with pytest.raises(ResourceError, match=f"{tmp_path / place}: init cannot write there") as refused:
        init("pets", tmp_path / "nowhere", 60.0, tmp_path)
    assert "MLFLOW" not in str(refused.value)


@contextmanager
def an_ordinary_user():
    """No permission stops root, as which these tests may run."""
    was = os.geteuid()
    try:
        if was == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(was)


@pytest.fixture
def own_folder(empty_store):
    """A project with a store, in a folder that an ordinary user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for made in ("mlruns/.init", "experiments"):
            (root / made).mkdir(parents=True)
        shutil.copy(empty_store, root / "mlflow.db")
        for path in (root, *root.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield root
        for path in (root, root / "mlruns"):
            path.chmod(0o777)


@pytest.mark.parametrize(
    ("place", "mode", "message"),
    [
        ("mlflow.db", 0o444, r"mlflow\.db: init cannot write to this file.*chmod u\+w"),
        ("mlruns", 0o555, "mlruns: init cannot write there .Permission denied., and has to make mlruns/"),
        (".", 0o555, "init cannot write there .Permission denied., and has to record a run in mlflow.db"),
    ],
)
def test_a_store_that_is_read_only_is_refused_before_the_look(own_folder, place, mode, message):
    (own_folder / place).chmod(mode)
    with an_ordinary_user(), pytest.raises(ResourceError, match=message):
        init("pets", own_folder / "nowhere", 60.0, own_folder)


def test_a_store_that_takes_no_run_is_refused_before_the_look(make_project, monkeypatch):
    project = make_project()
    monkeypatch.setattr("imgcls.init.verb.choose_recipe", lambda *_: pytest.fail("the images were looked at"))
    write_classes(project.root / "images", {"cat": 3, "dog": 3})
    project.client.delete_experiment(project.client.create_experiment("pets"))
    with pytest.raises(InputError, match="'pets' was deleted; restore it"):
        init("pets", project.root / "images", 60.0, project.root)
    broken = make_project()
    (broken.root / "mlflow.db").write_text("not a database")
    with pytest.raises(InputError, match=r"mlflow\.db cannot be opened"):
        init("pets", project.root / "images", 60.0, broken.root)
