"""Where the artifacts of a store lie, also in a project that was copied or moved."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imgcls.errors import InputError
from imgcls.tracking.mlflow_internals import rewrite_places

log = logging.getLogger(__name__)

MLRUNS = "mlruns"
"""Folder at a project's root that holds the artifacts of its own store."""


def local_path(uri: str) -> Path | None:
    """The folder behind a `file:` URI or a plain path; None for anything remote."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path, errors="surrogateescape"))
    return Path(uri) if parts.scheme == "" and uri else None


class Places:
    """Where the artifacts of a store lie: as the store says, unless it is the project's own."""

    def to_read(self, uri: str) -> Path | None:
        """The folder in which artifacts are read; None where they are not on this machine."""
        return local_path(uri)

    def to_write(self, uri: str) -> Path | None:
        """The folder in which artifacts are written; None where they are not on this machine.

        Raises:
            InputError: it is not this project's to write in.
        """
        return local_path(uri)

    def to_remove_from(self, uri: str) -> Path | None:
        """The folder from which files may go; None where it is not this project's, or not on this machine."""
        return local_path(uri)

    def is_astray(self, uri: str) -> bool:
        """Whether artifacts lie elsewhere than the store says."""
        folder = local_path(uri)
        return folder is not None and not folder.is_dir()

    def why_missing(self, uri: str) -> str:
        """Why an artifact is missing, if its whole folder is; "" if the folder is there."""
        folder = self.to_read(uri)
        return "" if folder is None or folder.is_dir() else f"; its folder {folder} is not there"

    def relocate(self) -> int:
        """Points the store to where artifacts lie now; gives how many places changed.

        Raises:
            InputError: the store is not this project's own.
        """
        raise InputError(
            "only the project's own store, the file mlflow.db at its root, can be relocated; unset MLFLOW_TRACKING_URI"
        )


class OwnPlaces(Places):
    """Those of a project's own store: always below its root, whatever the store says.

    MLflow stores places absolute, so in a project that was copied they lead to the original. What lay below its
    `mlruns/` is looked for at the same place below ours, and nothing outside of our root is written or removed.

    Args:
        root: the project's root, resolved.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def to_read(self, uri: str) -> Path | None:
        """Where they lie here; where the store says, if they have no place in this project."""
        folder = local_path(uri)
        return folder and (self._here(folder) or folder)

    def to_write(self, uri: str) -> Path | None:
        """Where they lie here; the store is corrected first where it says otherwise."""
        folder = local_path(uri)
        if folder is None:
            return None
        here = self._here(folder)
        if here is None:
            raise InputError(
                f"the store says that artifacts lie in {folder}, outside of this project, and its own store writes "
                f"nothing there; `imgcls doctor --relocate` makes new runs keep theirs below {MLRUNS}/"
            )
        if not _is_same(folder, here):
            here.mkdir(parents=True, exist_ok=True)
            changed = self.relocate()
            log.info("this project was copied or moved: %d places in mlflow.db now lead to %s", changed, self._root)
        return here

    def to_remove_from(self, uri: str) -> Path | None:
        """Where they lie here; None outside of this project."""
        folder = local_path(uri)
        return folder and self._here(folder)

    def is_astray(self, uri: str) -> bool:
        """Whether the store leads out of this project, or to no folder."""
        folder = local_path(uri)
        here = folder and self._here(folder)
        return folder is not None and not (here and here.is_dir() and _is_same(folder, here))

    def why_missing(self, uri: str) -> str:
        """The same, also for a project of which only the database was copied."""
        here, stored = self.to_read(uri), local_path(uri)
        if here and stored and not here.is_dir() and stored.is_dir():
            return f": this project is a copy without the run's files; copy {stored} to {here}"
        return super().why_missing(uri)

    def relocate(self) -> int:
        """Points the store to where artifacts lie here; gives how many places changed.

        Those of runs change where their files lie below our `mlruns/`, also where others still lie at the old place.
        Those of experiments change always, so that new runs are written here.
        """
        return rewrite_places(self._root / "mlflow.db", self._moved)

    def _moved(self, uri: str | None, experiment: str) -> str | None:
        """The address of where a place lies here; None where the store has it right or nothing lies here.

        Args:
            uri: as the store has it.
            experiment: its name, where the place is an experiment's.
        """
        folder = local_path(uri or "")
        here = folder and self._here(folder)
        if folder and not here and experiment:
            here = self._root / MLRUNS / experiment
        if not here or here == folder or not (experiment or here.exists()):
            return None
        return here.as_uri()

    def _here(self, folder: Path) -> Path | None:
        """Where a folder lies in this project; None where it leads out of it."""
        folder = Path(os.path.normpath(self._root / folder))
        if folder.is_relative_to(self._root):
            return folder
        candidates = [
            self._root.joinpath(MLRUNS, *folder.parts[at + 1 :])
            for at in range(len(folder.parts) - 2, 0, -1)
            if folder.parts[at] == MLRUNS
        ]
        there = next((place for place in candidates if place.exists()), None)
        return there or next(iter(candidates), None)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one place, such as that of a project seen through a link or a bind mount."""
    try:
        return one == other or one.samefile(other)
    except OSError:  # one of them is not there
        return False
