"""docs/architecture.md names every file of the package, and its picture no file that does not exist."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FILES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "imgcls").rglob("*.py")}


def test_the_list_of_files_is_that_of_the_package():
    text = (DOCS / "architecture.md").read_text()
    assert text == runpy.run_path(str(DOCS / "architecture.py"))["page"](text), "run `python docs/architecture.py`"
    listed = set(re.findall(r"^\| `(imgcls/\S+\.py)`", text, re.MULTILINE))
    assert listed == {path for path in FILES if not re.fullmatch(r"imgcls/.+/__init__\.py", path)}


def test_every_file_that_the_text_and_the_picture_name_exists():
    text, _, _ = (DOCS / "architecture.md").read_text().partition("<!-- files -->")
    named = set(re.findall(r"[\w/]+\.py\b", text + (DOCS / "flow.svg").read_text()))
    named = {name for name in named if not name.endswith("/NEW.py")}
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).is_file() or any(path.endswith("/" + name) for path in FILES), name
