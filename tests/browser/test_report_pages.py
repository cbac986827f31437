"""Reports as pages of their own: on a screen, light and dark, on a phone and on paper; nothing is fetched."""

import io
import unicodedata

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from pypdf import PdfReader

from imgcls.record import Artifact
from imgcls.reporting.report import Picture
from tests.browser.conftest import COMPARISON
from tests.reporting.test_html import COLOUR, page_of, png

PHONE = {"viewport": {"width": 375, "height": 700}, "device_scale_factor": 2, "is_mobile": True}


KINDS = ("sweep", "search", "evaluation", "comparison", "init")


@pytest.fixture(scope="session")
def reports(swept):
    """Kind of report -> its page."""
    root = swept.project.root

    def artifact(kind, name):
        (run,) = swept.of_kind(kind)
        (path,) = (root / "mlruns").glob(f"*/{run.info.run_id}/artifacts/{name}")
        return path

    return {
        "sweep": artifact("sweep", Artifact.REPORT_HTML),
        "search": artifact("sweep", Artifact.PLOTS),
        "evaluation": artifact("evaluation", Artifact.REPORT_HTML),
        "comparison": root / COMPARISON,
        "init": root / "mlruns" / ".init" / "photographs.html",
    }


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_whole(reports, show, kind, options):
    page = show(reports[kind].as_uri(), **options)
    expect(page.locator("h1")).to_have_count(1)
    pictures = page.locator("img")
    for number in range(pictures.count()):
        assert pictures.nth(number).evaluate("image => image.naturalWidth") > 0
        assert pictures.nth(number).get_attribute("alt").strip()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "only tables scroll sideways"


@pytest.mark.parametrize("kind", KINDS)
def test_light_and_dark_differ_and_can_be_read(reports, show, kind):
    shades = {}
    for scheme in ("light", "dark"):
        page = show(reports[kind].as_uri(), color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        shades[scheme] = [_luminance(page.evaluate(f"{style}.{name}")) for name in ("color", "backgroundColor")]
    (ink, paper), (light_ink, dark_paper) = shades["light"], shades["dark"]
    assert ink < paper
    assert dark_paper < light_ink
    for text, ground in shades.values():  # WCAG 2, level AA
        bright, dim = max(text, ground), min(text, ground)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5


def _luminance(colour):
    """Relative luminance of a CSS colour, by WCAG 2."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_prints_whole(reports, show, kind):
    """On paper every heading, paragraph and cell is there, each picture too, and nothing is wider than the paper."""
    page = show(reports[kind].as_uri(), viewport=PRINTED)
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator(".scrolls, pre").evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth)")
    blocks = page.locator("h1, h2, main p, main th, main td, figcaption").all_inner_texts()
    assert len(page.locator("h2").all()) > 2
    printed = PdfReader(io.BytesIO(page.pdf(format="A4", print_background=True)))
    text = letters("".join(sheet.extract_text() for sheet in printed.pages))
    assert [block for block in blocks if letters(block) not in text] == []
    assert sum(len(sheet.images) for sheet in printed.pages) >= page.locator("img").count()


PRINTED = {"width": 672, "height": 980}
"""Pixels of CSS between the margins of A4."""


def letters(text):
    """A text without its spaces, which lines and sheets break, and without ligatures."""
    return "".join(unicodedata.normalize("NFKC", text).split())


@pytest.mark.parametrize("with_picture", [True, False])
def test_a_picture_is_shown_pixel_by_pixel(tmp_path, show, with_picture):
    file = tmp_path / "page.html"
    file.write_text(page_of(*([Picture(png(), "Green")] if with_picture else ["Nothing."])))
    shot = show(file.as_uri(), viewport={"width": 800, "height": 600}).screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).reshape(-1, 3)
    assert (pixels == COLOUR).all(axis=1).sum() == (200 * 200 if with_picture else 0)
