"""Optuna's gRPC proxy in front of PostgreSQL: many workers share the few connections of one process."""

import logging
import socket
import warnings
from concurrent.futures import ThreadPoolExecutor

import optuna
from optuna.exceptions import ExperimentalWarning

from imgcls.errors import ConfigError, InputError
from imgcls.search.storage import VARIABLE, check_storage, shared_address
from imgcls.search.study_servers import PACKAGES_OF_PROXY, Postgresql, need

log = logging.getLogger(__name__)

NUM_THREADS = 10
"""Requests that the proxy answers at the same time, each over a connection of its own."""


def serve(asked: str, host: str, port: int) -> None:
    """Serves the studies of a PostgreSQL at `grpc://HOST:PORT` until it is interrupted.

    The clients wait where PostgreSQL is away, so the proxy itself does not.

    Args:
        asked: the address of PostgreSQL, or `auto` for that in the environment.
        host: the address of this machine on which the proxy listens.
        port: on which it listens.

    Raises:
        ConfigError: the address is not one of PostgreSQL, or a package is missing.
        InputError: PostgreSQL cannot be reached, or the port cannot be had.
    """
    address = shared_address(asked)
    if not address or address.startswith("grpc:"):
        raise ConfigError(f"the proxy stands in front of PostgreSQL; set {VARIABLE} to postgresql://HOST/DATABASE")
    need(*PACKAGES_OF_PROXY)
    check_storage(asked)
    _check_port(host, port)
    if not host.startswith("127.") and host not in ("localhost", "::1"):
        log.warning("the proxy asks for no password: whoever reaches port %d on %s can change the studies", port, host)
    server = Postgresql(address)
    at = f"[{host}]" if ":" in host else host
    log.info("serving the studies at %s as grpc://%s:%d; Ctrl-C ends it", server.place, at, port)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # that its interface may change
        optuna.storages.run_grpc_proxy_server(
            server.connect(NUM_THREADS), host=at, port=port, thread_pool=ThreadPoolExecutor(NUM_THREADS)
        )


def _check_port(host: str, port: int) -> None:
    """Refuses a port that another server has, which gRPC would share with it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier proxy do not count
            tried.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}; name others") from error
