"""Reads runs from a tracking store: finds them, and gives the histories of their metrics and their artifacts."""

import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mlflow.entities import Run as StoredRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError
from imgcls.record import Kind, Tag
from imgcls.run_record import RunRecord
from imgcls.stored_names import metrics_of_stored, process_filter, stored_name
from imgcls.tracking.artifact_places import Places
from imgcls.tracking.remote_client import unsent_artifact
from imgcls.tracking.run import check_artifact_name

PLAIN = re.compile(r"[\w ./:+@-]*", re.ASCII)
"""Text that can stand between the quotes of a filter of MLflow."""

NO_SUCH_RUN = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""MLflow's answers to an id that is unknown, or none at all."""


class RunReader:
    """Reads the runs of one tracking store.

    Args:
        client: MLflow's client of the store.
        places: where its artifacts lie on this machine.
        name: of the store, as errors call it.
    """

    def __init__(self, client: MlflowClient, places: Places, name: str) -> None:
        self._client = client
        self._places = places
        self._name = name

    def where(self) -> str:
        """The store, as errors call it."""
        return self._name

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
                f"no run {run_id!r} in {self._name}; `imgcls runs` lists the runs of this store"
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

    def _record(self, run: StoredRun, experiment: str) -> RunRecord:
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
