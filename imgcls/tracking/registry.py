"""MLflow's model registry: the versions of a model, and which of them has an alias such as `champion`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError
from imgcls.record import VersionTag
from imgcls.text import did_you_mean
from imgcls.tracking.artifact_places import Places

ALIAS = re.compile(r"[\w-]+")
"""What MLflow accepts as an alias, besides the reserved ones."""

RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)

MOST_CHARACTERS = 255
"""Most characters of a name or an alias; MLflow's tables hold no more."""

MODEL_NAME = "served-model"
"""Name of the logged model of MLflow whose files a version points to."""

REGISTERED = "models:/"
"""How the address of a registered version begins."""

ADDRESS = re.compile(r"models:/(?P<name>[^/:]+?)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")
"""The address of a registered version, by an alias or by its number."""

NOT_THERE = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""MLflow's answers where the model or the alias does not exist."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        name: of the registered model.
        number: of the version, from 1.
        run_id: of the run that trained it; "" where the registry does not know.
        tags: of the version.
    """

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, version: ModelVersion) -> Version:
        """A version of MLflow's registry."""
        return cls(version.name, int(version.version), version.run_id or "", dict(version.tags or {}))

    @property
    def is_proved(self) -> bool:
        """Whether imgcls registered it, after its proof; anybody can make a version of a run with MLflow's client."""
        return bool(self.run_id) and {VersionTag.ONNX_SHA256, VersionTag.NUM_PROVED} <= self.tags.keys()


class Registry:
    """The model registry of a tracking store."""

    def __init__(self, client: MlflowClient, places: Places) -> None:
        self._client, self._places = client, places

    def holder(self, name: str, alias: str) -> Version | None:
        """The registered version that has an alias; None where none has."""
        try:
            return Version.of(self._client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise
            return None

    def find(self, address: str) -> Version:
        """The registered version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names.

        Raises:
            InputError: another form, or a version that does not exist; the error lists those that do.
        """
        if (found := ADDRESS.fullmatch(address)) is None:
            raise InputError(
                f"{address!r} names no registered version; give models:/NAME@ALIAS or models:/NAME/VERSION"
            )
        name, alias, number = found["name"], found["alias"], found["number"]
        version = self.holder(name, alias) if alias else self._numbered(name, number)
        if version is not None:
            return version
        models = self._models()
        if name not in models:
            there = f"registered are {', '.join(sorted(models))}" if models else "nothing is registered here"
            raise InputError(f"no model {name!r} is registered{did_you_mean(name, models) or f'; {there}'}")
        if alias is None:
            raise InputError(f"{name} has no version {number}; give another number, or an alias")
        aliases = sorted(models[name])
        there = f"its aliases are {', '.join(aliases)}" if aliases else "it has none; give the number of a version"
        raise InputError(f"{name} has no alias {alias!r}{did_you_mean(alias, aliases) or f'; {there}'}")

    def _numbered(self, name: str, number: str) -> Version | None:
        try:
            return Version.of(self._client.get_model_version(name, number))
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise
            return None

    def _models(self) -> dict[str, list[str]]:
        """Name of each registered model -> its aliases."""
        models: dict[str, list[str]] = {}
        token = None
        while True:
            page = self._client.search_registered_models(page_token=token)
            models |= {model.name: list(model.aliases) for model in page}
            if not (token := page.token):
                return models

    def version_of(self, name: str, run_id: str) -> Version | None:
        """The newest version of a run under a name that imgcls registered; None without one."""
        found = self._client.search_model_versions(f"run_id = '{run_id}'")
        versions = [Version.of(one) for one in found if one.name == name and one.status == "READY"]
        proved = (version for version in versions if version.is_proved)
        return max(proved, key=lambda version: version.number, default=None)

    def add(self, name: str, run_id: str, folder: Path, tags: Mapping[str, str]) -> Version:
        """Registers the MLflow model in a folder as a new version of a name, which may be new.

        Args:
            name: of the registered model.
            run_id: of the run that trained it.
            folder: it is copied to where the store keeps its artifacts.
            tags: of the version.
        """
        experiment_id = self._client.get_run(run_id).info.experiment_id
        self._places.to_write(self._client.get_experiment(experiment_id).artifact_location)
        self._name(name)
        logged = self._client.create_logged_model(experiment_id, MODEL_NAME, source_run_id=run_id)
        try:
            self._client.log_model_artifacts(logged.model_id, str(folder))
        except BaseException:
            self._client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        self._client.finalize_logged_model(logged.model_id, "READY")
        # Not as models:/ID, which MLflow looks for in the store of the whole process.
        version = self._client.create_model_version(
            name, logged.artifact_location, run_id, tags=dict(tags), model_id=logged.model_id
        )
        return Version.of(version)

    def _name(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise

    def describe(self, version: Version, text: str) -> None:
        """Gives a registered version its description, Markdown."""
        self._client.update_model_version(version.name, str(version.number), text)

    def set_alias(self, version: Version, alias: str, tags: Mapping[str, str]) -> None:
        """Gives an alias to a registered version, which takes it from another one; and adds tags to the version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(version.name, str(version.number), key, value)
        self._client.set_registered_model_alias(version.name, alias, str(version.number))


def check_model_name(name: str) -> None:
    """Refuses a name that the registry cannot take, or that `models:/NAME@ALIAS` cannot give back.

    Raises:
        InputError: an empty name, a longer one than 255 characters, or one with / : ? # or a character that no line
            shows.
    """
    is_shown = name.isprintable() and name == name.strip()
    if not is_shown or set(name) & set("/:?#") or name in ("", ".", "..") or len(name) > MOST_CHARACTERS:
        what = f"{name!r}" if len(name) <= MOST_CHARACTERS else f"{name[:40]!r}..., {len(name)} characters,"
        raise InputError(
            f"{what} cannot name a registered model: give a --name of 1 to {MOST_CHARACTERS} characters without "
            "/ : ? # and line breaks, and without spaces at its ends"
        )


def check_alias(alias: str) -> None:
    """Refuses an alias that the registry cannot take.

    Raises:
        InputError: other characters than letters, digits, _ and -, more than 255 of them, or a word that MLflow
            reserves.
    """
    if len(alias) > MOST_CHARACTERS:
        raise InputError(
            f"--alias {alias[:40]!r}...: {len(alias)} characters; an alias has {MOST_CHARACTERS} at most; "
            "`champion` is the usual one"
        )
    if not ALIAS.fullmatch(alias) or RESERVED_ALIAS.fullmatch(alias):
        raise InputError(
            f"--alias {alias!r}: an alias has letters, digits, _ and - only, and is neither `latest` nor like v1; "
            "`champion` is the usual one"
        )
