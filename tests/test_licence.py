"""Whoever gets imgcls gets its licence with it."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_carries_the_licence(tmp_path):
    project, wheels = tmp_path / "project", tmp_path / "wheels"
    shutil.copytree(ROOT / "imgcls", project / "imgcls", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, project / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    subprocess.run([*pip, str(project)], check=True)
    with zipfile.ZipFile(next(wheels.glob("imgcls-*.whl"))) as wheel:
        texts = {Path(name).name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" in name}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert message_from_bytes(texts["METADATA"])["License-Expression"] == "MIT"
