"""The address of a tracking store: which there are, and the SQLite file behind one."""

import os
from importlib.metadata import entry_points
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from imgcls.errors import InputError
from imgcls.file_systems import network_file_system
from imgcls.tracking.credentials import redacted

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
    """Refuses a store's address where imgcls cannot keep a record in it.

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
    """A store's address needs a driver: how to install it, if its lack is this error; "" for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = DRIVERS.get(error.name.partition(".")[0])
    return f"its driver is not installed: pip install '{package}'" if package else ""


def sqlite_address(database: Path) -> str:
    """A store's address for a SQLite file, whatever characters its path has.

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
    """A store's address as MLflow needs it.

    MLflow makes the folder of a SQLite file and takes the address for a path, so that an encoded character makes a
    second folder beside the project. It does not do so for an address that names the driver.
    """
    return uri.replace("sqlite:", "sqlite+pysqlite:", 1) if uri.startswith("sqlite:") and "%" in uri else uri


def database_behind(uri: str) -> Path | None:
    """A store's address as the SQLite file behind it; None for any other, and for SQLite's own `file:` form.

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


def check_is_local(database: Path) -> None:
    """Refuses the project's own SQLite file on a network file system, unless the user named it.

    The locks of a machine, by which processes tell the living from the dead, do not hold for another one.

    Raises:
        InputError: naming what to set.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and (kind := network_file_system(database)):
        raise InputError(
            f"{database} lies on a network file system ({kind}), where several machines could damage it: set "
            "MLFLOW_TRACKING_URI to the address of a tracking server, or move the project to a local disk; if no other "
            f"machine uses this project, set MLFLOW_TRACKING_URI={sqlite_address(database)}"
        )


def _check_utf_8(path: Path) -> None:
    for part in path.parts:
        try:
            part.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the folder {os.fsencode(part)!r} has bytes in its name that are not UTF-8, and no address of MLflow "
                "can hold them; rename it"
            ) from None


def store_file(root: Path) -> Path | None:
    """The SQLite file at the store's address, of a project at `root`, whether it exists or not; None for a server."""
    return database_behind(os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(root.resolve() / "mlflow.db"))


def check_recorded(root: Path) -> None:
    """Refuses a project without a tracking store, where one would be made and nothing be found in it.

    Raises:
        InputError: naming the folder.
    """
    if not is_recorded(root):
        raise InputError(
            f"{root} has no record: mlflow.db does not exist there. Go to the folder of the project, or set "
            "MLFLOW_TRACKING_URI; `imgcls train` and `imgcls sweep` begin a record"
        )


def is_recorded(root: Path) -> bool:
    """Whether a project has a tracking store; one is made where a Tracker is opened."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (root / "mlflow.db").is_file()
