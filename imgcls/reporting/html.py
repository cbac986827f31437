"""A report as one page that needs nothing else: no network, no script, no second file."""

import io
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from imgcls.reporting.report import Block, Headline, Link, Picture, Section

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy. The browser blocks every external request, even if the page contains one."""

PIXELS_PER_INCH = 96
"""Of CSS: a figure is shown in the size in inches in which it was drawn."""

NUM_SECTIONS_WITHOUT_CONTENTS = 4
"""A page with more sections begins with a list of them."""


def page(title: str, headline: Headline | None, sections: Sequence[Section]) -> str:
    """Renders a report as a self-contained HTML 5 page, for light and dark screens, paper, phones and screen readers.

    Markup in names stays text: HTML, links and images inside Markdown are not rendered, so the page loads nothing, and
    the only addresses in it are those of the links given.

    Args:
        title: of the report and of the browser's tab; plain text.
        headline: the result, which is shown large; None for none.
        sections: in the order in which they are read. Text is CommonMark with tables.
    """
    contents = _contents(sections) if len(sections) > NUM_SECTIONS_WITHOUT_CONTENTS else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{_style()}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{_headline(headline) if headline else ""}</header>
{contents}<main>
{"".join(_section(number, section) for number, section in enumerate(sections, 1))}</main>
</body>
</html>
"""


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _headline(of: Headline) -> str:
    interval = f'<span class="interval">{escape(of.interval)}</span>' if of.interval else ""
    meaning = f"<p>{escape(of.meaning)}</p>\n" if of.meaning else ""
    caution = f'<p class="caution"><strong>Warning:</strong> {escape(of.caution)}</p>\n' if of.caution else ""
    return f'<p class="headline"><strong>{escape(of.number)}</strong> {interval}</p>\n{meaning}{caution}'


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(
        f'<li><a href="#section-{number}">{escape(section.heading)}</a></li>'
        for number, section in enumerate(sections, 1)
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'


def _section(number: int, section: Section) -> str:
    name = f"section-{number}"
    parts = (_blocks(kind, list(blocks), section.heading) for kind, blocks in groupby(section.blocks, type))
    return (
        f'<section id="{name}" aria-labelledby="{name}-heading">\n'
        f'<h2 id="{name}-heading">{escape(section.heading)}</h2>\n{"".join(parts)}</section>\n'
    )


def _blocks(kind: type, blocks: Sequence[Block], heading: str) -> str:
    """Neighbours of one kind: a text, figures, or a list of links."""
    if kind is Link:
        return f'<ul class="links">{"".join(_link(block) for block in blocks if isinstance(block, Link))}</ul>\n'
    if kind is Picture:
        return "".join(_figure(block) for block in blocks if isinstance(block, Picture))
    return _text("\n\n".join(block for block in blocks if isinstance(block, str)), heading)


def _link(link: Link) -> str:
    return f'<li><a href="{escape(link.address)}">{escape(link.text)}</a></li>'


def _figure(picture: Picture) -> str:
    with Image.open(io.BytesIO(picture.png)) as image:
        scales = [PIXELS_PER_INCH / dpi for dpi in image.info.get("dpi", (PIXELS_PER_INCH,) * 2)]
        width, height = (round(side * scale) for side, scale in zip(image.size, scales, strict=True))
    source = f"data:image/png;base64,{b64encode(picture.png).decode()}"
    kind = "drawing" if picture.is_drawing else "photographs"
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return (
        f'<figure class="{kind}"><img src="{source}" alt="{escape(picture.alt)}" width="{width}" height="{height}">'
        f"{caption}</figure>\n"
    )


def _text(markdown: str, heading: str) -> str:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["autolink", "image", "link", "reference"])
    tokens = list(_accessible(parser.parse(markdown)))
    html: str = parser.renderer.render(tokens, parser.options, {})
    # Whatever was text has its brackets escaped by now, so these tags are the tables' own.
    region = f'<div class="scrolls" role="region" aria-label="Table: {escape(heading)}" tabindex="0"><table>'
    return html.replace("<table>", region).replace("</table>", "</table></div>")


NUMBERS = re.compile(r"(?:[\d\s.,:%()+\u2212\u2013-]|\bto\b|e[+-])+")
"""A cell that is not broken into lines: a number, with its interval or sign, or a date."""


def _accessible(tokens: Sequence[Token]) -> Iterator[Token]:
    """Heads of columns and rows say what they head, and a block of code can be scrolled from the keyboard."""
    column = 0
    for token, following in zip(tokens, (*tokens[1:], None), strict=True):
        if token.type == "td_open" and following and NUMBERS.fullmatch(following.content):
            token.attrSet("class", "number")
        if token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "td_open":
            if column == 0:
                token.tag = "th"
                token.attrSet("scope", "row")
            column += 1
        elif token.type == "td_close" and column == 1:
            token.tag = "th"
        elif token.type in ("fence", "code_block"):
            token.attrSet("tabindex", "0")
        yield token
