"""How worker processes start: a real server, real forks, kill -9."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from imgcls.machine_failures import death
from imgcls.search.worker_start import PRELOADED, hear_sigterm, started
from imgcls.signals import GracefulStop, stop_requested

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux",
        reason="the server is of Linux alone; test_workers.py trains with spawned workers elsewhere",
    ),
]


def start(work, *arguments, **variables):
    """A worker and our end of its pipe."""
    here, there = multiprocessing.Pipe()
    process = started(work, there, *arguments, variables=variables)
    there.close()
    return process, here


def answered(pipe):
    assert pipe.poll(120), "no answer"
    return pipe.recv()


def tell(pipe):
    """What a worker finds before it does anything."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    pipe.send(
        {
            "environment": dict(os.environ),
            "modules": set(sys.modules),
            "ignored": [each for each in signal.Signals if signal.getsignal(each) is signal.SIG_IGN],
            "parent": int(status["PPid"]),
            "folder": str(Path.cwd()),
        }
    )


def test_a_worker_is_forked_with_everything_imported_and_has_the_environment_of_now(monkeypatch, tmp_path):
    first, pipe = start(tell)
    before = answered(pipe)
    assert {*PRELOADED, "mlflow", "optuna", "torch", "sqlalchemy"} <= before["modules"]
    assert before["parent"] != os.getpid()
    assert {signal.SIGINT, signal.SIGHUP} <= set(before["ignored"])
    monkeypatch.setenv("IMGCLS_CACHE", "elsewhere")
    monkeypatch.delenv("PATH")
    monkeypatch.chdir(tmp_path)
    second, pipe = start(tell, RANK="1")
    after = answered(pipe)
    assert after["environment"] == {**os.environ, "RANK": "1"}
    assert after["folder"] == str(tmp_path)
    assert after["parent"] == before["parent"], "the same server"
    for process in (first, second):
        process.join()
        assert process.exitcode == 0


def test_the_server_has_no_thread_of_python_no_cuda_and_no_database():
    process, pipe = start(tell)
    server = answered(pipe)["parent"]
    files = [str(path.readlink()) for path in Path(f"/proc/{server}/fd").iterdir()]
    assert files and not [path for path in files if path.startswith(("/dev/nvidia", "/dev/shm")) or ".db" in path]
    process.join()
    # The same imports in a process that can be asked. A thread of Python would not survive the fork, nor would CUDA.
    program = (
        "import importlib, sys, threading, torch\n"
        f"for name in {PRELOADED}: importlib.import_module(name)\n"
        "print([each.name for each in threading.enumerate()], torch.cuda.is_initialized())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "['MainThread'] False\n"


def wait_to_be_stopped(pipe):
    with GracefulStop():
        pipe.recv()
        hear_sigterm()
        pipe.send(stop_requested())
        pipe.recv()


def test_a_request_to_stop_that_comes_before_the_worker_can_hear_it_is_not_lost():
    process, pipe = start(wait_to_be_stopped)
    process.terminate()
    pipe.send("go on")
    assert answered(pipe) == "SIGTERM"
    pipe.send("leave")
    process.join()
    assert process.exitcode == 0


def tell_and_wait(pipe):
    tell(pipe)
    pipe.recv()


def test_how_a_worker_ended_is_told():
    process, pipe = start(tell_and_wait)
    answered(pipe)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_the_workers_of_a_killed_server_leave_and_the_next_has_a_new_one():
    process, pipe = start(tell_and_wait)
    server, end = answered(pipe)["parent"], os.pidfd_open(process.pid)
    os.kill(server, signal.SIGKILL)
    assert wait([end], timeout=60), "it goes on with a job that another worker is given"
    os.close(end)
    process.join()
    assert "as the one from which it was forked died" in death(process.exitcode, None)
    process, pipe = start(tell)
    assert answered(pipe)["parent"] not in (server, os.getpid())
    process.join()


def _as_a_driver(pipe):
    with pytest.raises(ChildProcessError):
        forkserver.ensure_running()
    process, from_worker = start(tell)
    found = answered(from_worker)
    process.join()
    pipe.send((found["parent"] == os.getpid(), process.exitcode))


def test_a_driver_that_was_forked_from_one_with_a_server_spawns_its_workers():
    process, pipe = start(tell)
    answered(pipe)
    process.join()
    here, there = multiprocessing.Pipe()
    driver = multiprocessing.get_context("fork").Process(target=_as_a_driver, args=(there,))
    driver.start()
    assert answered(here) == (True, 0)
    driver.join()


DRIVER = """
from tests.search.test_worker_start import answered, start, tell_and_wait
if __name__ == "__main__":
    process, pipe = start(tell_and_wait)
    print(process.pid, answered(pipe)["parent"], flush=True)
    input()
"""


def test_the_worker_and_the_server_of_a_killed_driver_leave(tmp_path):
    """The driver's folder has a file with the name of a library, which the driver would not import either."""
    (tmp_path / "optuna.py").write_text("raise SystemExit('not the library')")
    program = tmp_path / "bin" / "driver.py"
    program.parent.mkdir()
    program.write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        ends = [os.pidfd_open(int(pid)) for pid in driver.stdout.readline().split()]
        assert len(ends) == 2
        driver.kill()
    for end in ends:
        assert wait([end], timeout=60), "a process outlived its driver"
        os.close(end)
