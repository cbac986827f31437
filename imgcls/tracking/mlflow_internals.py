"""What imgcls takes from the private parts of MLflow; tests/test_private_parts.py fails where a release changes one."""

import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service import utils
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH, MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH
from sqlalchemy import Engine, event

from imgcls.errors import InputError
from imgcls.files import put_in_place
from imgcls.tracking.claims import claim
from imgcls.tracking.store_address import sqlite_address

__all__ = ["MAX_EXPERIMENT_TAG_VAL_LENGTH", "MAX_PARAM_VAL_LENGTH", "MAX_TAG_VAL_LENGTH"]

log = logging.getLogger(__name__)

CHATTY_LOGGERS = {"alembic": logging.WARNING, "mlflow.store": logging.WARNING, "mlflow.tracking": logging.WARNING,
                  "mlflow.pyfunc": logging.WARNING, "mlflow.store.db.utils": logging.CRITICAL}  # fmt: skip
"""Logger -> level from which on it may speak; the last one prints the trace of what it raises."""

OLD_FILE_STORE = "[0-9]*/meta.yaml"
"""Files in a folder of artifacts that is also a store in plain files, as earlier releases of MLflow made them."""

PLACES = (
    ("experiments", "artifact_location", "name"),
    ("runs", "artifact_uri", "NULL"),
    ("logged_models", "artifact_location", "NULL"),
    ("model_versions", "source", "NULL"),
    ("model_versions", "storage_location", "NULL"),
)
"""(table, its column with the address of a folder of artifacts, the one with an experiment's name)."""

_opened: dict[Path, Engine] = {}
"""SQLite files that this process has opened, each with the engine whose pool holds connections to it."""

HALF_MADE = ".mlflow-"
"""How the name begins of a folder in which a database is being made, beside its place."""

SECONDS_OF_MAKING = 120.0
"""Seconds that a process waits for another one to make the database, which takes five on a quiet machine."""


def quieten() -> None:
    """Quietens MLflow's internal loggers, which tell what it does to its database."""
    for name, level in CHATTY_LOGGERS.items():
        logging.getLogger(name).setLevel(level)


@contextmanager
def levels_kept() -> Iterator[None]:
    """Keeps, in a block that opens a store, the levels of MLflow's internal loggers as the program had them."""
    loggers = [logging.getLogger(name) for name in CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def databases_closed() -> Iterator[None]:
    """Closes, before and after a block, the connections that MLflow's internal pools hold to SQLite files of ours.

    Otherwise a file that is removed, or replaced by another, would go on being written to without a name.
    """
    _close_databases()
    try:
        yield
    finally:
        _close_databases()


def remember_opened(database: Path) -> None:
    """Remembers a SQLite file behind one of MLflow's internal stores, to which its pool holds connections."""
    store = utils._get_store(sqlite_address(database))  # type: ignore[no-untyped-call]
    if isinstance(store, SqlAlchemyStore):
        _opened[database] = store.engine


def _close_databases() -> None:
    for engine in _opened.values():  # not MLflow's stores by their addresses: it would open again what it forgot
        engine.dispose()


def session_uri() -> str | None:
    """The address that `mlflow.set_tracking_uri` wrote into this process's environment; None where it wrote none.

    MLflow writes it there so that processes which it starts inherit it. An address with which Python was started is not
    such a one, as far as the system tells.
    """
    uri: str | None = utils._tracking_uri
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return uri if uri is not None and uri == named and named != _at_start("MLFLOW_TRACKING_URI") else None


def _at_start(name: str) -> str | None:
    """A variable of the environment with which this process was started; None without it, or where nobody knows."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    values = [entry.partition(b"=")[2] for entry in entries if entry.startswith(name.encode() + b"=")]
    return os.fsdecode(values[0]) if values else None


def is_duplicate_row(error: MlflowException) -> bool:
    """Whether MLflow's internal error is that the same row is there already, which another process wrote first."""
    return "IntegrityError" in str(error)


def create_database(database: Path, artifacts: Path) -> None:
    """MLflow's internal store class creates the tables of a new SQLite database: all of them, or no file.

    A process that is killed while MLflow itself creates a database leaves a file that never opens again, and several
    processes that create one at once collide. So one process makes it aside and then puts it in place.

    Raises:
        InputError: the folder of artifacts holds a store of an earlier release of MLflow.
    """
    if database.exists():
        return
    if list(artifacts.glob(OLD_FILE_STORE)):
        raise InputError(
            f"{artifacts} holds runs of MLflow's old file store, which keeps plain `mlflow ui` from opening mlflow.db; "
            "move them away, or migrate them with `mlflow migrate-filestore`"
        )
    artifacts.mkdir(parents=True, exist_ok=True)
    with claim(database.parent, f"making-{database.name}", f"the making of {database}", SECONDS_OF_MAKING):
        if not database.exists():
            log.info("creating %s", database)
            _make_database(database, artifacts)


def _make_database(database: Path, artifacts: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=HALF_MADE, dir=database.parent) as folder:
        aside = Path(folder) / "mlflow.db"
        with without_waiting_for_the_disk(aside):
            store = SqlAlchemyStore(sqlite_address(aside), artifacts.as_uri())  # type: ignore[no-untyped-call]
            store.engine.dispose()
        with closing(sqlite3.connect(aside)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file: two to three times faster writing
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        try:
            put_in_place(aside, database)
        except FileExistsError:
            log.info("another program created %s first", database)


@contextmanager
def without_waiting_for_the_disk(database: Path) -> Iterator[None]:
    """Turns SQLite's syncs off while MLflow makes its internal tables in a file that nobody reads yet.

    The caller syncs the whole file.
    """

    def connected(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
            if path and Path(path).resolve() == database.resolve():
                connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def rewrite_places(database: Path, moved: Callable[[str | None, str], str | None]) -> int:
    """MLflow's internal tables get other addresses of artifacts; gives how many rows changed.

    Args:
        database: SQLite's file.
        moved: (address, name of the experiment whose new runs go there, or "") -> the new address; None keeps it.
    """
    num_changed = 0
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        for table, column, name in PLACES:
            rows = connection.execute(f"SELECT {column}, {name}, rowid FROM {table}").fetchall()
            changes = [(new, key) for uri, of, key in rows if (new := moved(uri, of or "")) is not None]
            connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)
            num_changed += len(changes)
    return num_changed
