"""Makes the pictures of README and docs/ again, from a project where a sweep and an evaluation ended.

    python docs/screenshots.py PROJECT

Needs Debian's Chromium, and Playwright, which `make setup` installs. Plain `mlflow ui` runs while the pictures are
made. A picture whose source is not in the project is named and left as it is.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCS = Path(__file__).parent

NUM_COLOURS = 128
"""Of a picture; text stays sharp, and the file is a third of its size."""

WINDOW = (1200, 640)
"""Width and height of the browser's window in pixels."""

LONGEST_WAIT = 120_000
"""Milliseconds for a page to show what is photographed."""


def save(png: bytes, name: str) -> None:
    """Writes docs/NAME.png, no wider than the window, with few colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > WINDOW[0]:
        image = image.resize((WINDOW[0], round(image.height * WINDOW[0] / image.width)), Image.Resampling.LANCZOS)
    path = DOCS / f"{name}.png"
    image.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path.name}: {image.width} x {image.height} pixels, {path.stat().st_size // 1000} kB\n")


def _upper_half(png: bytes) -> bytes:
    """The title and the first two of four rows of a figure."""
    image, file = Image.open(io.BytesIO(png)), io.BytesIO()
    image.crop((0, 0, image.width, round(image.height * 0.51))).save(file, format="PNG")
    return file.getvalue()


def trials(page: Page, address: str) -> bytes:
    """The saved view of a sweep's trials in MLflow's UI, the winner first."""
    page.goto(address)
    page.locator(".ag-center-cols-container .ag-row").first.wait_for()
    page.get_by_label("Close", exact=True).click()  # MLflow's assistant, which covers a part of each page
    page.get_by_label("Hide banner").click()  # which says that the view is shared
    page.wait_for_timeout(2000)  # the columns move into their places
    return page.screenshot()


def first_screen(page: Page, report: Path) -> bytes:
    """The top of a page that lies on this disk."""
    page.goto(report.as_uri())
    return page.screenshot()


def main() -> None:
    """Makes every picture whose source is there."""
    from playwright.sync_api import sync_playwright

    from imgcls.record import Artifact
    from imgcls.reporting.where_to_look import page_of
    from imgcls.tracking.find_run import find_run
    from imgcls.tracking.store import Tracker
    from imgcls.tracking.ui_server import serving

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    project = parser.parse_args().project.resolve()
    tracker = Tracker(project)
    winner = find_run("best", tracker)
    sweep = tracker.get(winner.parent)
    looks = tracker.find({"imgcls.kind": "evaluation"})
    runs = project / "mlruns"
    sources = {
        "init": runs / ".init" / f"{winner.experiment}.html",
        "sweep-report": (sweep.folder or runs) / Artifact.REPORT_HTML,
        "test-report": (looks[-1].folder if looks and looks[-1].folder else runs) / Artifact.REPORT_HTML,
    }
    with sync_playwright() as playwright, serving(None, project) as ui:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
        page.set_default_timeout(LONGEST_WAIT)
        save(trials(page, ui.address + page_of(sweep, tracker)), "compare")
        for name, source in sources.items():
            if source.is_file():
                save(first_screen(page, source), name)
            else:
                sys.stdout.write(f"{name}: {source} does not exist\n")
        browser.close()
    mistakes = (winner.folder or runs) / "figures" / "val_mistakes.png"
    if mistakes.is_file():
        save(_upper_half(mistakes.read_bytes()), "mistakes")
    else:
        sys.stdout.write(f"mistakes: {mistakes} does not exist\n")


if __name__ == "__main__":
    main()
