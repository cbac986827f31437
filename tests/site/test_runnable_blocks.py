"""Code blocks that are marked as runnable are run, a page at a time, in an empty folder: as they stand, but sooner."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import PAGES

MARK = "<!-- runnable -->"
BLOCK = re.compile(rf"^{MARK}\n```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

RUNNABLE = [page for page in PAGES if MARK in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_every_mark_has_its_block(page):
    text = page.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == text.count(MARK)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, tmp_path):
    here = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8").replace("--budget 1m", "--budget 20s")):
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
