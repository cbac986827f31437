"""A process that is started fast is given what any other one is."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fast_start

pytestmark = pytest.mark.slow  # the process from which others are forked imports all libraries

TELL = """
import json, os, signal, sys
streams = {
    name: (stream.encoding, stream.errors, stream.line_buffering, stream.fileno())
    for name, stream in (("in", sys.stdin), ("out", sys.stdout), ("err", sys.stderr))
}
signals = {number.name: str(signal.getsignal(number)) for number in signal.Signals}
print(json.dumps({
    "arguments": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
    "streams": streams, "signals": signals, "name": __name__, "umask": os.umask(0o22),
    "leads": os.getsid(0) == os.getpid(), "said": sys.stdin.readline(),
    "open": [number for number in range(100) if os.path.exists(f"/proc/self/fd/{number}")],
}))
sys.stderr.write("an error")
raise SystemExit(3)
"""


@pytest.mark.parametrize("own_session", [False, True])
@pytest.mark.parametrize("safe", [(), ("-P",)])
def test_it_has_the_arguments_environment_signals_and_streams_of_an_ordinary_one(tmp_path, own_session, safe):
    environment = os.environ | {"A": "b", "PYTHONPATH": os.pathsep.join(sys.path)}  # the modules of the tests
    found = []
    for start in (subprocess.Popen, fast_start.Popen):
        with start(
            [sys.executable, *safe, "-c", TELL, "--a", "b c"],
            cwd=tmp_path, env=environment, start_new_session=own_session,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            out, err = process.communicate("a line\n")
        found.append((process.returncode, json.loads(out), err))
    assert found[0] == found[1]
    assert found[0][0] == 3 and found[0][1]["leads"] is own_session and found[0][1]["said"] == "a line\n"


def test_a_module_has_its_name_and_folder(tmp_path):
    (tmp_path / "told.py").write_text("import sys; print(__name__, sys.path[0], sys.argv[1:], __spec__.name)")
    command = [sys.executable, "-m", "told", "x"]
    said = [
        start(command, cwd=tmp_path, capture_output=True, text=True).stdout
        for start in (subprocess.run, fast_start.run)
    ]
    assert said[0] == said[1] != ""


def test_it_is_killed_and_waited_for_as_an_ordinary_one():
    process = fast_start.Popen(
        [sys.executable, "-c", "print('begun', flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"begun\n" and process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    process.kill()
    assert process.wait() == process.poll() == -signal.SIGKILL
    process.communicate()


def test_a_process_in_its_own_session_can_be_killed_as_soon_as_it_is_there():
    for _ in range(20):
        process = fast_start.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()


def test_a_terminal_s_signal_reaches_it_and_none_of_those_that_start_it(tmp_path):
    """In a session of its own, whose leader tells the whole group."""
    program = """
import os, signal, subprocess, sys
from tests import fast_start
signal.signal(signal.SIGINT, lambda *_: None)
code = "import time; print(flush=True); time.sleep(600)"
process = fast_start.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
process.stdout.readline()
os.killpg(0, signal.SIGINT)
print(process.wait(), fast_start.run([sys.executable, "-c", "raise SystemExit(7)"]).returncode)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, start_new_session=True,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.split() == [str(-signal.SIGINT), "7"], done.stderr


def test_a_folder_that_is_not_there_is_an_error_of_the_start(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fast_start.Popen([sys.executable, "-c", ""], cwd=tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is subprocess.Popen itself, which takes umask")
def test_an_option_that_it_cannot_have_is_no_silent_default():
    with pytest.raises(AssertionError):
        fast_start.Popen([sys.executable, "-c", ""], umask=0o77)


def test_the_tests_end_although_a_fork_of_theirs_lives():
    program = """
import multiprocessing, sys, time
from tests import fast_start
assert fast_start.run([sys.executable, "-c", ""]).returncode == 0
multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
