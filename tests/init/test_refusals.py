"""What `imgcls init` refuses before it looks at any image."""

import pytest
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.errors import ConfigError, InputError, ResourceError
from imgcls.init.verb import init


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
