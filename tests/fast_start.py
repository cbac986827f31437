"""Processes of Python that begin with the libraries of imgcls imported: each is forked from one that did nothing else.

To import them takes some seconds of CPU, and hundreds of tests start, kill and wait for processes of their own. What
such a process runs, its signals, streams, folder, environment and exit are its own. Where the start itself is what
is tested, and with variables that Python or libraries read while they start (PYTHONPATH is one), use `subprocess`.
"""

import atexit
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from functools import cache
from pathlib import Path

LIBRARIES = (
    "imgcls.cli", "imgcls.evaluation.judge", "imgcls.inference.classifier", "imgcls.library.verbs", "imgcls.runs.train",
    "imgcls.search.local_worker", "imgcls.search.sweep", "matplotlib.figure", "scipy.stats", "sklearn.metrics",
    "torch._dynamo",
)  # fmt: skip


UNCHANGED = {
    "executable": None, "preexec_fn": None, "close_fds": True, "pass_fds": (), "shell": False, "restore_signals": True,
    "gid": None, "gids": None, "uid": None, "umask": -1, "process_group": -1,
}  # fmt: skip
"""Options that such a process cannot have, with what `subprocess` passes where they are not given."""

TERMINAL = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals that a terminal, or whoever ends the tests, sends to all processes: these are for the tests to act on."""

ENVIRONMENT = dict(os.environ)
"""As no test has changed it."""


class Popen(subprocess.Popen):
    """`subprocess.Popen` of `[sys.executable, "-m", MODULE, ...]` or `[sys.executable, "-c", PROGRAM, ...]`."""

    def _execute_child(self, *arguments):
        given = inspect.signature(super()._execute_child).bind(*arguments).arguments
        program, *words = given["args"]
        assert program == sys.executable
        assert all(given[name] == value for name, value in UNCHANGED.items())
        request = {
            "arguments": list(map(str, words)),
            "folder": str(Path(given["cwd"] or ".").resolve(strict=True)),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "own_session": bool(given["start_new_session"]),
        }
        theirs_of = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [own if stream == -1 else stream for own, stream in enumerate(theirs_of)]
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_server(), [json.dumps(request).encode()], [*streams, theirs.fileno()])
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))
        self.pid = self._answer()
        self._child_created = True

    def _answer(self):
        if not (answer := self._answers.recv(100)):
            raise RuntimeError("the process that starts others is gone; what it wrote to stderr says why")
        return int(answer)

    def _try_wait(self, wait_flags):
        if wait_flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        status = self._answer()
        self._answers.close()
        return self.pid, status

    def _internal_poll(self, *_, **__):
        if self.returncode is None and (found := self._try_wait(os.WNOHANG))[0]:
            self._handle_exitstatus(found[1])
        return self.returncode


def run(command, *, capture_output=False, check=False, **options):
    """`subprocess.run` of such a process."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        out, err = process.communicate()
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


if sys.platform != "linux":  # its forks and sockets are those that are needed here
    Popen, run = subprocess.Popen, subprocess.run


@cache
def _server():
    """A connection to the process from which the others are forked; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        environment = ENVIRONMENT | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
        server = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment, cwd="/"
        )
    atexit.register(_end, ours, server)
    return ours


def _end(connection, server):
    connection.shutdown(socket.SHUT_RDWR)  # to close it would not do where a fork of this process has it too
    connection.close()
    server.wait()


def _serve(requests):
    """Answers until nobody can ask any more.

    Returns:
        In each process that is asked for: what is asked, its three streams, and where it says that it has begun.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    own = {name: signal.signal(name, signal.SIG_IGN) for name in TERMINAL}
    while True:
        message, streams, *_ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            sys.exit()
        if os.fork():
            for number in streams:
                os.close(number)
            continue
        requests.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        answers = socket.socket(fileno=streams.pop())
        if not (child := os.fork()):
            for name, handler in own.items():
                signal.signal(name, handler)
            return json.loads(message), streams, answers
        for number in streams:
            os.close(number)
        status = os.waitpid(child, 0)[1]
        try:
            answers.send(str(status).encode())
        finally:
            os._exit(0)


def _become(request, streams):
    """Gives this process what a new one would have been given."""
    if request["own_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        if stream > 2:
            os.close(stream)
    sys.stdin = sys.__stdin__ = _opened(0, "r", sys.stdin)
    sys.stdout = sys.__stdout__ = _opened(1, "w", sys.stdout)
    sys.stderr = sys.__stderr__ = _opened(2, "w", sys.stderr)
    is_buffered = not os.environ.get("PYTHONUNBUFFERED")
    sys.stdout.reconfigure(line_buffering=is_buffered and sys.stdout.isatty(), write_through=not is_buffered)
    sys.stderr.reconfigure(line_buffering=is_buffered, write_through=not is_buffered)


def _opened(number, mode, like):
    return open(number, mode, encoding=like.encoding, errors=like.errors, closefd=False)


def _run(arguments):
    """Does what `python` does with these arguments."""
    safe = arguments[0] == "-P" and arguments.pop(0)
    option, what, *others = arguments
    if not safe:
        sys.path.insert(0, str(Path.cwd()) if option == "-m" else "")
    sys.argv = [option, *others]
    if option == "-m":
        sys.argv[0] = what
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert option == "-c"
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    import gc
    from importlib import import_module

    for library in LIBRARIES:
        import_module(library)
    gc.freeze()
    request, streams, answers = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(request, streams)
    with answers:
        answers.send(str(os.getpid()).encode())
    _run(request["arguments"])
