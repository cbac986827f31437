import io
import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from PIL import Image

from imgcls.reporting.html import page
from imgcls.reporting.report import Headline, Link, Picture, Section, markdown
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


def page_of(*blocks, title="Report"):
    return page(title, None, [Section("Section", blocks)])


def test_a_page_holds_its_pictures_and_no_address_leaves_it():
    made = Page(page_of("Some *text*.", Picture(png(), "Curves & more"), title="A <title>"))
    assert made.open == []
    assert "script" not in made.tags
    assert "link" not in made.tags
    (address,) = made.addresses
    kind, content = address.split(",", 1)
    assert kind == "data:image/png;base64"
    assert b64decode(content) == png()
    assert ("img", "alt", "Curves & more") in made.attributes
    assert "A <title>" in made.text
    assert {"h1", "h2", "em", "figure"} <= set(made.tags)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markdown_has_no_address_either(name):
    made = Page(page_of(f"{name}\n\n[a]: http://example.org/\n\n[a] ![a]\n\n    {name}"))
    assert made.addresses == []
    assert "script" not in made.tags
    assert made.open == []


def test_tables_scroll_by_themselves():
    made = page_of("| a | b |\n| --- | --- |\n| 1 | 2 |")
    assert '<div class="scrolls" role="region" aria-label="Table: Section" tabindex="0"><table>' in made
    assert Page(made).cells == ["a", "b", "1", "2"]


@pytest.mark.parametrize(
    ("cell", "is_number"),
    [
        ("0.984", True), ("0.984 to 0.999", True), ("0.88 (0.84 to 0.91)", True), ("1.6e-3", True), ("−0.02", True),
        ("12%", True), ("–", True), ("2026-11-26 05:40:00", True), ("completed", False), ("tomatoes", False),
        ("0.80 to 0.95; this score selected the epoch", False), ("071c555009d445b9", False),
    ],
)  # fmt: skip
def test_only_numbers_are_kept_on_one_line(cell, is_number):
    made = page_of(f"| a | b |\n| --- | --- |\n| {cell} | {cell} |")
    assert made.count('class="number"') == (2 if is_number else 0)


HEADLINE = Headline("0.87", "0.84 to 0.90", "accuracy of the winner", "2 val images look like one of another split.")
TABLE = markdown_table(("class", "recall"), [("cat", "0.5"), ("dog", "0.7")])
RUN = Link("the run", "http://127.0.0.1:5000/#/experiments/1/runs/2")


def whole_page(*further):
    picture = Picture(png(), "A green square", "All of it is green.")
    sections = [Section("Winner", ["Some *text*.", picture, TABLE, "```sh\nls\n```", RUN]), *further]
    return page("clothes: sweep", HEADLINE, sections)


def test_the_page_has_what_each_reader_needs():
    made = Page(whole_page())
    assert made.open == []
    assert made.text.index("0.87") < made.text.index("0.84 to 0.90") < made.text.index("accuracy of the winner")
    assert made.text.count("2 val images look like one of another split.") == 1
    for attribute in [
        ("html", "lang", "en"),
        ("meta", "content", "width=device-width, initial-scale=1"),
        ("img", "alt", "A green square"),
        ("img", "width", "200"),
        ("th", "scope", "col"),
        ("th", "scope", "row"),
        ("div", "tabindex", "0"),
        ("div", "aria-label", "Table: Winner"),
        ("a", "href", RUN.address),
    ]:
        assert attribute in made.attributes
    assert made.cells == ["class", "recall", "cat", "0.5", "dog", "0.7"]
    assert [tag for tag in made.tags if tag in ("h1", "h2", "p", "figure", "table", "pre", "a")] == [
        "h1", "p", "p", "p", "h2", "p", "figure", "table", "pre", "a",
    ]  # fmt: skip
    assert [address for address in made.addresses if not address.startswith("data:")] == [RUN.address]


def test_a_long_page_begins_with_its_contents():
    made = Page(whole_page(*(Section(f"Section {number}", ["Text."]) for number in range(2, 6))))
    names = [value for tag, name, value in made.attributes if (tag, name) == ("section", "id")]
    targets = [address for address in made.addresses if address.startswith("#")]
    assert targets == [f"#{name}" for name in names] != []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_on_a_page_is_shown_and_not_obeyed(name):
    sections = [
        Section(name, [markdown_table((name, "b"), [(name, "1")]), Picture(png(), name, name), Link(name, "#x")])
    ]
    made = Page(page(name, Headline(name, name, name, name), sections))
    assert made.open == []
    assert made.cells == [name, "b", name, "1"]
    assert ("img", "alt", name) in made.attributes
    assert [address for address in made.addresses if not address.startswith("data:")] == ["#x"]
    assert not {"script", "code", "iframe"} & set(made.tags)
    assert not [attribute for attribute in made.attributes if attribute[1].startswith("on")]


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", 'http://a" onclick="b', "file:///etc", ""]
)
def test_a_link_leads_to_a_page_and_runs_nothing(address):
    with pytest.raises(ValueError, match="a report cannot link to"):
        Link("click", address)


def test_the_same_report_as_markdown_begins_with_the_number():
    pictures = Picture(png(), "A green square", file="figures/green.png"), Picture(png(), "Nowhere else")
    sections = [Section("Winner", ["Some *text*.", *pictures, RUN])]
    assert markdown("", HEADLINE, sections) == (
        "**0.87 (0.84 to 0.90)** accuracy of the winner **Warning:** 2 val images look like one of another split.\n\n"
        "## Winner\n\nSome *text*.\n\n*Figure `figures/green.png`*: A green square\n\n[the run](http://127.0.0.1:5000/#/experiments/1/runs/2)\n"
    )
    assert markdown("a | b", None, sections).startswith("# a \\| b\n\n## Winner")


def contrast(one, other):
    """The contrast of two colours as WCAG 2.2 defines it (relative luminance, success criterion 1.4.3)."""

    def luminance(colour):
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_text_stands_out_as_wcag_asks_for_in_light_and_in_dark():
    light, dark = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in whole_page().split("@media screen")[:2]]
    assert set(light) == set(dark)
    for colours in (light, dark):
        for text, ground in [
            ("text", "page"), ("text", "soft"), ("quiet", "page"), ("accent", "page"), ("warn", "warn-page"),
        ]:  # fmt: skip
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
