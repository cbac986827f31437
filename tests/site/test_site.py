"""The site of `make docs`: built without a network; every link leads somewhere, and nothing loads from elsewhere."""

import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import imgcls
from tests.test_readme import PAGES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

BUILD_WITHOUT_NETWORK = """
import socket, sys

def refuse(*_, **__):
    raise OSError("the site is built without a network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""

LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src"), ("object", "data")}
"""(element, attribute) whose address a browser loads without a click."""


def build(root, output):
    """Builds as `make docs` does, with every connection refused."""
    return subprocess.run(
        [
            sys.executable, "-c", BUILD_WITHOUT_NETWORK, "-W", "--keep-going", "-q", "-b", "html",
            "-d", str(output / "doctrees"), "-c", str(root / "docs"), str(root), str(output / "html"),
        ],
        capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    output = tmp_path_factory.mktemp("site")
    done = build(ROOT, output)
    assert done.returncode == 0, done.stderr
    return output / "html"


class Addresses(HTMLParser):
    """Of a page: what it loads, where it links to, its anchors, and its text."""

    def __init__(self, page):
        super().__init__()
        self.loads, self.links, self.anchors, self.text = [], [], set(), ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("id", "name"):
                self.anchors.add(value)
            elif (tag, name) in LOADS:
                self.loads.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(site):
    return {page: Addresses(page) for page in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for page, found in pages.items():
        for address in found.loads:
            parts = urlsplit(address)
            assert parts.scheme in ("", "data"), (page.name, address)
            assert not parts.netloc, (page.name, address)
    for sheet in site.rglob("*.css"):
        assert "@import" not in sheet.read_text(encoding="utf-8"), sheet.name
        assert "url(http" not in sheet.read_text(encoding="utf-8").replace('"', ""), sheet.name


def test_every_link_and_anchor_leads_somewhere(pages):
    for page, found in pages.items():
        for address in [*found.links, *found.loads]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), (page.name, address)
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in pages[target].anchors, (page.name, address)


def test_every_source_is_a_page_and_in_the_navigation(site, pages):
    titles = runpy.run_path(str(ROOT / "docs" / "conf.py"))["PAGES"]
    listed = [name for names in titles.values() for name in names]
    assert len(listed) == len(set(listed)), "a page is listed twice"
    sources = {str(page.relative_to(ROOT).with_suffix("")) for page in PAGES} - {"README"}
    assert sources <= set(listed)
    assert {site / f"{name}.html" for name in listed} <= set(pages)


def test_the_reference_has_every_public_name(site, pages):
    anchors = pages[site / "docs" / "reference.html"].anchors
    for name in imgcls.__all__:
        wanted = f"imgcls.{name}" if name != "errors" else "imgcls.errors.ImgclsError"
        assert name == "__version__" or wanted in anchors, name


BROKEN = [
    ("docs/predicting.md", "no-such-page.md"),
    ("docs/predicting.md", "keys.md#no-such-anchor"),
    ("docs/predicting.md", "../README.md#no-such-title"),
    ("README.md", "docs/keys.md#no-such-key"),
]
"""Pages, and what a link in them names that is not there."""


def test_broken_links_stop_the_build_and_each_is_named(tmp_path):
    root = tmp_path / "root"
    for source in ("README.md", "docs/conf.py", "docs/keys.md", "docs/predicting.md"):
        (root / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, root / source)
    for source in ("README.md", "docs/predicting.md"):
        (root / source).write_text("# Title\n\nText.\n")
    conf = root / "docs" / "conf.py"
    conf.write_text(
        conf.read_text() + '\nPAGES = {"All": ["docs/keys", "docs/predicting"]}\nhtml_additional_pages = {}\n'
    )
    assert build(root, tmp_path / "good").returncode == 0
    for source, target in BROKEN:
        with (root / source).open("a") as page:
            page.write(f"\n[a link]({target})\n")
    done = build(root, tmp_path / "bad")
    assert done.returncode == 1
    for source, target in BROKEN:
        name = target.rpartition("#")[2]
        assert [line for line in done.stderr.splitlines() if source in line and name in line], target
