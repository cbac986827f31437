"""The client of a remote tracking server that may be away: what is written waits in an outbox, and questions wait."""

from __future__ import annotations

import logging
import multiprocessing
import os
import posixpath
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from imgcls.project import MLRUNS
from imgcls.stored_names import process_filter, process_of, process_tag
from imgcls.tracking.claims import claims_id
from imgcls.tracking.outbox import Outbox
from imgcls.tracking.outbox_files import ARTIFACT, Entry, OutboxFiles
from imgcls.tracking.server_errors import Refused, Unsent, classify, reason
from imgcls.tracking.server_wait import Patience, answer, while_progressing

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_ANSWER = 30.0
"""Seconds in which a server has to answer first: one that starts may need 20, and nobody waits an hour for a typo."""

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # by itself MLflow tries for four minutes, and says nothing
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results, and the address may have a password
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def connect(uri: str, root: Path) -> MlflowClient:
    """The client for a tracking store, a remote one where it is a server.

    Raises:
        InputError: a server that does not answer, or does not let us in.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return MlflowClient(uri)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return RemoteClient(uri, root)


def _asked(name: str, what: str, after: Literal["", "run", "all"] = "") -> Callable[..., Any]:
    """A method of MLflow's client that waits until the server answers.

    Args:
        name: of the method.
        what: it does, for messages; `{}` stands for its first argument.
        after: what was written to the run that the first argument names, or to all, is sent before.
    """

    def ask(self: RemoteClient, *args: Any, **kwargs: Any) -> Any:
        doing = what.format(*args)
        if after:
            self._flush(doing, args[0] if after == "run" else None)
        return self._ask(doing, partial(getattr(super(RemoteClient, self), name), *args, **kwargs))

    return ask


class RemoteClient(MlflowClient):
    """The client of a remote server that may be away for a while; otherwise it is MLflow's own.

    What is written (`log_batch`, `log_inputs`, `log_artifact`, `update_run`, `set_terminated`) is on the disk when the
    call returns, and is sent in the background. What is asked waits until the server answers; what this project wrote
    before is sent first, so that it is part of the answer.
    """

    def __init__(self, uri: str, root: Path) -> None:
        super().__init__(uri)
        self.name = public_uri(uri)
        self.outbox = _outbox(root, outbox_folder(root, uri), uri)
        # A worker was started by a process that knows the server, and waits for it like that one.
        limit = FIRST_ANSWER if multiprocessing.parent_process() is None else None
        self._ask("opening the store", partial(super().search_experiments, max_results=1), limit)
        self.outbox.start()

    # --- what is written ---

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,  # noqa: ARG002
    ) -> None:
        """Writes metrics, params and tags into the outbox."""
        self.outbox.append(
            run_id,
            {
                "op": "batch",
                "metrics": [[m.key, m.value, m.timestamp, m.step] for m in metrics],
                "params": [[p.key, p.value] for p in params],
                "tags": [[t.key, t.value] for t in tags],
            },
        )

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput] | None = None, models: Any = None) -> None:
        """Writes links to data sets into the outbox."""
        if models:
            raise NotImplementedError("links to models are not written into the outbox")
        entries = [
            {"dataset": dict(link.dataset), "tags": [[tag.key, tag.value] for tag in link.tags]}
            for link in datasets or ()
        ]
        self.outbox.append(run_id, {"op": "inputs", "datasets": entries})

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Writes a new status or name into the outbox."""
        self.outbox.append(run_id, {"op": "update", "status": status, "name": name})

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """Writes a run's end into the outbox, with the time of this call."""
        end_time = end_time or int(time.time() * 1000)
        self.outbox.append(run_id, {"op": "end", "status": status, "end_time": end_time})

    def delete_tag(self, run_id: str, key: str) -> None:
        """Removes a tag, once all that was written to the run is sent."""
        try:
            self._ask_to_delete_tag(run_id, key)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):  # else an answer was lost
                raise

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Puts a file into the outbox."""
        path = Path(local_path)
        self.outbox.append_artifact(run_id, f"{artifact_path}/{path.name}" if artifact_path else path.name, path)

    # --- what is asked ---

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Opens a run, once: where an answer was lost, the run that was opened is found by its tag."""
        opening = uuid4().hex
        tags = {**(tags or {}), **process_tag({**process_of(tags or {}), "opening": opening})}
        attempts = 0

        def create() -> Run:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                opened = super(RemoteClient, self).search_runs([experiment_id], process_filter("opening", opening))
                if opened:
                    return opened[0]
            return super(RemoteClient, self).create_run(experiment_id, start_time, tags, run_name)

        return self._ask(f"opening run {run_name!r}", create)

    create_experiment = _asked("create_experiment", "creating experiment {!r}")
    get_experiment = _asked("get_experiment", "reading an experiment")
    set_experiment_tag = _asked("set_experiment_tag", "describing an experiment")
    get_experiment_by_name = _asked("get_experiment_by_name", "opening a run of experiment {!r}")
    search_experiments = _asked("search_experiments", "listing experiments")
    get_run = _asked("get_run", "reading run {}", after="run")
    search_runs = _asked("search_runs", "reading runs", after="all")
    get_metric_history = _asked("get_metric_history", "reading run {}", after="run")
    list_artifacts = _asked("list_artifacts", "looking for artifacts of run {}")
    download_artifacts = _asked("download_artifacts", "reading {1} of run {0}")
    get_model_version_by_alias = _asked("get_model_version_by_alias", "reading registered model {}")
    get_model_version = _asked("get_model_version", "reading registered model {}")
    search_registered_models = _asked("search_registered_models", "reading the registered models")
    search_model_versions = _asked("search_model_versions", "reading the registered models")
    create_registered_model = _asked("create_registered_model", "registering model {}")
    create_logged_model = _asked("create_logged_model", "registering a model")
    log_model_artifacts = _asked("log_model_artifacts", "sending the files of model {}")
    finalize_logged_model = _asked("finalize_logged_model", "registering model {}")
    create_model_version = _asked("create_model_version", "registering a version of model {}")
    update_model_version = _asked("update_model_version", "describing a version of model {}")
    set_model_version_tag = _asked("set_model_version_tag", "describing a version of model {}")
    set_registered_model_alias = _asked("set_registered_model_alias", "moving alias {1} of model {0}")
    _ask_to_delete_tag = _asked("delete_tag", "taking up run {}", after="run")

    # --- waiting ---

    def _ask(self, what: str, call: Callable[[], T], limit: float | None = None) -> T:
        return answer(self.name, what, call, limit)

    def _flush(self, what: str, run_id: str | None = None) -> None:
        """Waits until what is in the outbox now has been sent, by whatever process."""
        last = self.outbox.last_entries(run_id)
        patience = Patience(self.name, what)
        for _ in while_progressing(self.outbox):
            if self.outbox.have_left(last):
                patience.end()
                return
            patience.spend(self.outbox.trouble, self.outbox.num_failures)
        log.warning("%s goes on without what is unsent: %s", what, self.outbox.pending())

    def send_unsent(self) -> list[str]:
        """Sends what waits, also what was refused before; says what was sent and what is left, a line each."""
        self.outbox.take_up_refused()
        for _ in while_progressing(self.outbox):
            if not self.outbox.pending().num_entries or self.outbox.num_failures >= 2:
                break
        left = self.outbox.pending()
        lines = [f"{self.outbox.num_sent} entries sent to the tracking server {self.name}"]
        if left.num_entries:
            lines.append(f"unsent: {left}: the server {self.outbox.trouble or 'is being sent them by another process'}")
        if copied := self.outbox.copied():
            lines.append(
                f"{len(copied)} runs with entries came with this copy and are left to the original to send; if it is "
                "gone: imgcls doctor --relocate"
            )
        return lines + [
            f"{count} entries refused by the server: {file}" for file, count in self.outbox.num_refused().items()
        ]


# --- where things lie ---


def public_uri(uri: str) -> str:
    """A remote client's server: its address without user, password and query, which may be secret."""
    parts = urlsplit(uri)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")


def outbox_folder(root: Path, uri: str) -> Path:
    """A remote client's folder for its outbox, whose name says which server."""
    return root / MLRUNS / ".outbox" / quote(public_uri(uri), safe="")


def waiting_elsewhere(root: Path, client: MlflowClient) -> list[str]:
    """A remote client's lines on what waits in outboxes for servers other than its own."""
    own = client.outbox.folder if isinstance(client, RemoteClient) else None
    others = [folder for folder in sorted((root / MLRUNS / ".outbox").glob("*")) if folder != own]
    return [
        f"unsent: {pending}, for the tracking server {unquote(folder.name)}; set MLFLOW_TRACKING_URI to it, and "
        "`imgcls doctor` sends them"
        for folder in others
        if (pending := OutboxFiles(folder).pending()).num_entries
    ]


def say_alive(client: MlflowClient, run_id: str, process: Mapping[str, str]) -> None:
    """A client's heartbeat of a run: a remote one sends it past the outbox, and not where another has the run now.

    Raises:
        Exception: whatever the client raises, such as for a server that is away.
    """
    if isinstance(client, RemoteClient):
        recorded = process_of(MlflowClient.get_run(client, run_id).data.tags)
        if recorded.get("claims") != process_of(process).get("claims"):
            return
    MlflowClient.log_batch(client, run_id, tags=[RunTag(key, value) for key, value in process.items()])


def folder_to_write_in(client: MlflowClient) -> AbstractContextManager[Path | str]:
    """A client's temporary folder for an artifact that the client, remote or not, is about to log."""
    return client.outbox.writing() if isinstance(client, RemoteClient) else tempfile.TemporaryDirectory()


def unsent_artifact(client: MlflowClient, run_id: str, name: str) -> AbstractContextManager[Path | None]:
    """A remote client's artifact that it has not sent to the server yet, for the length of the block; else None."""
    return client.outbox.staged(run_id, name) if isinstance(client, RemoteClient) else nullcontext()


@cache
def _outbox(root: Path, folder: Path, uri: str) -> Outbox:
    """One for a process: its trackers write to the same files."""
    client = MlflowClient(uri)
    return Outbox(folder, public_uri(uri), partial(_deliver, client), partial(_owner, client), partial(claims_id, root))


def _owner(client: MlflowClient, run_id: str) -> str:
    """The claims under which a run is written now, for the outbox; raises Unsent, Away or Refused."""
    try:
        return str(process_of(client.get_run(run_id).data.tags).get("claims", ""))
    except Exception as error:
        raise classify(error) or Unsent(f"run {run_id} could not be read ({reason(error)})") from None


def _deliver(client: MlflowClient, run_id: str, entry: Entry, path: Path | None) -> None:
    """Sends an entry of the outbox, with the file of an artifact; raises Unsent, Away or Refused."""
    try:
        _send(client, run_id, entry, path)
    except Exception as error:
        raise classify(error) or Unsent(f"could not be sent {entry['op']} of run {run_id} ({reason(error)})") from None


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
        raise Refused(f"it is not an entry: {entry['op']}")
