"""Links of a report to the pages on which MLflow's UI shows runs."""

from urllib.parse import urlsplit

from imgcls.reporting.report import Link
from imgcls.reporting.where_to_look import UI_ADDRESS, page_of
from imgcls.run_record import RunRecord
from imgcls.tracking.store import Tracker


def run_link(text: str, record: RunRecord, tracker: Tracker) -> Link:
    """A report's link to a run: on the tracking server, or where a plain `mlflow ui` shows it.

    Args:
        text: what the run is.
        record: of it.
        tracker: where it is.
    """
    return Link(f"{text}: run {record.run_id} in MLflow", f"{_server(tracker.uri)}{page_of(record, tracker)}")


def _server(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return UI_ADDRESS
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def within_ui(markdown: str, tracker: Tracker) -> str:
    """A report's text for MLflow's UI itself, whose links stay in it at whatever port it answers."""
    return markdown.replace(f"({_server(tracker.uri)}/#", "(#")
