"""Where a run's report and weights lie, how to look at them, and what to do next: lines for the end of a verb."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from imgcls.record import Artifact
from imgcls.run_record import RunRecord
from imgcls.tracking.credentials import redacted
from imgcls.tracking.find_run import short_id
from imgcls.tracking.saved_view import TAG, run_address, view_address
from imgcls.tracking.store import Tracker

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers without further arguments."""


def place_of(record: RunRecord, name: str) -> str:
    """Where to look for an artifact: its path, or for a store elsewhere the command that gets it."""
    if record.folder is None:
        return f"{_mlflow()} artifacts download --run-id {record.run_id} --artifact-path {name}"
    path = record.folder / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _mlflow() -> str:
    """How this shell calls the MLflow that is installed beside this Python.

    Where PATH does not lead to it, as in a shell without `activate`, it leads there for this one command: MLflow itself
    looks on PATH for the web server that it starts.
    """
    beside = Path(sys.executable).with_name("mlflow")
    if not beside.exists() or shutil.which("mlflow") == str(beside):
        return "mlflow"
    return f'PATH={shlex.quote(str(beside.parent))}:"$PATH" mlflow'


def how_to_look(uri: str, root: Path) -> str:
    """How to look at the record: the command that starts MLflow's UI, or the server's address."""
    if uri.startswith("http"):
        return redacted(uri)
    if uri == f"sqlite:///{root.resolve() / 'mlflow.db'}":
        command = f"{_mlflow()} ui"
        return command if Path.cwd() == root.resolve() else f"cd {shlex.quote(str(root.resolve()))} && {command}"
    return f"{_mlflow()} ui --backend-store-uri {shlex.quote(redacted(uri))}"


def how_to_serve(model: str, root: Path) -> str:
    """How to look at a registered model's answers over HTTP: the command that serves it, for this shell."""
    command = f"{_mlflow()} models serve -m {shlex.quote(model)} --env-manager local"
    is_found = "MLFLOW_TRACKING_URI" in os.environ or Path.cwd() == root.resolve()
    return command if is_found else f"cd {shlex.quote(str(root.resolve()))} && {command}"


def how_to_ask(image: str = "photo.jpg", port: int = 5000) -> str:
    """How to look at what a served model answers for an image file: a command for another shell."""
    body = """'{"dataframe_split": {"columns": ["image"], "data": [["%s"]]}}'"""
    encoded = f"\"$(base64 < {shlex.quote(image)} | tr -d '\\n')\""
    url = f"http://127.0.0.1:{port}/invocations"
    return f"printf {body} {encoded} | curl -s -H 'Content-Type: application/json' --data-binary @- {url}"


def places(report_of: RunRecord, weights_of: RunRecord, tracker: Tracker) -> list[tuple[str, str]]:
    """Where to look for a report, the weights that it is about, and the UI: rows of (what, where)."""
    return [
        ("Report", place_of(report_of, Artifact.REPORT_HTML)),
        ("Weights", place_of(weights_of, Artifact.BEST)),
        *ui_places(report_of, tracker),
    ]


def ui_places(shown: RunRecord, tracker: Tracker) -> list[tuple[str, str]]:
    """Where to look for a run in MLflow's UI: how to start it, and the address of the run's page, or a sweep's view."""
    address = redacted(tracker.uri).rstrip("/") if tracker.uri.startswith("http") else UI_ADDRESS
    return [("UI", how_to_look(tracker.uri, tracker.root)), ("Page", address + page_of(shown, tracker))]


def next_verbs(run: RunRecord) -> list[tuple[str, str]]:
    """Where to look further, once a run is there: commands that show and use it, as rows of (what, command)."""
    name = short_id(run)
    return [
        ("Look", f"imgcls ui {run.parent if run.kind in ('trial', 'confirm') else run.run_id}"),
        ("Use it", f"imgcls predict {name} PATHS...  (or imgcls export {name}, imgcls register {name})"),
    ]


def page_of(record: RunRecord, tracker: Tracker) -> str:
    """Where to look for a run below the address of MLflow's UI: at the view of a sweep's trials, or the run's page."""
    experiment = tracker.experiment(record.experiment)
    if record.kind == "sweep" and f"{TAG}{record.study}" in experiment.tags:
        return view_address(experiment.id, record.study)
    return run_address(experiment.id, record.run_id)


def fetch_config(run_id: str) -> str:
    """Where to look for the whole configuration of a run: the command that fetches it, ready to feed a new run."""
    return f"mlflow artifacts download --run-id {run_id} --artifact-path config.toml --dst-path ."
