"""Where the artifacts of a store lie, also in a project that was copied or moved."""

import logging
import os
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imgcls.errors import InputError
from imgcls.project import MLRUNS
from imgcls.tracking.mlflow_internals import rewrite_places

log = logging.getLogger(__name__)


def local_path(uri: str) -> Path | None:
    """The artifact place that a `file:` URI or a plain path names, as a folder; None for anything remote."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path, errors="surrogateescape"))
    return Path(uri) if parts.scheme == "" and uri else None


class Places:
    """The artifact places of a store: as the store says, or for a project's own store always below its root.

    MLflow stores absolute places, so in a project that was copied they lead to the original. What lay below its
    `mlruns/` is looked for at the same place below ours, and nothing outside of our root is written or removed.

    Args:
        own_root: root of the project whose own store it is, resolved; None for any other store.
    """

    def __init__(self, own_root: Path | None) -> None:
        self._root = own_root

    def to_read(self, uri: str) -> Path | None:
        """The folder in which artifacts are read, perhaps outside of the project; None if not on this machine."""
        folder = local_path(uri)
        return folder and (self._here(folder) or folder)

    def to_write(self, uri: str) -> Path | None:
        """The folder in which artifacts are written; None if it is not on this machine.

        The store is corrected first where it leads to another project.

        Raises:
            InputError: the folder lies outside of the project.
        """
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
        """The folder from which files may go; None if it is outside of the project, or not on this machine."""
        folder = local_path(uri)
        return folder and self._here(folder)

    def is_astray(self, uri: str) -> bool:
        """Whether the store leads out of the project, or to no folder."""
        folder = local_path(uri)
        here = folder and self._here(folder)
        return folder is not None and not (here and here.is_dir() and _is_same(folder, here))

    def why_missing(self, uri: str) -> str:
        """Why an artifact is missing, if its whole folder is; "" if the folder is there."""
        here, stored = self.to_read(uri), local_path(uri)
        if here is None or stored is None or here.is_dir():
            return ""
        if stored.is_dir():
            return f": this project is a copy without the run's files; copy {stored} to {here}"
        return f"; its folder {here} is not there"

    def relocate(self) -> int:
        """Points the store to where artifacts lie here; gives how many places changed.

        Those of runs change if their files lie below our `mlruns/`, even while others still lie at the old place.
        Those of experiments always change, so that new runs are written here.

        Raises:
            InputError: the store is not this project's own.
        """
        if self._root is None:
            raise InputError(
                "only the project's own store, the file mlflow.db at its root, can be relocated; unset "
                "MLFLOW_TRACKING_URI"
            )
        return rewrite_places(self._root / "mlflow.db", partial(self._moved, self._root))

    def _moved(self, root: Path, uri: str | None, experiment: str) -> str | None:
        """Where a place of a run or a named experiment lies here; None if the store is right or nothing is there."""
        folder = local_path(uri or "")
        here = folder and self._here(folder)
        if folder and not here and experiment:
            here = root / MLRUNS / experiment
        if not here or here == folder or not (experiment or here.exists()):
            return None
        return here.as_uri()

    def _here(self, folder: Path) -> Path | None:
        """Where a folder lies in this project; None where it leads out of it."""
        if self._root is None:
            return folder
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
