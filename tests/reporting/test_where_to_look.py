"""The commands that a verb prints at its end run as they stand, in the shell that reads them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls.reporting.where_to_look import how_to_look, how_to_serve


@pytest.fixture
def not_activated(monkeypatch):
    programs = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "mlflow").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(programs))


def test_in_an_activated_shell_the_commands_are_the_short_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert how_to_look(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path) == "mlflow ui"
    assert how_to_serve("models:/a@b", tmp_path) == "mlflow models serve -m models:/a@b --env-manager local"


@pytest.mark.usefixtures("not_activated")
def test_in_another_shell_the_commands_lead_to_the_mlflow_of_this_environment(tmp_path):
    programs = shlex.quote(str(Path(sys.executable).parent))
    folder = shlex.quote(str(tmp_path))
    assert how_to_look(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path) == (
        f'cd {folder} && PATH={programs}:"$PATH" mlflow ui'
    )
    command = how_to_serve("models:/a@b", tmp_path).removesuffix(" models serve -m models:/a@b --env-manager local")
    assert command == f'cd {folder} && PATH={programs}:"$PATH" mlflow'
    # What `mlflow models serve` starts is found too.
    look = command.replace("mlflow", "sh -c 'command -v mlflow; command -v uvicorn'")
    found = subprocess.run(look, shell=True, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [f"{Path(sys.executable).parent}/{name}" for name in ("mlflow", "uvicorn")]
