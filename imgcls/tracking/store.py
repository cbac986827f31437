"""The tracking store: opens it, and begins, takes up, writes and ends its runs."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow.entities import Run as StoredRun
from mlflow.entities import RunTag

from imgcls.errors import ImgclsError, InputError, LeaseLost, OutOfTime
from imgcls.files import check_locks
from imgcls.machine_failures import explain
from imgcls.project import MLRUNS, Project
from imgcls.record import STATUS, UNKNOWN, Kind, Outcome, Tag
from imgcls.run_record import RunRecord
from imgcls.signals import interruption
from imgcls.stored_names import process_of, process_tag
from imgcls.tracking.artifact_places import Places
from imgcls.tracking.claims import ClaimedError, claim, claims_id, is_claimed, out_of_sight
from imgcls.tracking.credentials import redacted, scrubbed
from imgcls.tracking.experiments import StoredExperiment, check_experiment, experiment_id
from imgcls.tracking.guard import Guard
from imgcls.tracking.heartbeat import beating, seconds_to_silence
from imgcls.tracking.mlflow_internals import create_database, quieten, remember_opened
from imgcls.tracking.provenance import git_tags, versions, who_runs
from imgcls.tracking.registry import Registry
from imgcls.tracking.remote_client import RemoteClient, connect, waiting_elsewhere
from imgcls.tracking.run import Run, fitted_tags
from imgcls.tracking.run_reader import RunReader
from imgcls.tracking.store_address import (
    check_address,
    check_is_local,
    database_behind,
    for_mlflow,
    missing_driver,
    sqlite_address,
)

log = logging.getLogger(__name__)

SECONDS_OF_CLOSING = 3.0
"""Seconds for which a run that is taken up may still be held by a process that closes it as an orphan."""

_opens = threading.Lock()
"""Of the thread that opens a run: a process has one claim for all of its openings."""

ORPHANED = "its process died"
"""Reason of a run that was found RUNNING without a process."""


class Tracker(RunReader):
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
        self._guard = Guard()
        own = self.root / "mlflow.db"
        self.uri = for_mlflow(os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(own))
        check_address(self.uri)
        try:
            database = database_behind(self.uri)
            self._keeps_artifacts = database == own or not os.environ.get("MLFLOW_TRACKING_URI")
            places = Places(self.root if database == own else None)
            if database is not None:
                check_is_local(database)
                create_database(database, database.parent / MLRUNS)
                check_locks(database.parent)  # without them SQLite says that another process holds one
            client = connect(self.uri, self.root)
            if database is not None:
                remember_opened(database)
        except ImgclsError:
            raise
        except Exception as error:
            why = missing_driver(error) or f"{type(error).__name__}: {scrubbed(str(error))}; see MLFLOW_TRACKING_URI"
            raise explain(error) or InputError(
                f"the tracking store {redacted(self.uri)} cannot be opened: {why}"
            ) from error
        super().__init__(client, places, str(database or "the store of MLFLOW_TRACKING_URI"))

    @contextmanager
    def guarded(self, guard: Guard) -> Iterator[None]:
        """Within the block, a guard is asked before anything is written to a run."""
        before, self._guard = self._guard, guard
        try:
            yield
        finally:
            self._guard = before

    @contextmanager
    def start_run(
        self, experiment: str, *, kind: Kind, name: str, tags: Mapping[str, str] | None = None, identity: str = ""
    ) -> Iterator[Run]:
        """Creates a run and ends it with the status that its block deserves.

        An Interrupted or KeyboardInterrupt ends it KILLED, an OutOfTime SCHEDULED, any other exception FAILED, each
        with its reason. Otherwise it is FINISHED with `run.outcome`. Two runs share an `identity` if they do the same
        work.
        """
        all_tags = who_runs() | {Tag.KIND: kind, Tag.OUTCOME: "running"} | dict(tags or {})
        all_tags |= process_tag(self._process() | ({"identity": identity} if identity else {})) | git_tags(self.root)
        with ExitStack() as held:
            # Whoever finds the run before it is claimed finds its opening claimed.
            self._guard.check()
            with _opens, claim(self.root, _opening(all_tags[Tag.HOST], all_tags[Tag.PID]), "the opening of a run"):
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
            ClaimedError: another process is writing it, and the tracker has no guard that takes it over.
        """
        with self._claim(run_id, patience=SECONDS_OF_CLOSING, takes_over=self._guard.takes_over):
            record = self.get(run_id)
            is_seen = record.process.get("claims") == claims_id(self.root)
            if not (is_seen or self._guard.is_everywhere) and self.is_running(record):
                host, pid = (record.tags.get(name, UNKNOWN) for name in (Tag.HOST, Tag.PID))
                raise out_of_sight(f"run {run_id}", host, pid, seconds_to_silence(record))
            self._guard.check()
            if Tag.REASON in record.tags:
                self._client.delete_tag(run_id, Tag.REASON)
            run = self.amend(run_id)
            run.process = record.process | self._process()
            run.set_tags(who_runs() | run.heartbeat())
            self._client.update_run(run_id, status="RUNNING")
            run.set_tags({Tag.OUTCOME: "running"})
            with self._writing(run):
                yield run

    def _claim(self, run_id: str, patience: float = 0.0, *, takes_over: bool = False) -> AbstractContextManager[None]:
        return claim(self.root, run_id, f"run {run_id}", patience, takes_over=takes_over)

    def amend(self, run_id: str) -> Run:
        """A run that has ended, to add to; its status and its times stay."""
        return self._written_to(self._client.get_run(run_id))

    def _written_to(self, stored: StoredRun) -> Run:
        about = stored.info
        folder = self._places.to_write(about.artifact_uri)
        process = process_of(stored.data.tags)
        return Run(self._client, about.run_id, folder, about.start_time, process, self._guard.check)

    def _process(self) -> dict[str, Any]:
        """What a run's record says of this process."""
        return {"versions": versions(), "claims": claims_id(self.root), "heartbeat": int(time.time())}

    @contextmanager
    def _writing(self, run: Run) -> Iterator[Run]:
        try:
            with beating(run):
                yield run
        except LeaseLost:
            raise  # whoever has taken over the run writes how it ends
        except BaseException as error:
            stop = interruption(error)
            stopped: Outcome = "paused" if isinstance(stop, OutOfTime) else "interrupted"
            self.close_run(run.run_id, stopped if stop else "failed", _reason(stop or error))
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
        self._guard.check()
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

    # --- the store itself ---

    def send_unsent(self) -> list[str]:
        """Sends what a tracking server has not got yet; says what was sent and what is left, a line each."""
        sent = self._client.send_unsent() if isinstance(self._client, RemoteClient) else []
        return sent + waiting_elsewhere(self.root, self._client)

    def wait_until_sent(self) -> None:
        """Waits some seconds for a tracking server to get what this project has for it, unless the server is away."""
        if isinstance(self._client, RemoteClient):
            self._client.outbox.farewell()

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


def _opening(host: str, pid: str) -> str:
    """Name of the claim that a process holds while it opens a run."""
    return f"opening-{host}-{pid}"


def _reason(error: BaseException) -> str:
    """The first line of an error, with its type where it is not one of ours."""
    error = explain(error) or error
    first = scrubbed(str(error)).strip().partition("\n")[0].strip()
    text = first if first and isinstance(error, ImgclsError) else f"{type(error).__name__}: {first}".rstrip(": ")
    return text[:500]
