"""How a worker process starts: on Linux it is forked from a server that has imported everything, elsewhere spawned."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to each of its processes; the driver hears them and passes them on as SIGTERM."""

PRELOADED = ["imgcls.search.local_worker", "imgcls.runs.train", "torch._dynamo", "imgcls.search.server_is_ready"]
"""Modules that the server imports; torch imports torch._dynamo with the first step of an optimizer."""

SECONDS_BETWEEN_LOOKS = 0.5
"""Seconds between two looks of a worker whether the process that started it still lives."""


def started(work: Callable[..., None], *arguments: Any, variables: Mapping[str, str]) -> BaseProcess:
    """Starts a process that does some work, and leaves with this process.

    It begins with the signals of a terminal ignored, and with SIGTERM held back until it calls `hear_sigterm`.

    Args:
        work: a function of a module.
        arguments: of the function.
        variables: of its environment, besides those of this process.
    """
    given = ({**os.environ, **variables}, work, arguments)
    if sys.platform == "linux":
        # A worker that is forked from this process would inherit CUDA, threads and open SQLite connections, none of
        # which survives it. The server has none of them, and what takes seconds: the imports. Apple's libraries do
        # not bear a fork.
        try:
            _ensure_server()
            forked = multiprocessing.get_context("forkserver").Process(target=_begin, args=given, daemon=True)
            forked.start()
            return forked
        except (EOFError, OSError):
            pass  # somebody killed the server, or it is that of a process from which this one was forked
    spawned = multiprocessing.get_context("spawn").Process(target=_begin, args=given, daemon=True)
    with _signals_held_back():
        spawned.start()
    return spawned


def hear_sigterm() -> None:
    """Lets SIGTERM in, also one that came before; those of the terminal are ignored by now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*FROM_TERMINAL, signal.SIGTERM})


def _ensure_server() -> None:
    """Starts the server unless it runs; it ends after this process and all workers have left."""
    forkserver.set_forkserver_preload(PRELOADED)
    with _signals_held_back(), _environment_of_the_server():
        forkserver.ensure_running()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes that are started within this block begin with signals held back, as do those that they fork."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*FROM_TERMINAL, signal.SIGTERM})
    try:
        resource_tracker.ensure_running()  # of Python; its start lets signals in again
        signal.pthread_sigmask(signal.SIG_BLOCK, {*FROM_TERMINAL, signal.SIGTERM})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment_of_the_server() -> Iterator[None]:
    """A block with the environment in which the server imports what this process would; workers have another one.

    MLflow would start a thread with its telemetry.
    """
    path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    server = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    before = {name: os.environ.get(name) for name in server}
    os.environ.update(server)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(environment: Mapping[str, str], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()  # the server's own, of the moment when it was started
    os.environ.update(environment)
    for number in FROM_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_driver, daemon=True).start()
    work(*arguments)


def _leave_with_driver() -> None:
    """Ends this process after its driver, or the server that tells the driver how workers end, was killed.

    Otherwise it would go on with a trial that the next sitting, or another worker, takes up as well.
    """
    driver, parent = multiprocessing.parent_process(), os.getppid()
    assert driver is not None
    while os.getppid() == parent and not wait([driver.sentinel], timeout=SECONDS_BETWEEN_LOOKS):
        pass
    os._exit(1)
