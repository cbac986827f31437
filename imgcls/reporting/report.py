"""What a report is made of: a title, a headline, and sections of text, figures and links; and a report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imgcls.reporting.tables import document, escaped

ADDRESS = re.compile(r"https?://[^\s<>\"]+|#[\w/-]+|(?!\w+:)[\w./-]+")
"""What the link of a report may lead to: a page on the web, a place in the same page, or a file beside it."""


@dataclass(frozen=True)
class Picture:
    """A figure of a report, which stands beside the text that it belongs to.

    Attributes:
        png: content of a PNG file.
        alt: what the figure shows, for readers who cannot see it; plain text.
        caption: below the figure; plain text, "" for none.
        is_drawing: whether it is a drawing on white, whose light and dark may change places in a dark page. The colours
            of photographs stay as they are.
        file: where the figure lies as a file, for readers of the Markdown; "" for nowhere.
    """

    png: bytes
    alt: str
    caption: str = ""
    is_drawing: bool = True
    file: str = ""


@dataclass(frozen=True)
class Link:
    """A link of a report.

    Attributes:
        text: plain text.
        address: a web address, `#` with a name in the page, or a relative path.

    Raises:
        ValueError: any other address, such as one that runs a script.
    """

    text: str
    address: str

    def __post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.address):
            raise ValueError(f"a report cannot link to {self.address!r}; give http://…, https://…, #name or a path")


Block = str | Picture | Link
"""A part of a report's section: Markdown (paragraphs, tables, code), a figure, or a link."""


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        heading: plain text.
        blocks: in the order in which they are read.
    """

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Headline:
    """The result that a report begins with.

    Attributes:
        number: rounded as its interval allows, such as `0.87`.
        interval: such as `0.84 to 0.90`; "" where there is none.
        meaning: what the number is and whose; one sentence, plain text.
        caution: what is to be said beside the number; plain text, "" for nothing.
    """

    number: str
    interval: str = ""
    meaning: str = ""
    caution: str = ""

    @property
    def markdown(self) -> str:
        """The headline as a line of Markdown: the number with its interval first."""
        number = f"{self.number} ({self.interval})" if self.interval else self.number
        caution = f" **Warning:** {escaped(self.caution)}" if self.caution else ""
        return f"**{escaped(number)}** {escaped(self.meaning)}".rstrip() + caution


class Report(NamedTuple):
    """A report: what `html.page` shows and `markdown` writes.

    Attributes:
        title: plain text.
        headline: its result; None where it has none.
        sections: in the order in which they are read.
    """

    title: str
    headline: Headline | None
    sections: Sequence[Section]


def markdown(title: str, headline: Headline | None, sections: Sequence[Section]) -> str:
    """A report as Markdown. In the place of a figure it says where the figure lies, and what it shows.

    Args:
        title: plain text; "" leaves the heading out.
        headline: its result.
        sections: in the order in which they are read.
    """
    blocks = [f"# {escaped(title)}"] if title else []
    blocks += [headline.markdown] if headline else []
    for section in sections:
        blocks += [f"## {escaped(section.heading)}", *filter(None, map(_as_markdown, section.blocks))]
    return document(*blocks)


def _as_markdown(block: Block) -> str:
    if isinstance(block, Picture):
        return f"*Figure `{block.file}`*: {escaped(block.alt)}" if block.file else ""
    return f"[{escaped(block.text)}]({block.address})" if isinstance(block, Link) else block
