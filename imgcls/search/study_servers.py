"""Servers that keep studies: PostgreSQL, and Optuna's gRPC proxy in front of it. What their errors mean."""

import importlib
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, get_storage
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from imgcls.errors import ConfigError, TrainingError
from imgcls.tracking.credentials import scrub_error, scrubbed

ATTEMPTS = 3
"""Number of times that a call is made which the proxy fails although it has its database."""

CONNECT_SECONDS = 10
"""Seconds within which a server has to answer a new connection."""

KEEPALIVE_SECONDS = 30
"""Seconds of silence after which a connection is probed, so that a server that lost its power is noticed."""

SILENT_SECONDS = 60
"""Seconds for which what was sent may stay unacknowledged before a connection counts as lost."""

CONNECTION = {
    "connect_timeout": CONNECT_SECONDS, "keepalives": 1, "keepalives_idle": KEEPALIVE_SECONDS,
    "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 1000 * SILENT_SECONDS,
    "application_name": "imgcls",
}  # fmt: skip
"""Options of each connection to PostgreSQL. The proxy of deploy/compose.yaml has the same."""


PACKAGES_OF_PROXY = ("grpc", "google.protobuf")
"""Packages that the proxy and its clients import."""


class StudyServer(ABC):
    """A server that keeps studies.

    Args:
        address: of the server, possibly with a password.
    """

    remedy: str
    """What to do where it cannot be reached."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    @abstractmethod
    def place(self) -> str:
        """Host and port, as messages name the server."""

    @abstractmethod
    def why_not(self) -> str:
        """What is wrong with the address, and what would be right; "" for a good one."""

    @abstractmethod
    def has_password(self) -> bool:
        """Whether the address holds one."""

    @abstractmethod
    def connect(self) -> BaseStorage:
        """Opens the storage of this process; the server has to answer within `CONNECT_SECONDS`."""

    @abstractmethod
    def is_away(self, error: BaseException) -> bool:
        """Whether an error says that the server, or a connection to it, is lost for now."""

    def attempts(self, error: BaseException) -> int:
        """Number of times that a call is made which fails by this error although the server is there."""
        del error
        return 1

    def told(self, error: BaseException) -> BaseException:
        """The error by which a call ends that failed although the server is there; it has no credentials."""
        return scrub_error(error)

    def trouble(self, error: BaseException) -> str:
        """What a lost server's error says, in one line and without credentials."""
        lines = str(next(reversed([*_chain(error)]))).strip().splitlines() or [type(error).__name__]
        return scrubbed(lines[0])[:300]


class Postgresql(StudyServer):
    """PostgreSQL, by psycopg 3."""

    remedy = "start PostgreSQL, make the database,"

    @property
    def place(self) -> str:
        """Host and port."""
        url = self._url()
        return f"{url.host or url.query.get('host', 'localhost')}:{url.port or url.query.get('port', 5432)}"

    def why_not(self) -> str:
        """A database has to be named; all else has defaults of PostgreSQL."""
        try:
            return "" if self._url().database else "name a database: postgresql://HOST/DATABASE"
        except (ArgumentError, ValueError):
            return "it is not an address; write postgresql://HOST:PORT/DATABASE, with special characters as %40"

    def has_password(self) -> bool:
        """Between user and host, or in the query."""
        url = self._url()
        return bool(url.password) or "password" in url.query

    def connect(self, num_kept: int = 1) -> BaseStorage:
        """Opens Optuna's storage, and makes its tables in an empty database.

        Args:
            num_kept: connections that are kept; more are made only where threads work at the same instant.
        """
        need("psycopg")
        door = create_engine(self._url(), poolclass=NullPool, connect_args=CONNECTION)
        with door.begin() as connection:
            # Processes that start together on an empty database would make the same tables.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('imgcls study storage'))"))
            if not inspect(connection).has_table("alembic_version"):  # which Optuna makes last
                self._storage(num_kept=1).engine.dispose()
        storage = self._storage(num_kept, skip_table_creation=True)
        weakref.finalize(storage, storage.engine.dispose)
        return get_storage(storage)

    def _storage(self, num_kept: int, *, skip_table_creation: bool = False) -> RDBStorage:
        return RDBStorage(
            self._url().render_as_string(hide_password=False),
            {"pool_size": num_kept, "max_overflow": 4, "pool_pre_ping": True, "connect_args": CONNECTION},
            skip_table_creation=skip_table_creation,
        )

    def is_away(self, error: BaseException) -> bool:
        """Whether a connection was refused, ended or not given; a deadlock counts as well, and passes alike."""
        return any(
            isinstance(link, OperationalError) or (isinstance(link, DBAPIError) and link.connection_invalidated)
            for link in _chain(error)
        )

    def _url(self) -> URL:
        return make_url(self.address).set(drivername="postgresql+psycopg")


class Proxy(StudyServer):
    """Optuna's gRPC proxy, for which `imgcls storage-proxy` is the command."""

    remedy = "start it with `imgcls storage-proxy`"

    @property
    def place(self) -> str:
        """Host and port."""
        host, port = self._host_and_port()
        return f"{host}:{port}"

    def why_not(self) -> str:
        """Nothing but a host and a port is in the address."""
        try:
            url = make_url(self.address)
        except (ArgumentError, ValueError):
            return "it is not an address; write grpc://HOST:PORT"
        if not url.host or not url.port or url.database or url.query:
            return "write grpc://HOST:PORT, with nothing behind it"
        if url.username or url.password:
            return "the proxy asks for no user or password; write grpc://HOST:PORT"
        return ""

    def has_password(self) -> bool:
        """Never."""
        return False

    def connect(self) -> BaseStorage:
        """Waits until the proxy answers, and asks it for a study, for which it has to ask its database."""
        need(*PACKAGES_OF_PROXY)
        host, port = self._host_and_port()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # that its interface may change
            storage = GrpcStorageProxy(host=host, port=port)
        storage.wait_server_ready(CONNECT_SECONDS)
        with suppress(KeyError):
            storage.get_study_id_from_name("a study that nobody has")
        return storage

    def is_away(self, error: BaseException) -> bool:
        """Whether the proxy is not there, or ended while it was asked, or its database does not answer it.

        gRPC's code for both of the first two is UNAVAILABLE. UNKNOWN is its code for every exception within the proxy,
        whether its database is away or the call is at fault. Optuna's text does not say which, so the proxy is asked
        for something else.
        """
        need(*PACKAGES_OF_PROXY)
        import grpc

        if not isinstance(error, grpc.RpcError):
            return isinstance(error, ConnectionError)
        code = error.code()
        return code == grpc.StatusCode.UNAVAILABLE or (code == grpc.StatusCode.UNKNOWN and not self._has_database())

    def attempts(self, error: BaseException) -> int:
        """Several for an exception within the proxy: its database may have been back when it was asked again."""
        return ATTEMPTS if _is_from_grpc(error) else 1

    def told(self, error: BaseException) -> BaseException:
        """What the proxy said, unless it is one of Optuna's own answers."""
        if not _is_from_grpc(error):
            return super().told(error)
        return TrainingError(f"the study's storage at {self.place} failed: {_said(error)}")

    def trouble(self, error: BaseException) -> str:
        """What is known of it: the proxy is not there, or it does not reach its database."""
        import grpc

        if not isinstance(error, grpc.RpcError):
            return f"it did not answer within {CONNECT_SECONDS} s"
        is_there = error.code() == grpc.StatusCode.UNKNOWN
        return f"it does not reach its database ({_said(error)})" if is_there else _said(error)

    def _has_database(self) -> bool:
        import grpc

        try:
            self.connect()
        except (ConnectionError, grpc.RpcError):
            return False
        return True

    def _host_and_port(self) -> tuple[str, int]:
        url = make_url(self.address)
        assert url.host is not None and url.port is not None  # noqa: PT018 - `why_not` was asked before
        return f"[{url.host}]" if ":" in url.host else url.host, url.port


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_from_grpc(error: BaseException) -> bool:
    """Whether it is what gRPC raised, and not an answer of the storage's, such as a KeyError for an unknown study."""
    import grpc

    return isinstance(error, grpc.RpcError)


def _said(error: Any) -> str:
    """What an error of gRPC says, in one line and without credentials."""
    text = error.details() or str(error.code())
    return scrubbed(text.removeprefix("Exception calling application: ").strip().partition("\n")[0])[:300]


def need(*packages: str) -> None:
    """Imports packages of the extra `cluster`.

    Raises:
        ConfigError: one is missing; it names the extra.
    """
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        missing = error.name or error
        raise ConfigError(
            f"a study on a server needs a package that is missing ({missing}): pip install 'imgcls[cluster]'"
        ) from None
