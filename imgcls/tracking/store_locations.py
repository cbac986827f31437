"""Where a store and its artifacts lie: addresses of files, and what lies here of a project that was copied or moved."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from imgcls.errors import InputError
from imgcls.tracking.address import redacted

log = logging.getLogger(__name__)

MLRUNS = "mlruns"
"""Folder at a project's root that holds the artifacts of its own store."""

LONGEST_PATH = 480
"""Most bytes of a path that SQLite is certain to open: the names of the files beside it may have no more than 512."""

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
"""Schemes of a store's address; that of a database may name a driver behind a plus sign."""

DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pyodbc": "pyodbc",
    "pymssql": "pymssql",
}
"""Module of a database's driver -> the package that has it."""


def check_address(uri: str) -> None:
    """Refuses the address of a store that imgcls cannot keep a record in.

    Raises:
        InputError: naming the addresses that there are.
    """
    scheme = uri.strip().partition(":")[0].lower()
    is_known = scheme.partition("+")[0] in SCHEMES or entry_points(group="mlflow.tracking_store", name=scheme)
    if ":" in uri and is_known:
        return
    if scheme in ("databricks", "databricks-uc", "uc"):
        why = "it is Databricks, whose store imgcls does not write to"
    elif scheme == "file" or ":" not in uri:
        why = "it is a folder or file, and MLflow no longer keeps a record in plain files"
    else:
        why = "it is of no kind that MLflow keeps a record in"
    raise InputError(
        f"the tracking store {redacted(uri)} cannot be opened: {why}; set MLFLOW_TRACKING_URI to sqlite:///FILE, "
        "postgresql://…, mysql://…, mssql://… or the http:// or https:// address of a tracking server, or unset it to "
        "keep the record in mlflow.db here"
    )


def missing_driver(error: BaseException | None) -> str:
    """How to install the database driver whose lack is this error; "" for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = DRIVERS.get(error.name.partition(".")[0])
    return f"its driver is not installed: pip install '{package}'" if package else ""


def sqlite_address(database: Path) -> str:
    """The address of a SQLite file, whatever characters its path has.

    Raises:
        InputError: a path that no address can hold, or that SQLite does not open.
    """
    if len(path := os.fsencode(database)) > LONGEST_PATH:
        raise InputError(
            f"the path of {database} has {len(path)} bytes, and SQLite opens none of more than {LONGEST_PATH}; "
            "move the project to a folder with a shorter path"
        )
    _check_utf_8(database)
    return for_mlflow(URL.create("sqlite", database=str(database)).render_as_string(hide_password=False))


def for_mlflow(uri: str) -> str:
    """An address as MLflow is to be given it.

    MLflow makes the folder of a SQLite file and takes the address for a path, so that an encoded character makes a
    second folder beside the project. It does not do so for an address that names the driver.
    """
    return uri.replace("sqlite:", "sqlite+pysqlite:", 1) if uri.startswith("sqlite:") and "%" in uri else uri


def database_behind(uri: str) -> Path | None:
    """The file of a SQLite address; None for any other address, and for SQLite's own `file:` form.

    Raises:
        InputError: it names no file, and SQLite would keep the record in this process's memory.
    """
    if not uri.startswith("sqlite"):
        return None
    try:
        url = make_url(uri)
    except ArgumentError:
        raise InputError(f"MLFLOW_TRACKING_URI = {uri!r} is not an address; a file is sqlite:///mlflow.db") from None
    if url.host:
        raise InputError(f"MLFLOW_TRACKING_URI = {uri!r} has two slashes where a file has three: sqlite:///mlflow.db")
    if not url.database or url.database == ":memory:":
        raise InputError(
            f"MLFLOW_TRACKING_URI = {uri!r} is a store in memory, which ends with this process and its runs with it; "
            "name a file, as in sqlite:///mlflow.db"
        )
    return None if url.database.startswith("file:") else Path(url.database).resolve()


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
        with closing(sqlite3.connect(self._root / "mlflow.db", timeout=20)) as connection, connection as database:
            rows = database.execute("SELECT artifact_location, experiment_id, name FROM experiments").fetchall()
            moves = [(self._moved(uri, name), key) for uri, key, name in rows]
            changed = _rewrite(database, "experiments", "artifact_location", "experiment_id", moves)
            for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
                rows = database.execute(f"SELECT {column}, rowid FROM {table}").fetchall()
                changed += _rewrite(database, table, column, "rowid", [(self._moved(uri), key) for uri, key in rows])
        return changed

    def _moved(self, uri: str | None, experiment: str = "") -> str | None:
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


def _rewrite(
    database: sqlite3.Connection, table: str, column: str, key: str, values: list[tuple[str | None, object]]
) -> int:
    """Sets a column to each new value that is not None; gives how many rows changed."""
    changes = [(value, row) for value, row in values if value is not None]
    database.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", changes)
    return len(changes)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one place, such as that of a project seen through a link or a bind mount."""
    try:
        return one == other or one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _check_utf_8(path: Path) -> None:
    for part in path.parts:
        try:
            part.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the folder {os.fsencode(part)!r} has bytes in its name that are not UTF-8, and no address of MLflow "
                "can hold them; rename it"
            ) from None
