"""Sends an entry of the outbox to the tracking server."""

from __future__ import annotations

import posixpath
from pathlib import Path

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from imgcls.tracking.outbox_files import ARTIFACT, Entry
from imgcls.tracking.server_errors import Refused, Unsent, judge, reason


def deliver(client: MlflowClient, run_id: str, entry: Entry, path: Path | None) -> None:
    """Sends it.

    Args:
        client: of the server.
        run_id: of the run that the entry belongs to.
        entry: as `RemoteClient` wrote it.
        path: of the file, for an artifact.

    Raises:
        Unsent: the server did not take it now.
        Refused: the server will never take it.
    """
    try:
        _send(client, run_id, entry, path)
    except Exception as error:
        raise judge(error) or Unsent(f"could not be sent {entry['op']} of run {run_id} ({reason(error)})") from None


def _send(client: MlflowClient, run_id: str, entry: Entry, path: Path | None) -> None:
    if entry["op"] == "batch":
        client.log_batch(
            run_id,
            metrics=[Metric(*metric) for metric in entry["metrics"]],
            params=[Param(*param) for param in entry["params"]],
            tags=[RunTag(*tag) for tag in entry["tags"]],
        )
    elif entry["op"] == "inputs":
        links = [
            DatasetInput(MlflowDataset(**dataset["dataset"]), [InputTag(*tag) for tag in dataset["tags"]])
            for dataset in entry["datasets"]
        ]
        client.log_inputs(run_id, links)
    elif entry["op"] == "update":
        client.update_run(run_id, status=entry["status"], name=entry["name"])
    elif entry["op"] == "end":
        client.set_terminated(run_id, status=entry["status"], end_time=entry["end_time"])
    elif entry["op"] == ARTIFACT:
        client.log_artifact(run_id, str(path), posixpath.dirname(entry["name"]) or None)
    else:
        raise Refused(f"it is no entry: {entry['op']}")
