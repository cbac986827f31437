"""The tracking store: opens, ends and finds runs, and reads what they left."""

import logging
import os
import posixpath
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Run as StoredRun
from mlflow.entities import RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from imgcls.errors import ImgclsError, InputError
from imgcls.files import check_locks
from imgcls.machine_failures import explain
from imgcls.project import MLRUNS, Project
from imgcls.record import STATUS, UNKNOWN, Kind, Outcome, RunRecord, Tag
from imgcls.signals import interruption
from imgcls.stored_names import metrics_of_stored, process_filter, process_of, process_tag, stored_name
from imgcls.tracking.artifact_places import Places
from imgcls.tracking.claims import ClaimedError, claim, claims_id, is_claimed, out_of_sight
from imgcls.tracking.credentials import redacted, scrubbed
from imgcls.tracking.experiments import StoredExperiment, check_experiment, experiment_id
from imgcls.tracking.heartbeat import beating, seconds_to_silence
from imgcls.tracking.mlflow_internals import create_database, quieten, remember_opened
from imgcls.tracking.provenance import git_tags, versions, who_runs
from imgcls.tracking.registry import Registry
from imgcls.tracking.remote_client import RemoteClient, connect, unsent_artifact, waiting_elsewhere
from imgcls.tracking.run import Run, check_artifact_name, fitted_tags
from imgcls.tracking.store_address import check_address, database_behind, for_mlflow, missing_driver, sqlite_address

log = logging.getLogger(__name__)

PLAIN = re.compile(r"[\w ./:+@-]*", re.ASCII)
"""Text that can stand between the quotes of a filter of MLflow."""

NO_SUCH_RUN = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""MLflow's answers to an id that is unknown, or none at all."""

SECONDS_OF_CLOSING = 3.0
"""Seconds for which a run that is taken up may still be held by a process that closes it as an orphan."""

ORPHANED = "its process died"
"""Reason of a run that was found RUNNING without a process."""


class Tracker:
    """A tracking store: `MLFLOW_TRACKING_URI`, else `mlflow.db` at the project's root.

    Attributes:
        root: the project's root, resolved.
        project: where its experiments' paths start.
        uri: of the store.

    Raises:
        InputError: a store that cannot be opened.
    """

    def __init__(self, root: Path) -> None:
        quieten()
        self.root = root.resolve()
        self.project = Project(self.root)
        own = self.root / "mlflow.db"
        self.uri = for_mlflow(os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(own))
        check_address(self.uri)
        try:
            self._database = database = database_behind(self.uri)
            self._keeps_artifacts = database == own or not os.environ.get("MLFLOW_TRACKING_URI")
            self._places = Places(self.root if database == own else None)
            if database is not None:
                create_database(database, database.parent / MLRUNS)
                check_locks(database.parent)  # without them SQLite says that another process holds one
            self._client = connect(self.uri, self.root)
            if database is not None:
                remember_opened(database)
        except ImgclsError:
            raise
        except Exception as error:
            why = missing_driver(error) or f"{type(error).__name__}: {scrubbed(str(error))}; see MLFLOW_TRACKING_URI"
            raise explain(error) or InputError(
                f"the tracking store {redacted(self.uri)} cannot be opened: {why}"
            ) from error

    # --- writing ---

    @contextmanager
    def start_run(
        self, experiment: str, *, kind: Kind, name: str, tags: Mapping[str, str] | None = None, identity: str = ""
    ) -> Iterator[Run]:
        """Creates a run and ends it with the status that its block deserves.

        An Interrupted or KeyboardInterrupt ends it KILLED, any other exception FAILED, each with its reason. Otherwise
        it is FINISHED with `run.outcome`. Two runs share an `identity` if they do the same work.
        """
        all_tags = who_runs() | {Tag.KIND: kind, Tag.OUTCOME: "running"} | dict(tags or {})
        all_tags |= process_tag(self._process() | ({"identity": identity} if identity else {})) | git_tags(self.root)
        with ExitStack() as held:
            # Whoever finds the run before it is claimed finds its opening claimed.
            with claim(self.root, _opening(all_tags[Tag.HOST], all_tags[Tag.PID]), "the opening of a run"):
                created = self._client.create_run(
                    self._experiment_id(experiment), tags=fitted_tags(all_tags), run_name=name
                )
                held.enter_context(self._claim(created.info.run_id))
            run = self._written_to(created)
            with self._writing(run):
                yield run

    @contextmanager
    def reopen_run(self, run_id: str) -> Iterator[Run]:
        """Goes on writing to a run that exists, under this process's name.

        Raises:
            ClaimedError: another process is writing it.
        """
        with self._claim(run_id, patience=SECONDS_OF_CLOSING):
            record = self.get(run_id)
            if self.is_running(record) and record.process.get("claims") != claims_id(self.root):
                host, pid = (record.tags.get(name, UNKNOWN) for name in (Tag.HOST, Tag.PID))
                raise out_of_sight(f"run {run_id}", host, pid, seconds_to_silence(record))
            if Tag.REASON in record.tags:
                self._client.delete_tag(run_id, Tag.REASON)
            run = self.amend(run_id)
            run.process = record.process | self._process()
            run.set_tags(who_runs() | run.heartbeat())
            self._client.update_run(run_id, status="RUNNING")
            run.set_tags({Tag.OUTCOME: "running"})
            with self._writing(run):
                yield run

    def _claim(self, run_id: str, patience: float = 0.0) -> AbstractContextManager[None]:
        return claim(self.root, run_id, f"run {run_id}", patience)

    def amend(self, run_id: str) -> Run:
        """A run that has ended, to add to; its status and its times stay."""
        return self._written_to(self._client.get_run(run_id))

    def _written_to(self, stored: StoredRun) -> Run:
        about = stored.info
        folder = self._places.to_write(about.artifact_uri)
        return Run(self._client, about.run_id, folder, about.start_time, process_of(stored.data.tags))

    def _process(self) -> dict[str, Any]:
        """What a run's record says of this process."""
        return {"versions": versions(), "claims": claims_id(self.root), "heartbeat": int(time.time())}

    @contextmanager
    def _writing(self, run: Run) -> Iterator[Run]:
        try:
            with beating(run):
                yield run
        except BaseException as error:
            stop = interruption(error)
            self.close_run(run.run_id, "interrupted" if stop else "failed", _reason(stop or error))
            raise
        self.close_run(run.run_id, run.outcome, "")

    def close_orphans(self) -> list[RunRecord]:
        """Ends every RUNNING run of imgcls whose process is gone as interrupted, and gives those runs.

        Its command, given again, takes it up where it stood.
        """
        closed = []
        for record in self.find({}, status="RUNNING"):
            if record.kind and not self._has_unsent(record.run_id) and not self.is_running(record):
                with suppress(ClaimedError), self._claim(record.run_id):
                    closed += self._close_orphan(self.get(record.run_id))
        return closed

    def _close_orphan(self, record: RunRecord) -> list[RunRecord]:
        if record.status != "RUNNING":  # somebody was faster
            return []
        if record.outcome in STATUS:  # its process died between the two lines of close_run
            self._client.set_terminated(record.run_id, STATUS[record.outcome])
        else:
            self.close_run(record.run_id, "interrupted", ORPHANED)
        return [record]

    def is_running(self, record: RunRecord) -> bool:
        """Whether a process may be writing a run: by its claim, or by its heartbeat if its claims are not seen here."""
        if record.status != "RUNNING":
            return False
        if record.process.get("claims") != claims_id(self.root):
            return seconds_to_silence(record) > 0
        opening = _opening(record.tags[Tag.HOST], record.tags[Tag.PID])
        # In this order: a run that is being opened is claimed before its opening is over.
        return is_claimed(self.root, opening) or is_claimed(self.root, record.run_id)

    def _has_unsent(self, run_id: str) -> bool:
        """Whether entries of a run still wait to be sent, perhaps its end."""
        return isinstance(self._client, RemoteClient) and bool(self._client.outbox.last_entries(run_id))

    def close_run(self, run_id: str, outcome: Outcome, reason: str) -> None:
        """Ends a run, with the reason unless that is ""."""
        tags = [RunTag(Tag.OUTCOME, outcome)] + ([RunTag(Tag.REASON, reason)] if reason else [])
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, STATUS[outcome])

    def experiment(self, name: str) -> StoredExperiment:
        """The experiment of a run of this store; it is looked up, and not made."""
        return StoredExperiment.named(self._client, name)

    def check_experiment(self, name: str) -> None:
        """Refuses an experiment of this store that takes no runs, before any work; see `check_experiment`."""
        check_experiment(self._client, name, self._places)

    def _experiment_id(self, name: str) -> str:
        folder = self.root / MLRUNS / name if self._keeps_artifacts else None
        return experiment_id(self._client, name, folder, self._places)

    def registry(self) -> Registry:
        """The registry of models of this store."""
        return Registry(self._client, self._places)

    # --- reading ---

    def get(self, run_id: str) -> RunRecord:
        """Reads one run.

        Raises:
            InputError: no such run in this store.
        """
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in NO_SUCH_RUN:
                raise
            raise InputError(
                f"no run {run_id!r} in {self.where()}; `imgcls runs` lists the runs of this store"
            ) from error
        return self._record(run, self._client.get_experiment(run.info.experiment_id).name)

    def find(
        self,
        tags: Mapping[str, str],
        *,
        experiment: str | None = None,
        status: str | None = None,
        with_deleted: bool = False,
        newest: int | None = None,
        prefix: str = "",
        by: Literal["start_time", "end_time"] = "start_time",
        identity: str = "",
    ) -> list[RunRecord]:
        """All runs with these tags, oldest first.

        Args:
            tags: every one must be equal.
            experiment: name of an MLflow experiment; None searches all of them.
            status: MLflow's, such as RUNNING; None for any.
            with_deleted: also deleted runs, and runs of deleted experiments.
            newest: only so many, 1000 at most; the store is spared reading the others.
            prefix: how the run's id begins, in lower-case hexadecimal digits.
            by: what is meant by old and new.
            identity: of its work, in hexadecimal digits; see `start_run`.
        """
        view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
        experiments = {e.experiment_id: e.name for e in self._client.search_experiments(view_type=view)}
        ids = [i for i, name in experiments.items() if experiment in (None, name)]
        # MLflow's filters know no escape for a quote: what has one is compared here alone.
        plain = {key: value for key, value in tags.items() if PLAIN.fullmatch(key) and PLAIN.fullmatch(value)}
        conditions = [f"tags.`{key}` = '{value}'" for key, value in plain.items()]
        conditions += [f"attributes.status = '{status}'"] if status else []
        conditions += [f"attributes.run_id LIKE '{prefix}%'"] if prefix else []
        conditions += [process_filter("identity", identity)] if identity else []
        filter_string = " and ".join(conditions)
        enough = newest if plain == dict(tags) else None
        records: list[RunRecord] = []
        token, order = None, f"attributes.{by} " + ("DESC" if newest else "ASC")
        while ids:
            page = self._client.search_runs(
                ids, filter_string, view, max_results=enough or 1000, order_by=[order], page_token=token
            )
            found = [self._record(run, experiments[run.info.experiment_id]) for run in page]
            records += [record for record in found if tags.items() <= record.tags.items()]
            token = page.token
            if enough or not token:
                break
        return records[:newest][::-1] if newest else records

    def children(self, run_id: str, kind: Kind) -> list[RunRecord]:
        """The runs of a kind below a run, oldest first."""
        return self.find({Tag.PARENT: run_id, Tag.KIND: kind})

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, in order; where a run has both spellings, the newer one comes last."""
        spellings = dict.fromkeys((metric, stored_name(metric)))  # earlier versions stored it as it is called
        points = [point for name in spellings for point in self._client.get_metric_history(run_id, name)]
        return [(point.step, point.value) for point in points]

    @contextmanager
    def fetch(self, run_id: str, name: str) -> Iterator[Path]:
        """An artifact as a file on this machine, for the length of the block.

        Raises:
            InputError: the run has no such artifact, or the name could lead out of its artifacts.
        """
        check_artifact_name(name)
        with unsent_artifact(self._client, run_id, name) as unsent:
            if unsent is not None:
                yield unsent
                return
        uri = self._client.get_run(run_id).info.artifact_uri
        folder = self._places.to_read(uri)
        if folder is not None:
            if not (folder / name).is_file():
                raise InputError(f"run {run_id} has no artifact {name}{self._places.why_missing(uri)}")
            yield folder / name
            return
        # Asked first: MLflow words a missing file like a broken connection, which is worth waiting for.
        if not self._is_listed(run_id, name):
            raise InputError(f"run {run_id} has no artifact {name}")
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(self._client.download_artifacts(run_id, name, temporary))

    def has_artifact(self, run_id: str, name: str) -> bool:
        """Whether a run has left this artifact; a store elsewhere is asked, and nothing is downloaded."""
        with unsent_artifact(self._client, run_id, name) as unsent:
            if unsent is not None:
                return True
        folder = self._places.to_read(self._client.get_run(run_id).info.artifact_uri)
        if folder is not None:
            return (folder / name).is_file()
        return self._is_listed(run_id, name)

    def _is_listed(self, run_id: str, name: str) -> bool:
        return name in [found.path for found in self._client.list_artifacts(run_id, posixpath.dirname(name) or None)]

    def read_text(self, run_id: str, name: str) -> str:
        """The content of a text artifact."""
        with self.fetch(run_id, name) as path:
            return path.read_text(encoding="utf-8")

    def send_unsent(self) -> list[str]:
        """Sends what a tracking server has not got yet; says what was sent and what is left, a line each."""
        sent = self._client.send_unsent() if isinstance(self._client, RemoteClient) else []
        return sent + waiting_elsewhere(self.root, self._client)

    def is_all_sent(self) -> bool:
        """Whether nothing waits for a tracking server, this one or another, and none has refused anything."""
        outbox = self._client.outbox if isinstance(self._client, RemoteClient) else None
        own = outbox is not None and (outbox.pending().num_entries > 0 or bool(outbox.num_refused()))
        return not own and not waiting_elsewhere(self.root, self._client)

    def relocate(self) -> int:
        """Points the store to where the artifacts of a copied or moved project are now; gives how many places changed.

        With a tracking server, what came with a copy and waits to be sent is sent from here: its original is gone.

        Raises:
            InputError: the store is not this project's own.
        """
        if isinstance(self._client, RemoteClient) and self._client.outbox.copied():
            return self._client.outbox.take_up_copied()
        return self._places.relocate()

    def unreachable_artifacts(self) -> int:
        """How many experiments with runs have their artifacts elsewhere than the store says."""
        with_runs = {record.experiment for record in self.find({})}
        experiments = self._client.search_experiments()
        return sum(self._places.is_astray(e.artifact_location) for e in experiments if e.name in with_runs)

    def where(self) -> str:
        """The store, as errors call it."""
        return str(self._database or "the store of MLFLOW_TRACKING_URI")

    def _record(self, run: Any, experiment: str) -> RunRecord:
        return RunRecord(
            run_id=run.info.run_id,
            experiment=experiment,
            name=run.info.run_name or "",
            status=run.info.status,
            started=run.info.start_time,
            ended=run.info.end_time,
            params=dict(run.data.params),
            metrics=metrics_of_stored(run.data.metrics),
            tags=dict(run.data.tags),
            is_deleted=run.info.lifecycle_stage == "deleted",
            folder=self._places.to_remove_from(run.info.artifact_uri),
        )


def _opening(host: str, pid: str) -> str:
    """Name of the claim that a process holds while it opens a run."""
    return f"opening-{host}-{pid}"


def _reason(error: BaseException) -> str:
    """The first line of an error, with its type where it is not one of ours."""
    error = explain(error) or error
    first = scrubbed(str(error)).strip().partition("\n")[0].strip()
    text = first if first and isinstance(error, ImgclsError) else f"{type(error).__name__}: {first}".rstrip(": ")
    return text[:500]
