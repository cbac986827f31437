"""Links of a report to the pages on which MLflow's UI shows runs."""

from urllib.parse import urlsplit

from imgcls.record import RunRecord
from imgcls.reporting.report import Link
from imgcls.tracking.store import Tracker

PLAIN_UI = "http://127.0.0.1:5000"
"""Where a plain `mlflow ui` answers."""


def run_link(text: str, record: RunRecord, tracker: Tracker) -> Link:
    """A report's link to a run: on the tracking server, or where a plain `mlflow ui` shows it.

    Args:
        text: what the run is.
        record: of it.
        tracker: where it is.
    """
    page = tracker.registry().link(record.run_id)
    return Link(f"{text}: run {record.run_id} in MLflow", f"{_server(tracker.uri)}/{page}")


def _server(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return PLAIN_UI
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def within_ui(markdown: str, tracker: Tracker) -> str:
    """A report's text for MLflow's UI itself, whose links stay in it at whatever port it answers."""
    return markdown.replace(f"({_server(tracker.uri)}/#", "(#")
