"""A tracking server, which may be away: what is written to it waits in an outbox, what is asked of it waits for it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import posixpath
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import requests
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, Experiment, FileInfo, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError, Interrupted
from imgcls.record import Tag
from imgcls.signals import stop_requested
from imgcls.tracking.address import scrubbed
from imgcls.tracking.outbox import ARTIFACT, Away, Entry, Outbox, Refused, Unsent

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_ANSWER = 10.0
"""Seconds in which a server has to answer first: nobody waits an hour for an address that was mistyped."""
STOP_GRACE = 3.0
"""Seconds that are still waited after Ctrl-C or SIGTERM."""
NO_PROGRESS = 120.0
"""Seconds after which what a server does not take, though it answers, is waited for no longer."""
SILENCE = 10.0
"""Seconds without an answer after which a wait is spoken of."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts; the last goes on."""
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # by itself MLflow tries for four minutes, and says nothing
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results, and the address may have a password
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def connect(uri: str, root: Path) -> MlflowClient:
    """A client of a tracking store.

    Args:
        uri: of the store.
        root: the project's root.

    Raises:
        InputError: a server that does not answer, or does not let us in.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return MlflowClient(uri)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return RemoteClient(uri, root)


class RemoteClient(MlflowClient):
    """MLflow's client, for a server that may be away for a while.

    What is written (`log_batch`, `log_inputs`, `log_artifact`, `update_run`, `set_terminated`) is on the disk when the
    call returns, and is sent in the background. What is asked waits until the server answers; what this project wrote
    before is sent first, so that it is part of the answer.

    Args:
        uri: http or https.
        root: the project's root.

    Raises:
        InputError: the server does not answer, or does not let us in.
    """

    def __init__(self, uri: str, root: Path) -> None:
        super().__init__(uri)
        self.name = public_uri(uri)
        self.outbox = _outbox(outbox_folder(root, uri), uri)
        # A worker was started by a process that knows the server, and waits for it like that one.
        limit = FIRST_ANSWER if multiprocessing.parent_process() is None else None
        self._ask("opening the store", lambda: super(RemoteClient, self).search_experiments(max_results=1), limit)
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
        delete = super().delete_tag
        self._flush(f"taking up run {run_id}", run_id)

        def delete_once() -> None:
            try:
                delete(run_id, key)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):  # else an answer was lost
                    raise

        self._ask(f"taking up run {run_id}", delete_once)

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
        attempts = 0

        def create() -> Run:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                opened = super(RemoteClient, self).search_runs([experiment_id], f"tags.`{Tag.OPENING}` = '{opening}'")
                if opened:
                    return opened[0]
            return super(RemoteClient, self).create_run(
                experiment_id, start_time, (tags or {}) | {Tag.OPENING: opening}, run_name
            )

        return self._ask(f"opening run {run_name!r}", create)

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, Any] | None = None
    ) -> str:
        """Creates an experiment."""
        create = super().create_experiment
        return self._ask(f"creating experiment {name!r}", lambda: create(name, artifact_location, tags))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Reads an experiment."""
        get = super().get_experiment
        return self._ask("reading an experiment", lambda: get(experiment_id))

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Reads an experiment; None where there is none."""
        get = super().get_experiment_by_name
        return self._ask(f"opening a run of experiment {name!r}", lambda: get(name))

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int | None = 1000,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Lists experiments."""
        search = super().search_experiments
        return self._ask(
            "listing experiments", lambda: search(view_type, max_results, filter_string, order_by, page_token)
        )

    def get_run(self, run_id: str) -> Run:
        """Reads a run, once all that was written to it is sent."""
        get = super().get_run
        self._flush(f"reading run {run_id}", run_id)
        return self._ask(f"reading run {run_id}", lambda: get(run_id))

    def search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """Finds runs, once all that was written to any is sent."""
        search = super().search_runs
        self._flush("reading runs")
        return self._ask(
            "reading runs",
            lambda: search(experiment_ids, filter_string, run_view_type, max_results, order_by, page_token),
        )

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Reads a metric's points, once all that was written to the run is sent."""
        get = super().get_metric_history
        self._flush(f"reading run {run_id}", run_id)
        return self._ask(f"reading run {run_id}", lambda: get(run_id, key))

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """Lists artifacts that the server has."""
        found = super().list_artifacts
        return self._ask(f"looking for artifacts of run {run_id}", lambda: found(run_id, path))

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        """Downloads an artifact.

        Raises:
            MlflowException: the run has none of this name.
        """
        found, download = super().list_artifacts, super().download_artifacts

        def fetch() -> str:
            # MLflow words a missing file like a broken connection, and only one of them is worth waiting for.
            if path not in [file.path for file in found(run_id, posixpath.dirname(path) or None)]:
                raise MlflowException(f"run {run_id} has no artifact {path}", RESOURCE_DOES_NOT_EXIST)
            return download(run_id, path, dst_path)

        return self._ask(f"reading {path} of run {run_id}", fetch)

    # --- waiting ---

    def _ask(self, what: str, call: Callable[[], T], limit: float | None = None) -> T:
        """The answer to a call that is tried until the server gives one.

        Raises:
            InputError: none came within `limit` seconds, or the server does not let us in.
            Interrupted: a stop was requested meanwhile.
            MlflowException: the server refused.
        """
        attempts = _Attempts(call)
        patience = _Patience(self.name, what, limit)
        try:
            while not attempts.over.wait(0.2):
                patience.spend(attempts.trouble, attempts.num_failures)
        finally:
            attempts.abandoned.set()
        patience.end()
        try:
            return attempts.result()
        except Denied as error:
            raise InputError(
                f"the tracking server {self.name} {error}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
                "or MLFLOW_TRACKING_TOKEN"
            ) from None

    def _flush(self, what: str, run_id: str | None = None) -> None:
        """Waits until what is in the outbox now has been sent, by whatever process."""
        last = self.outbox.last_entries(run_id)
        patience = _Patience(self.name, what)
        progress = _Progress(self.outbox)
        while not self.outbox.have_left(last):
            patience.spend(self.outbox.trouble, self.outbox.num_failures)
            if progress.has_ended():
                log.warning("%s goes on without what is unsent: %s", what, self.outbox.pending())
                return
        patience.end()

    def send_unsent(self) -> list[str]:
        """Sends what waits, also what was refused before; says what was sent and what is left, a line each."""
        self.outbox.take_up_refused()
        progress = _Progress(self.outbox)
        while self.outbox.pending().num_entries and self.outbox.num_failures < 2 and not progress.has_ended():
            pass
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


class Denied(Unsent):
    """The server wants other credentials."""


class _Attempts(Generic[T]):
    """A call that is tried on a thread of its own, so that whoever waits for it may leave at any moment."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.over = threading.Event()
        self.abandoned = threading.Event()
        self.trouble: Unsent | None = None
        self.num_failures = 0
        self._call = call
        self._error: Exception | None = None
        threading.Thread(target=self._try, name="asking the tracking server", daemon=True).start()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result

    def _try(self) -> None:
        while not self.abandoned.is_set():
            try:
                self._result = self._call()
            except Exception as error:
                judged = judge(error)
                if isinstance(judged, Unsent) and not isinstance(judged, Denied):
                    self.trouble = judged
                    self.num_failures += 1
                    self.abandoned.wait(PAUSES[min(self.num_failures, len(PAUSES)) - 1])
                    continue
                self._error = judged if isinstance(judged, Denied) else error
            self.over.set()
            return


class _Patience:
    """A wait for the server: a line says that it has begun, and one that it is over."""

    def __init__(self, server: str, what: str, limit: float | None = None) -> None:
        self._server, self._what, self._limit = server, what, limit
        self._started = time.monotonic()
        self._stopped = 0.0
        self._said = False

    def spend(self, trouble: Unsent | None, num_failures: int) -> None:
        """Called a few times a second while the wait lasts.

        Raises:
            InputError: it has lasted for too long.
            Interrupted: a stop was requested.
        """
        now = time.monotonic()
        if self._limit is not None and now - self._started > self._limit:
            raise InputError(
                f"the tracking server {self._server} {trouble or 'does not answer'}; start it or correct "
                "MLFLOW_TRACKING_URI, or unset it to keep the record in mlflow.db here"
            )
        if signal := stop_requested():
            self._stopped = self._stopped or now
            if now - self._stopped > STOP_GRACE:
                raise Interrupted(f"stopped by {signal} while {self._what} waited for the tracking server")
        if not self._said and self._limit is None and (num_failures >= 2 or now - self._started > SILENCE):
            self._said = True
            log.warning(
                "%s waits: the tracking server %s %s; runs that are open train on, and what they write waits on the "
                "disk; Ctrl-C ends the wait", self._what, self._server, trouble or "has not answered yet",
            )  # fmt: skip

    def end(self) -> None:
        """The server has answered."""
        if self._said:
            log.warning("%s goes on after %.0f s", self._what, time.monotonic() - self._started)


class _Progress:
    """Whether an outbox is still getting emptier, or at least its server is away, which passes."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._started = self._moved = self._rung = time.monotonic()
        self._pending: object = None
        outbox.hurry()

    def has_ended(self) -> bool:
        """Waits a little, then looks."""
        now = time.monotonic()
        time.sleep(0.02 if now - self._started < 1 else 0.2)
        if now - self._rung > 2:
            self._rung = now
            self._outbox.hurry()
        pending = self._outbox.pending()
        if pending != self._pending or isinstance(self._outbox.trouble, Away):
            self._pending, self._moved = pending, now
        return now - self._moved > NO_PROGRESS


# --- where things lie ---


def public_uri(uri: str) -> str:
    """The address of a server without what may be secret in it: user, password, query."""
    parts = urlsplit(uri)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")


def outbox_folder(root: Path, uri: str) -> Path:
    """Where what a server has not got yet waits; the name says which server."""
    return root / "mlruns" / ".outbox" / quote(public_uri(uri), safe="")


def waiting_elsewhere(root: Path, client: MlflowClient) -> list[str]:
    """What waits for servers other than a client's, a line each."""
    own = client.outbox.folder if isinstance(client, RemoteClient) else None
    lines = []
    for folder in sorted((root / "mlruns" / ".outbox").glob("*")):
        if folder == own:
            continue
        pending = Outbox(folder, "", partial(_deliver, client)).pending()  # looked at, and never started
        if pending.num_entries:
            lines.append(
                f"unsent: {pending}, for the tracking server {unquote(folder.name)}; set MLFLOW_TRACKING_URI to it, "
                "and `imgcls doctor` sends them"
            )
    return lines


@contextmanager
def folder_to_write_in(client: MlflowClient) -> Iterator[Path]:
    """A temporary folder for an artifact that is about to be logged."""
    if isinstance(client, RemoteClient):
        with client.outbox.writing() as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def unsent_artifact(client: MlflowClient, run_id: str, name: str) -> Iterator[Path | None]:
    """The artifact of a run where it has not been sent yet, for the length of the block."""
    if isinstance(client, RemoteClient):
        with client.outbox.staged(run_id, name) as path:
            yield path
        return
    yield None


@cache
def _outbox(folder: Path, uri: str) -> Outbox:
    """One for a process: its trackers write to the same files."""
    return Outbox(folder, public_uri(uri), partial(_deliver, MlflowClient(uri)))


# --- what is sent, and what comes of it ---


def _deliver(client: MlflowClient, run_id: str, entry: Entry, path: Path | None) -> None:
    try:
        _send(client, run_id, entry, path)
    except Exception as error:
        raise judge(error) or Unsent(f"could not be sent {entry['op']} of run {run_id} ({_reason(error)})") from None


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


def judge(error: Exception) -> Unsent | Refused | None:
    """What an exception of MLflow's client says of the server; None where it says nothing.

    Returns:
        Away where nobody answers, Denied where other credentials are wanted, Unsent for trouble that may pass
        (5xx, 408, 429, and a 404 of a proxy), Refused for every other answer of 4xx.
    """
    if isinstance(error, Unsent | Refused):
        return error
    for link in _chain(error):
        if isinstance(link, requests.HTTPError) and link.response is not None:
            return _judge_status(link.response.status_code, '"error_code"' in link.response.text, error)
        if isinstance(link, requests.ReadTimeout):  # a large file, perhaps: what else there is can be sent
            return Unsent("does not answer in time")
        if isinstance(link, requests.Timeout):
            return Away("does not answer in time")
        if isinstance(link, requests.ConnectionError | ConnectionError | TimeoutError):
            return Away(f"does not answer ({_reason(error)})")
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return _judge_status(status, error.error_code != "ENDPOINT_NOT_FOUND", error)
    return None


def _judge_status(status: int, by_mlflow: bool, error: Exception) -> Unsent | Refused:
    if status in (401, 403):
        return Denied(f"wants other credentials (HTTP {status})")
    if status >= 500 or status in (408, 429) or (status == 404 and not by_mlflow):
        return Unsent(f"cannot serve us now (HTTP {status}: {_reason(error)})")
    return Refused(_reason(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str:
    """The innermost reason that the system gives, else the first line of the message."""
    system = [link.strerror for link in _chain(error) if isinstance(link, OSError) and link.strerror]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return scrubbed(system[-1] if system else lines[0])[:300]
