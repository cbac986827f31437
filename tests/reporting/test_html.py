import io
import shutil
import subprocess
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from imgcls.reporting.html import render
from imgcls.reporting.tables import markdown_table

COLOUR = (12, 200, 90)
HOSTILE = [
    "<script>alert(1)</script>",
    '<img src="http://example.org/x.png">',
    "![x](http://example.org/x.png)",
    "[a](http://example.org) <http://example.org>",
    '" onload="x',
    "`code` *star* | pipe &lt;b&gt;",
    "</table></div></main>",
]
"""Names that a class may have, since a class is named by a folder."""


def png(side=200):
    file = io.BytesIO()
    Image.new("RGB", (side, side), COLOUR).save(file, format="PNG")
    return file.getvalue()


class Page(HTMLParser):
    """What a page is made of: tags, addresses, text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.attributes, self.cells, self.text, self.open = [], [], [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_a_page_holds_its_pictures_and_no_address_leaves_it():
    page = Page(render("# Report\n\nSome *text*.", [("Curves & more", png())], "A <title>"))
    assert page.open == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    (address,) = page.addresses
    kind, content = address.split(",", 1)
    assert kind == "data:image/png;base64"
    assert b64decode(content) == png()
    assert ("img", "alt", "Curves & more") in page.attributes
    assert page.text.count("Curves & more") == 1
    assert "A <title>" in page.text
    assert {"h1", "em", "figure", "figcaption"} <= set(page.tags)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_in_a_table_is_shown_and_not_obeyed(name):
    page = Page(render(markdown_table(("class", "recall"), [(name, "0.5")]), [(name, png())], name))
    assert page.cells == ["class", "recall", name, "0.5"]
    assert page.addresses == [f"data:image/png;base64,{page.addresses[0].split(',')[1]}"]
    assert ("img", "alt", name) in page.attributes
    assert not {"script", "a", "code"} & set(page.tags)
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    assert page.open == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markdown_has_no_address_either(name):
    page = Page(render(f"{name}\n\n[a]: http://example.org/\n\n[a] ![a]\n\n    {name}", [], "Report"))
    assert page.addresses == []
    assert "script" not in page.tags
    assert page.open == []


def test_tables_scroll_by_themselves():
    page = render("| a | b |\n| --- | --- |\n| 1 | 2 |", [], "Report")
    assert '<div class="scrolls" tabindex="0"><table>' in page
    assert Page(page).cells == ["a", "b", "1", "2"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("with_picture", [True, False])
def test_a_browser_shows_the_picture(tmp_path, with_picture):
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(render("# Report", [("Green", png())] if with_picture else [], "Report"))
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=800,600", f"--screenshot={shot}", page.as_uri(),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shot.exists(), done.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    assert (pixels == COLOUR).all(axis=1).sum() == (200 * 200 if with_picture else 0)
