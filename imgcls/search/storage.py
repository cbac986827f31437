"""Where a study is kept: in a journal of this machine, in PostgreSQL, or behind Optuna's proxy for many workers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from optuna.storages import BaseStorage

from imgcls.config.toml import as_options
from imgcls.errors import ConfigError, InputError
from imgcls.file_systems import network_file_system
from imgcls.search.journal import StudyJournal
from imgcls.search.patient_storage import PatientStorage
from imgcls.search.study_servers import Postgresql, Proxy, StudyServer
from imgcls.tracking.credentials import redacted

KEY, VARIABLE = "search.storage", "IMGCLS_STUDY_STORAGE"
"""The key that says where a study is kept, and the variable of the environment that does where the key is `auto`."""

AUTO, JOURNAL = "auto", "journal"
"""Values of the key that are not addresses."""

SERVERS: dict[str, type[StudyServer]] = {"postgresql": Postgresql, "postgresql+psycopg": Postgresql, "grpc": Proxy}
"""Schemes of addresses, and the servers that they are of."""

EXAMPLES = "postgresql://HOST/DATABASE or grpc://HOST:PORT"


def open_storage(asked: str, journal: Path) -> BaseStorage:
    """Opens the storage of a study; a server that is away is waited for.

    Args:
        asked: `search.storage` of the experiment.
        journal: where the journal lies, if the study has one.

    Raises:
        ConfigError: an address that cannot be one of a study, or a journal that machines would share.
        Interrupted: the server did not answer in time, or a stop was requested meanwhile.
    """
    if address := shared_address(asked):
        return _server_storage(address)
    if asked != JOURNAL and (kind := network_file_system(journal)):
        raise ConfigError(
            f"{journal.parent} lies on a network file system ({kind}), where a journal does not keep machines from "
            f"running the same trial: set {VARIABLE} to {EXAMPLES}, or move the project to a local disk; if no other "
            f"machine runs this sweep, add {as_options({KEY: JOURNAL})}"
        )
    journal.parent.mkdir(parents=True, exist_ok=True)
    return StudyJournal(journal)


def shared_address(asked: str) -> str:
    """The address of the server that keeps the study; "" where the study has a journal.

    An address in the experiment goes before that in the environment.

    Args:
        asked: `search.storage` of the experiment.

    Raises:
        ConfigError: it is not an address of a study's storage, or it has a password where others can read it.
    """
    named = os.environ.get(VARIABLE, "") if asked == AUTO else asked
    if named in ("", AUTO, JOURNAL):
        return ""
    setting = f"{VARIABLE if asked == AUTO else KEY} = {redacted(named)}"
    scheme = named.partition("://")[0].lower()
    if scheme not in SERVERS:
        raise ConfigError(
            f"{setting}: {_why_not(scheme)}; set it to {EXAMPLES}, or to {JOURNAL} for this machine alone"
        )
    server = SERVERS[scheme](named)
    if why := server.why_not():
        raise ConfigError(f"{setting}: {why}")
    if asked != AUTO and server.has_password():
        raise ConfigError(
            f"{setting}: a password in an experiment or a command can be read by others; put the whole address into "
            f"{VARIABLE} and leave {KEY} out, or keep the password in ~/.pgpass or PGPASSWORD"
        )
    return named


def check_storage(asked: str) -> None:
    """Refuses a server that cannot be reached now, before anything is begun.

    Args:
        asked: `search.storage` of the experiment.

    Raises:
        ConfigError: an address that cannot be one of a study.
        InputError: its server cannot be reached or does not let us in, with host, port and reason.
    """
    if shared_address(asked):
        with storage_now(asked, Path()):
            pass


@contextmanager
def storage_now(asked: str, journal: Path) -> Iterator[BaseStorage]:
    """The storage of a study as it is now, in a block: a server that is away is not waited for.

    Args:
        asked: `search.storage` of the experiment.
        journal: of the study, which exists if it has one.

    Raises:
        ConfigError: an address that cannot be one of a study.
        InputError: its server cannot be reached or does not let us in, with host, port and reason.
    """
    if not (address := shared_address(asked)):
        yield StudyJournal(journal)
        return
    server = _server(address)
    try:
        yield _connected(address)
    except Exception as error:
        if not server.is_away(error):
            raise
        raise InputError(
            f"the study's storage at {server.place} cannot be opened: {server.trouble(error)}; "
            f"{server.remedy} or correct {VARIABLE if asked == AUTO else KEY}"
        ) from None


@cache
def _server_storage(address: str) -> BaseStorage:
    return PatientStorage(_server(address), lambda: _connected(address))


@cache
def _connected(address: str) -> BaseStorage:
    """One for each process, which keeps its connection and what it read of trials that ended."""
    return _server(address).connect()


def _server(address: str) -> StudyServer:
    return SERVERS[address.partition("://")[0].lower()](address)


def _why_not(scheme: str) -> str:
    if scheme.startswith("sqlite"):
        return "SQLite is a file of one machine, which slows down or breaks where several write to it"
    return "a study is kept in a journal, in PostgreSQL or behind Optuna's gRPC proxy"
