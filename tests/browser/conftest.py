"""A browser that is watched, on servers of a fresh sweep: what it asks for, what fails in its console."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from imgcls.reporting import drawing
from imgcls.tracking.ui_server import serving
from tests.photographs import write_photographs

PATIENCE = 120_000
"""Milliseconds for a text to appear; a busy machine takes long, and no test waits longer than it must."""

expect.set_options(timeout=PATIENCE)

ALLOWED = (
    # MLflow asks who is logged in, also where nobody can log in.
    r"404 \S+/ajax-api/2\.0/mlflow/users/current$",
    # A notice of every browser that a layout took more than one frame.
    r"ResizeObserver loop completed with undelivered notifications",
)
"""What may fail in MLflow's UI and in Optuna's dashboard, with the reason."""


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def fine_pictures(coarse_pictures):
    """Here a browser shows them."""
    drawing.DOTS_PER_INCH = coarse_pictures


@dataclass
class Watch:
    """What pages asked for, and what failed in them."""

    requested: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def page(self, context):
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("response", lambda response: self._answered(response.status, response.url))
        page.on("requestfailed", lambda request: self._failed(request))
        page.on("pageerror", lambda error: self.failures.append(f"pageerror: {error}"))
        page.on("console", lambda message: self._said(message))
        return page

    def _answered(self, status, url):
        if status >= 400:
            self.failures.append(f"{status} {url}")

    def _failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # what a page gives up when it is left
            self.failures.append(f"{request.failure} {request.url}")

    def _said(self, message):
        if message.type == "error" and "Failed to load resource" not in message.text:  # its response is seen above
            self.failures.append(message.text)

    def check(self):
        outside = [url for url in self.requested if not stays_here(url)]
        assert outside == [], "requests that leave this machine"
        unexpected = [text for text in self.failures if not any(re.search(known, text) for known in ALLOWED)]
        assert unexpected == []


def stays_here(url):
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "file", "about") or parts.hostname in ("127.0.0.1", "localhost")


WITHOUT_BROWSER = "IMGCLS_WITHOUT_BROWSER"
"""Environment variable by which somebody leaves the tests in a browser out."""


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium: Playwright brings no browser of its own, so nothing is downloaded."""
    path = shutil.which("chromium")
    if path is None and os.environ.get(WITHOUT_BROWSER):
        pytest.skip(f"the user set {WITHOUT_BROWSER}, which leaves these tests out where Chromium is not installed")
    if path is None:
        pytest.fail(
            "Chromium is not installed, and Playwright would download another browser: apt-get install chromium, or "
            f"set {WITHOUT_BROWSER}=1 to leave the tests in a browser out",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--force-color-profile=srgb"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium):
    """Opens an address in a page of its own; at the end nothing has left loopback and nothing has failed."""
    watch, contexts = Watch(), []

    def opened(address, **options):
        context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1000}} | options)
        contexts.append(context)
        page = watch.page(context)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    watch.check()


@dataclass
class Swept:
    """A project after sweep, evaluation, comparison and init, as a user types them, and what the first two printed."""

    project: object
    sweep_said: str
    evaluate_said: str

    @property
    def runs(self):
        return self.project.client.search_runs([self.experiment.experiment_id])

    @property
    def experiment(self):
        return self.project.client.get_experiment_by_name("tiny")

    def of_kind(self, kind):
        return [run for run in self.runs if run.data.tags["imgcls.kind"] == kind]

    @property
    def winner(self):
        (sweep,) = self.of_kind("sweep")
        return self.project.client.get_run(sweep.data.tags["imgcls.best_run_id"])


@pytest.fixture(scope="session")
def swept(make_project):
    project = make_project()

    def typed(*words):
        command = [sys.executable, "-m", "imgcls", *words]
        done = subprocess.run(
            command, cwd=project.root, env=surroundings(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    write_photographs(project.root / "images")
    made = Swept(project, typed("sweep", "tiny", "--set", "report.figures=winner"), typed("evaluate", "best"))
    typed("compare", *(run.info.run_id for run in made.of_kind("trial")), "--html", COMPARISON)
    typed("init", "photographs", "images", "--budget", "1m")
    return made


COMPARISON = "comparison.html"
"""Where the page of the comparison lies in the project."""


def surroundings():
    """The environment of a command in another folder: imgcls is that of this checkout."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="session")
def mlflow_ui(swept):
    """The address of plain `mlflow ui` in the project's folder."""
    with serving(None, swept.project.root) as ui:
        yield ui.address
