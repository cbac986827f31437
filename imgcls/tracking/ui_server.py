"""MLflow's UI for a while: its server as a child process that only this machine can reach, with little memory."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from imgcls.errors import InputError, ResourceError
from imgcls.tracking.credentials import redacted, scrubbed

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
"""Only this machine reaches the server."""

USUAL_PORT = 5000
"""MLflow's own."""

NUM_PORTS = 100
"""How many ports are tried from the usual one on."""

SECONDS_TO_START = 180.0
"""Seconds in which the server has to answer first; on a busy machine it has taken a minute."""

SECONDS_TO_END = 10.0
"""Seconds in which the server's processes have to end before they are killed."""

LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
"""Settings with which the server has two processes and 0.5 GB instead of fourteen and 3.1 GB."""


class UiServer:
    """A running UI of MLflow at an address; the process is None where it is a tracking server that runs elsewhere."""

    def __init__(self, address: str, process: subprocess.Popen[bytes] | None) -> None:
        self.address = address
        self._process = process

    def wait(self) -> None:
        """Waits until the server ends, which Ctrl-C and SIGTERM bring about; returns at once for one elsewhere."""
        if self._process is not None:
            self._process.wait()


@contextmanager
def serving(uri: str | None, root: Path, port: int = 0) -> Iterator[UiServer]:
    """MLflow's UI on a store for the length of the block; its processes end with the block.

    Args:
        uri: of the tracking store; a tracking server shows its UI itself. None: whatever plain `mlflow ui` finds there.
        root: the project's root.
        port: on this machine; 0 for 5000, or the next one that is free.

    Raises:
        InputError: the port is taken, or named for a tracking server, which has its own.
        ResourceError: the server ended before it answered, or did not answer.
    """
    if uri is not None and uri.startswith("http"):
        if port:
            raise InputError(
                f"--port {port} is for a UI that is started here; the tracking server {redacted(uri)} shows its own: "
                "leave --port out"
            )
        yield UiServer(redacted(uri).rstrip("/"), None)
        return
    port = port or free_port()
    _check_free(port)
    address = f"http://{HOST}:{port}"
    log.info("starting MLflow's UI on port %d, which takes 10 to 20 s; Ctrl-C ends it", port)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    with child_server("MLflow's UI", command, f"{address}/health", root, _environment(uri)) as process:
        yield UiServer(address, process)


@contextmanager
def child_server(
    name: str, command: Sequence[str], asked: str, root: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a child process, which has answered when the block begins; its processes end with the block.

    Args:
        name: what it is called in errors.
        command: that starts it.
        asked: the address that it is asked for until it answers.
        root: its working folder.
        environment: its variables.

    Raises:
        ResourceError: it ended before it answered, or did not answer.
    """
    with TemporaryFile() as output, stop_signals() as signals:
        process = subprocess.Popen(
            command, cwd=root, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            env=environment,
        )  # fmt: skip
        try:
            signals.release()
            _wait_for_answer(name, asked, process, output.fileno())
            yield process
        finally:
            signals.hold()
            _end(process)


def _environment(uri: str | None) -> dict[str, str]:
    """The store is not an argument, which others can see: its address may hold a password."""
    # MLflow looks on PATH for the web server that it starts.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    store = {} if uri is None else {"MLFLOW_BACKEND_STORE_URI": uri}
    return {**os.environ, **LIGHT, **store, "PATH": path}


def open_in_browser(address: str) -> None:
    """Opens an address of the UI in a browser with windows, where this session has one."""
    has_windows = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not has_windows or not webbrowser.open(address):
        log.info("no browser was found in this session; open the address in one")


def free_port() -> int:
    """A port of this machine that no server has: MLflow's own, or the next one that is free.

    Raises:
        ResourceError: there is none among `NUM_PORTS`.
    """
    for port in range(USUAL_PORT, USUAL_PORT + NUM_PORTS):
        if _is_free(port):
            return port
    raise ResourceError(
        f"no port from {USUAL_PORT} to {USUAL_PORT + NUM_PORTS - 1} is free; name another one with --port"
    )


def _check_free(port: int) -> None:
    if not _is_free(port):
        raise InputError(f"port {port} is taken by another program; leave --port out, and a free one is used")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_for_answer(name: str, asked: str, process: subprocess.Popen[bytes], output: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = os.pread(output, 100_000, 0).decode(errors="replace").strip().splitlines()[-5:]
            raise ResourceError(f"{name} ended before it answered:\n" + scrubbed("\n".join(said)))
        try:
            urllib.request.urlopen(asked, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise ResourceError(
        f"{name} did not answer within {SECONDS_TO_START:.0f} s at {asked}; wait until the machine is less busy and "
        "try again, or start it in a shell to see what it says"
    )


class StopSignals:
    """Stop signals of the server's block: held at first and at the end, else each raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._held, self._came = True, False

    def on_signal(self, _number: int, _frame: object) -> None:
        """Takes a signal."""
        self._came = True
        if not self._held:
            raise KeyboardInterrupt

    def release(self) -> None:
        """Lets signals through; raises KeyboardInterrupt where one came before."""
        self._held = False
        if self._came:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Lets no further signal through."""
        self._held = True


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """The server's block takes Ctrl-C, SIGTERM and SIGHUP alike; one that is ignored, as by nohup, stays ignored."""
    signals = StopSignals()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.on_signal) for number in taken}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server with all its processes, which are in a session of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
