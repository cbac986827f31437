"""A run that is being written: its params, metrics, tags, data sets and artifacts."""

import hashlib
import json
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError
from imgcls.files import written_aside
from imgcls.record import Artifact, Outcome, Tag
from imgcls.stored_names import process_tag, stored_name
from imgcls.tracking.mlflow_internals import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH, is_duplicate_row
from imgcls.tracking.remote_client import folder_to_write_in, say_alive

PARAMS_PER_CALL = 100
"""MLflow's limit for one log_batch call."""

ARTIFACT_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
"""Names that cannot lead out of a run's folder and are the same on every system."""


class Run:
    """A run of MLflow that is being written; it began at `started` milliseconds since 1970.

    The folder of its artifacts is None for a remote store. `process` is what the record says of the process that writes
    it; whoever holds the run's claim is the only one to write that, so nothing is read before it is written again.
    `check` is asked before anything is written; see `guard.Guard`.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, folder: Path | None, started: int, process: Mapping[str, Any],
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.run_id = run_id
        self.process = process
        self.started = started
        self.outcome: Outcome = "completed"
        self.folder = folder
        self._client = client
        self._check = check

    def log_params(self, params: Mapping[str, str]) -> None:
        """Logs parameters; the same value again is accepted. One that is too long is cut and says where it is whole."""
        whole_in = f"whole in {Artifact.CONFIG}"
        self._check()
        entities = [Param(key, fitted(value, MAX_PARAM_VAL_LENGTH, whole_in)) for key, value in params.items()]
        for start in range(0, len(entities), PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=entities[start : start + PARAMS_PER_CALL])

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, tags: Mapping[str, str] | None = None, at: int | None = None
    ) -> None:
        """Logs metrics after `step` completed epochs, and tags, in a single call.

        The time `at`, in milliseconds since 1970, is now by default. The same point with the same time is stored once.
        """
        self._check()
        now = int(time.time() * 1000) if at is None else at
        self._client.log_batch(
            self.run_id,
            metrics=[Metric(stored_name(key), float(value), now, step) for key, value in metrics.items()],
            tags=[RunTag(key, value) for key, value in fitted_tags(tags or {}).items()],
        )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags; those that exist are replaced."""
        self.log_metrics({}, tags=tags)

    def remove_tags(self, names: Sequence[str]) -> None:
        """Removes tags that exist."""
        self._check()
        for name in names:
            self._client.delete_tag(self.run_id, name)

    def heartbeat(self) -> dict[str, str]:
        """The tag that says that the process which writes the run is alive now."""
        return process_tag({**self.process, "heartbeat": int(time.time())})

    def beat(self) -> None:
        """Says that this process is alive, now or not at all: said later, it would take the run from its next owner."""
        self._check()
        say_alive(self._client, self.run_id, self.heartbeat())

    def describe(self, markdown: str) -> None:
        """Sets the description that MLflow's UI shows on the run's page."""
        self.set_tags({Tag.DESCRIPTION: markdown})

    def log_dataset(self, name: str, context: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Links a data set to the run, such as its train split."""
        dataset = MlflowDataset(
            name=name, digest=digest, source_type="imgcls", source=source, profile=json.dumps(profile)
        )
        self._check()
        links = [DatasetInput(dataset, [InputTag(Tag.DATASET_SPLIT, context)])]
        try:
            self._client.log_inputs(self.run_id, links)
        except MlflowException as error:
            if not is_duplicate_row(error):
                raise
            # A run that began at the same moment was the first to name this data set, which can be linked now.
            self._client.log_inputs(self.run_id, links)

    @contextmanager
    def artifact(self, name: str) -> Iterator[Path]:
        """A path to write the artifact `name` to; it is in the record when the block ends.

        In a local store that is beside the artifact's own place, so nothing is copied.

        Raises:
            InputError: a name that could lead out of the run's artifacts.
        """
        check_artifact_name(name)
        if self.folder is not None:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                yield aside
                self._check()
            return
        with folder_to_write_in(self._client) as folder:
            path = Path(folder) / Path(name).name
            yield path
            self._check()
            self._client.log_artifact(self.run_id, str(path), posixpath.dirname(name) or None)

    def log_text(self, name: str, text: str) -> None:
        """Writes a text artifact; at any instant it is whole or not there."""
        self.log_bytes(name, text.encode())

    def log_bytes(self, name: str, content: bytes) -> None:
        """Writes a binary artifact; at any instant it is whole or not there."""
        with self.artifact(name) as path:
            path.write_bytes(content)


def fitted_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A run's own tags as they are written, shortened to what MLflow keeps."""
    return {key: fitted(value, MAX_TAG_VAL_LENGTH, "cut off here") for key, value in tags.items()}


def fitted(value: str, most: int, rest: str) -> str:
    """A run's param or tag, shortened to `most` characters; MLflow would cut off its end without a word.

    What is left says how long it was, its digest, so that two different ones stay different, and where the rest is.
    """
    if len(value) <= most:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:16]
    told = f" … ({len(value)} characters, SHA-256 {digest}, {rest})"
    return value[: most - len(told)] + told


def check_artifact_name(name: str) -> None:
    """A run takes no artifact whose name could lead out of its folder: such a name is refused.

    Raises:
        InputError: naming what may stand there.
    """
    if not ARTIFACT_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be an artifact's name: use letters, digits, dots, hyphens and underscores, with / "
            "between folders, and begin no part with a dot"
        )
