"""`optuna-dashboard` on the journal of a study, as docs/daily-use.md says."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import serving

ROOT = Path(__file__).parents[2]


def test_the_dashboard_shows_the_study(swept, show):
    page_of_the_docs = (ROOT / "docs" / "daily-use.md").read_text(encoding="utf-8")
    assert "optuna-dashboard mlruns/.studies/" in page_of_the_docs
    (journal,) = (swept.project.root / "mlruns" / ".studies").glob("*.journal")
    program = "from optuna_dashboard._cli import main; main()"
    with serving(
        swept.project.root, "python", "-c", program, str(journal.relative_to(swept.project.root)), "--port", "PORT"
    ) as address:
        page = show(f"{address}/dashboard/studies/0")
        expect(page.get_by_text(re.compile("tiny")).first).to_be_visible()
        expect(page.get_by_text("train.lr").first).to_be_visible()
