"""How Sphinx makes the site: `make docs`. The README is its first page; no page is written for the site alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = "imgcls"
copyright = "the authors of imgcls, MIT licence"
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "docs/*.md", "docs/*.rst", "benchmarks/RESULTS.md"]
exclude_patterns = [".venv*", "build", "mlruns", "data", "tests", "imgcls"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 4
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
toc_object_entries = False

html_theme = "furo"
html_title = "imgcls"
html_baseurl = ""
html_show_sphinx = False
html_copy_source = False
html_additional_pages = {"index": "first_page.html"}
templates_path = ["templates"]
pygments_style = "friendly"

PAGES = {
    "Start": [
        "docs/first-model",
        "docs/init",
        "docs/images",
        "docs/daily-use",
        "docs/pausing",
        "docs/budget",
        "docs/searching",
        "docs/folds",
        "docs/imbalance",
        "docs/recipes",
        "docs/fine-tuning",
        "docs/head-only",
    ],
    "Look up": ["docs/keys", "docs/record", "CHANGELOG"],
    "The method": [
        "docs/method",
        "docs/intervals",
        "docs/selection",
        "docs/averages",
        "docs/calibration",
        "docs/copies",
    ],
    "Use a model": ["docs/predicting", "docs/serving", "docs/exporting", "docs/using-a-model"],
    "Speed and operations": [
        "docs/speed",
        "benchmarks/RESULTS",
        "docs/plain-script",
        "docs/reliability",
    ],
    "Several machines": [
        "docs/workers",
        "docs/shared-storage",
        "docs/ray",
        "docs/several-devices",
        "docs/operating",
        "docs/scale",
    ],
    "The code": ["docs/library", "docs/reference", "docs/architecture"],
}
"""The navigation: heading -> its pages."""


def navigation(docname: str, text: str) -> str:
    """The text of a page; the README gets the navigation, which GitHub has no use for."""
    if docname != root_doc:
        return text
    parts = [f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(f"/{page}" for page in pages) + "\n```\n"
             for title, pages in PAGES.items()]  # fmt: skip
    return "\n".join([text, *parts])


def folders_as_code(text: str) -> str:
    """Links to what is not a page of the site, a folder or a file of the code, become plain names."""
    return re.sub(r"\[([^\]]*)\]\((?:\.\./)?(?:experiments|LICENSE)\)", r"`\1`", text)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""

    def read(_: Sphinx, docname: str, source: list[str]) -> None:
        source[0] = navigation(docname, folders_as_code(source[0]))

    app.connect("source-read", read)
