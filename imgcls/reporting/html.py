"""A report as one page that needs nothing else: no network, no script, no second file."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from markdown_it import MarkdownIt

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: a browser refuses whatever would be fetched, should it ever stand in the page."""

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #ffffff; --line: #d0d0d0; --soft: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #16181b; --line: #43474d; --soft: #23262b; }
}
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.25; }
h2 { margin-top: 2.2rem; }
.scrolls, pre { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line); text-align: left; }
td { vertical-align: top; }
code, pre { font: 0.88em/1.5 ui-monospace, monospace; background: var(--soft); border-radius: 3px; }
code { padding: 0.1em 0.3em; }
pre { padding: 0.7rem 0.9rem; }
pre code { padding: 0; font-size: 1em; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; }
figcaption { font-size: 0.9rem; }
"""


def render(markdown: str, pictures: Sequence[tuple[str, bytes]], title: str) -> str:
    """Renders a report as a self-contained HTML 5 page.

    Markup in names stays text: HTML, links and images of the Markdown are not rendered, so the pictures given are the
    only ones and nothing in the page has an address.

    Args:
        markdown: CommonMark with tables.
        pictures: (caption, PNG file); they follow the text, in this order.
        title: of the page, shown by the browser.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["autolink", "image", "link", "reference"])
    text = parser.render(markdown)
    # Whatever was text has its brackets escaped by now, so these tags are the tables' own.
    text = text.replace("<table>", '<div class="scrolls" tabindex="0"><table>').replace("</table>", "</table></div>")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{text}{"".join(_figure(caption, png) for caption, png in pictures)}</main>
</body>
</html>
"""


def _figure(caption: str, png: bytes) -> str:
    words = escape(caption)
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>\n'
