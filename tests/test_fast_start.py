"""A process that is started fast is given what any other one is."""

import json
import os
import signal
import subprocess
import sys

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
    "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "environment": dict(os.environ),
    "streams": streams, "signals": signals, "name": __name__, "umask": os.umask(0o22),
    "leads": os.getsid(0) == os.getpid(), "said": sys.stdin.readline(),
    "open": [number for number in range(100) if os.path.exists(f"/proc/self/fd/{number}")],
}))
sys.stderr.write("an error")
raise SystemExit(3)
"""


@pytest.mark.parametrize("own_session", [False, True])
def test_it_has_the_arguments_environment_signals_and_streams_of_an_ordinary_one(tmp_path, own_session):
    found = []
    for start in (subprocess.Popen, fast_start.Popen):
        with start(
            [sys.executable, "-c", TELL, "--a", "b c"],
            cwd=tmp_path, env=os.environ | {"A": "b"}, start_new_session=own_session,
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
