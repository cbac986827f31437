"""The experiments of a tracking store: each is made when its first run begins, with its artifacts in a known place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from mlflow.entities import Experiment as StoredByMlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError
from imgcls.tracking.artifact_places import Places


def experiment_id(client: MlflowClient, name: str, folder: Path | None, places: Places) -> str:
    """The id of the experiment with this name, which is made where the store has none.

    Args:
        client: of the store.
        name: of the experiment.
        folder: for its artifacts; None leaves them where the store puts them.
        places: where the artifacts of the store lie.

    Raises:
        InputError: the experiment was deleted, or its artifacts cannot be written from here.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=None if folder is None else folder.as_uri()))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
            assert found is not None
    _check_open(found, places)
    return str(found.experiment_id)


def check_experiment(client: MlflowClient, name: str, places: Places) -> None:
    """Refuses an experiment that exists and takes no runs.

    Raises:
        InputError: the experiment was deleted, or its artifacts cannot be written from here.
    """
    if (found := client.get_experiment_by_name(name)) is not None:
        _check_open(found, places)


def _check_open(found: StoredByMlflow, places: Places) -> None:
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"the MLflow experiment {found.name!r} was deleted; restore it "
            f"(mlflow experiments restore -x {found.experiment_id}) or give this one another name"
        )
    places.to_write(found.artifact_location)


class StoredExperiment:
    """An experiment of the store: `id` is MLflow's."""

    def __init__(self, client: MlflowClient, id_: str) -> None:
        self.id = id_
        self._client = client

    @classmethod
    def named(cls, client: MlflowClient, name: str) -> Self:
        """The experiment with this name, deleted or not.

        Raises:
            InputError: the store has none.
        """
        if (found := client.get_experiment_by_name(name)) is None:
            raise InputError(f"the store has no experiment {name!r}; a first run makes it: imgcls train {name}")
        return cls(client, str(found.experiment_id))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets those tags that it does not have, or has with another value."""
        present = self.tags
        for name, value in tags.items():
            if present.get(name) != value:
                self._client.set_experiment_tag(self.id, name, value)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags as they are now."""
        return dict(self._client.get_experiment(self.id).tags)
