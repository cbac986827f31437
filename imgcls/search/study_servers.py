"""Servers that keep studies: PostgreSQL, and Optuna's gRPC proxy in front of it. They are waited for while away."""

import logging
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from imgcls.errors import ConfigError, Interrupted
from imgcls.signals import stop_requested
from imgcls.tracking.credentials import scrub_error, scrubbed

T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds for which a server that is away is waited for."""

SILENCE = 5.0
"""Seconds of waiting after which it is said."""

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two attempts; the last repeats."""

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
        try:
            door = create_engine(self._url(), poolclass=NullPool, connect_args=CONNECTION)
        except ImportError as error:
            raise _extra_is_missing(error) from None
        # Processes that start together on an empty database would make the same tables.
        with door.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('imgcls study storage'))"))
            storage = RDBStorage(
                self._url().render_as_string(hide_password=False),
                {"pool_size": num_kept, "max_overflow": 4, "pool_pre_ping": True, "connect_args": CONNECTION},
            )
        weakref.finalize(storage, storage.engine.dispose)
        return get_storage(storage)

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
        """Waits until the proxy answers."""
        host, port = self._host_and_port()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # that its interface may change
                storage = GrpcStorageProxy(host=host, port=port)
            storage.wait_server_ready(CONNECT_SECONDS)
        except ImportError as error:
            raise _extra_is_missing(error) from None
        return storage

    def is_away(self, error: BaseException) -> bool:
        """Whether the proxy is not there, or ended while it was asked, or PostgreSQL behind it failed it."""
        import grpc

        away = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN
        return any(
            isinstance(link, ConnectionError) or (isinstance(link, grpc.RpcError) and link.code() in away)
            for link in _chain(error)
        )

    def trouble(self, error: BaseException) -> str:
        """What the proxy said of it, if it answered."""
        if isinstance(error, ConnectionError):
            return f"it did not answer within {CONNECT_SECONDS} s"
        return scrubbed(str(getattr(error, "details", lambda: error)()))[:300]

    def _host_and_port(self) -> tuple[str, int]:
        url = make_url(self.address)
        assert url.host is not None and url.port is not None  # noqa: PT018 - `why_not` was asked before
        return f"[{url.host}]" if ":" in url.host else url.host, url.port


class _Patient(BaseStorage):
    """A storage on a server, each of whose calls waits for the server where it is away, and is made again.

    A call whose answer was lost may have been carried out. Made again, it changes nothing more, except that a new trial
    may have got a number for nobody.

    Args:
        server: that keeps the studies.
        connect: gives the storage that answers, once it is reached.
    """

    def __init__(self, server: StudyServer, connect: Callable[[], BaseStorage]) -> None:
        self._server = server
        self._connect = connect
        self._studies: set[int] = set()
        self._answer(connect)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study."""
        self._studies.add(study_id)
        return self._answer(lambda: self._connect().get_all_trials(study_id, deepcopy, states))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Sets a value of a trial.

        Optuna's proxy knows only the trials that were read from it, and forgets them where it is started again.
        """

        def call() -> None:
            self._connect().set_trial_param(trial_id, param_name, param_value_internal, distribution)

        try:
            self._answer(call)
        except KeyError:
            for study_id in self._studies:
                self.get_all_trials(study_id, deepcopy=False)
            self._answer(call)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Ends a trial, or says that it has begun; told of the same end again, it is content."""
        try:
            return self._answer(lambda: self._connect().set_trial_state_values(trial_id, state, values))
        except UpdateFinishedTrialError:
            trial = self.get_trial(trial_id)
            if trial.state == state and trial.values == (values and list(values)):
                return True
            raise

    def _answer(self, call: Callable[[], T]) -> T:
        """The answer to a call, which is made until there is one.

        Raises:
            Interrupted: there was none in time, or a stop was requested meanwhile.
        """
        wait = _Wait(self._server)
        while True:
            try:
                answer = call()
            except Exception as error:
                if not self._server.is_away(error):
                    raise scrub_error(error) from None
                wait.spend(self._server.trouble(error))
            else:
                wait.end()
                return answer


class _Wait:
    """A wait for a server that is away, which says when it has become long and when it is over."""

    def __init__(self, server: StudyServer) -> None:
        self._server = server
        self._started = time.monotonic()
        self._num_attempts = 0
        self._is_said = False

    def spend(self, trouble: str) -> None:
        """Waits before the next attempt.

        Raises:
            Interrupted: it has lasted for too long, or a stop was requested.
        """
        waited = time.monotonic() - self._started
        if by := stop_requested():
            raise Interrupted(f"stopped by {by} while the study's storage at {self._server.place} was away ({trouble})")
        if waited > PATIENCE:
            raise Interrupted(f"the study's storage at {self._server.place} was away for {waited:.0f} s ({trouble})")
        if waited > SILENCE and not self._is_said:
            self._is_said = True
            log.warning("waiting for the study's storage at %s: %s", self._server.place, trouble)
        time.sleep(PAUSES[min(self._num_attempts, len(PAUSES) - 1)])
        self._num_attempts += 1

    def end(self) -> None:
        """The server has answered."""
        if self._is_said:
            waited = time.monotonic() - self._started
            log.warning("the study's storage at %s is back after %.0f s", self._server.place, waited)


def _waiting(name: str) -> Callable[..., Any]:
    """The method of a storage, which waits for its server."""

    def method(self: _Patient, *args: Any, **kwargs: Any) -> Any:
        return self._answer(lambda: getattr(self._connect(), name)(*args, **kwargs))

    return method


def _methods() -> Iterator[str]:
    """Names of the methods of Optuna's storages that `_Patient` leaves to `_waiting`."""
    for name, member in vars(BaseStorage).items():
        if callable(member) and not name.startswith("_") and name not in vars(_Patient):
            yield name


PatientStorage: type[_Patient] = type("PatientStorage", (_Patient,), {name: _waiting(name) for name in _methods()})
"""Class of storages that wait for their server, whichever of Optuna's methods is called."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _extra_is_missing(error: ImportError) -> ConfigError:
    return ConfigError(
        f"a study on a server needs a package that is missing ({error.name}): pip install 'imgcls[cluster]'"
    )
