"""Makes the pictures of README and docs/ from a project where a sweep and an evaluation ended: `python docs/screenshots.py PROJECT`.

Needs Debian's Chromium, and Playwright, which `make setup` installs. Plain `mlflow ui` runs while the pictures are made.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCS = Path(__file__).parent
NUM_COLOURS = 128
"""Of a picture; text stays sharp, and the file is a third of its size."""


@contextmanager
def mlflow_ui(project: Path) -> Iterator[str]:
    """Plain `mlflow ui` in a project's folder, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    light = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, env=light, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stderr is not None
        next(line for line in server.stderr if "running on http" in line)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def save(png: bytes | Path, name: str, width: int) -> None:
    """Writes docs/NAME.png, no wider than `width` pixels, with few colours."""
    image = Image.open(io.BytesIO(png) if isinstance(png, bytes) else png).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    path = DOCS / f"{name}.png"
    image.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size // 1000} kB")  # noqa: T201


def close_assistant(page: Page) -> None:
    """Closes MLflow's assistant, which covers a part of each page."""
    close = page.get_by_label("Close").first
    if close.count():
        close.click()


def trials_in_the_ui(page: Page, address: str, view: str, winner: str) -> bytes:
    """The saved view of a sweep's trials in MLflow's UI."""
    page.goto(address + view)
    page.get_by_text(winner).first.wait_for()
    close_assistant(page)
    page.wait_for_timeout(2000)  # the columns move into their places
    return page.screenshot()


def top_of(page: Page, report: Path) -> bytes:
    """The first screen of a page that lies on this disk."""
    page.goto(report.as_uri())
    return page.screenshot()


def main() -> None:
    """Makes every picture again."""
    from playwright.sync_api import sync_playwright

    from imgcls.record import Artifact
    from imgcls.reporting.where_to_look import page_of
    from imgcls.tracking.find_run import find_run
    from imgcls.tracking.store import Tracker

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    project = parser.parse_args().project.resolve()
    os.chdir(project)
    tracker = Tracker(project)
    winner = find_run("best", tracker)
    print(winner, page_of, Artifact, shutil, sync_playwright)  # noqa: T201


if __name__ == "__main__":
    main()
