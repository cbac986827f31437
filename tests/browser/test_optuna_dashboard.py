"""`optuna-dashboard` on the journal of a study, as docs/daily-use.md says."""

import os
import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from imgcls.tracking.ui_server import child_server, free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dashboard(swept):
    """The address of the dashboard; asked for before `show`, it outlives the pages, which ask for news all the time."""
    (journal,) = (swept.project.root / "mlruns" / ".studies").glob("*.journal")
    program = "from optuna_dashboard._cli import main; main()"
    port, root = free_port(), swept.project.root
    command = [sys.executable, "-c", program, str(journal.relative_to(root)), "--port", str(port)]
    address = f"http://127.0.0.1:{port}/"
    with child_server("optuna-dashboard", command, address, root, os.environ):
        yield address


def test_the_dashboard_shows_the_study(dashboard, show):
    page_of_the_docs = (ROOT / "docs" / "daily-use.md").read_text(encoding="utf-8")
    assert "optuna-dashboard mlruns/.studies/" in page_of_the_docs
    page = show(f"{dashboard}dashboard/studies/0")
    expect(page.get_by_text(re.compile("tiny")).first).to_be_visible()
    expect(page.get_by_text("train.lr").first).to_be_visible()
