"""Whatever writes to a terminal never ends the work: real processes, pipes, terminals, full disks."""

import fcntl
import io
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios

import pytest

TALK = """
import logging, sys, warnings
from tqdm import tqdm
from imgcls.terminal import guard_streams, undelivered
guard_streams()
logging.basicConfig(level="INFO", stream=sys.stderr)
for number in tqdm(range(3000), disable=False, file=sys.stderr, mininterval=0):
    print("so viele wie möglich → 名", number)
    logging.info("Straße %d", number)
warnings.warn("the last word: ß")
with open(sys.argv[1], "w") as file:
    print(file.fileno(), undelivered(sys.stdout), sep=",", file=file)
"""


@pytest.mark.parametrize(
    ("redirected", "reason"),
    [
        ("", ""),
        ("| head -n 1", "Broken pipe"),
        ("2>&1 | head -n 1", "Broken pipe"),
        ("2>&1 >/dev/null | head -n 1", ""),
        (">&-", "it was closed"),
        ("2>&-", ""),
        ("<&- >&- 2>&-", "it was closed"),
        (">/dev/full", "No space left on device"),
        (">/dev/full 2>/dev/full", "No space left on device"),
        ("2>/dev/full", ""),
    ],
)
def test_streams_take_whatever_is_written(tmp_path, redirected, reason):
    command = f"{shlex.join([sys.executable, '-c', TALK, str(tmp_path / 'witness')])} {redirected}"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    number, why = (tmp_path / "witness").read_text().strip().split(",")
    assert int(number) > 2, "a file was opened in the place of a stream, where others would write into it"
    assert why == reason


SPAWN = """
import os, subprocess, sys
from imgcls.terminal import guard_streams
guard_streams()
look = "import os, sys; open(sys.argv[1], 'w').write(str(os.open('/dev/null', os.O_RDONLY)))"
sys.exit(subprocess.run([sys.executable, "-c", look, sys.argv[1]]).returncode)
"""


def test_closed_streams_are_not_closed_for_the_processes_that_are_started(tmp_path):
    """Such as the workers of a sweep: what they open first would get the number of a stream."""
    command = shlex.join([sys.executable, "-c", SPAWN, str(tmp_path / "witness")])
    subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], check=True)
    assert int((tmp_path / "witness").read_text()) > 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_the_encoding_lacks_is_spelt_out(tmp_path, encoding):
    done = subprocess.run(
        [sys.executable, "-c", TALK, str(tmp_path / "witness")],
        env=os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first = "so viele wie möglich → 名 0".encode(encoding, "backslashreplace")
    assert done.stdout.splitlines()[0] == first


def test_a_pipe_that_does_not_block_gets_all_of_it(tmp_path):
    read, write = os.pipe()
    os.set_blocking(write, False)
    with subprocess.Popen(
        [sys.executable, "-c", TALK, str(tmp_path / "witness")], stdout=write, stderr=write
    ) as process:
        os.close(write)
        with os.fdopen(read, "rb") as file:
            text = file.read().decode()
    assert process.returncode == 0
    assert "→ 名 2999\n" in text and "INFO:root:Straße 2999\n" in text and "the last word" in text


class Broken(io.StringIO):
    """As a pipe whose reader has left."""

    def write(self, _):
        raise BrokenPipeError(32, "Broken pipe")

    def isatty(self):
        return True


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken, closed, lambda: None], ids=["broken", "closed", "none"])
def test_a_program_with_a_broken_stderr_of_its_own_trains_on(project, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    done = project.train("train.epochs=2")
    monkeypatch.undo()
    assert project.client.get_run(done.run_id).info.status == "FINISHED"
    assert done.num_epochs == 2


IMGCLS = (sys.executable, "-m", "imgcls")
TRAIN = (*IMGCLS, "train", "tiny")


def scores(project, run_id):
    """Every point of every curve, read by MLflow's own client."""
    names = ("train/loss", "val/loss", "val/accuracy")
    return [[point.value for point in project.client.get_metric_history(run_id, name)] for name in names]


@pytest.fixture(scope="module")
def undisturbed(make_project):
    made = make_project()
    return scores(made, made.train().run_id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "code"),
    [("2>&1 | head -n 1", 0), ("--json >/dev/full", 1)],
)
def test_a_run_that_nobody_reads_is_whole(project, undisturbed, redirected, code):
    command = f"{shlex.join(TRAIN)} {redirected}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=project.root, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert code == 0 or "error: the JSON could not be written to stdout" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = project.client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert scores(project, run.info.run_id) == undisturbed


def on_terminal(project, *command, owns_it):
    """Starts a command on a terminal of its own, and waits for its first epoch.

    Args:
        owns_it: the terminal's end is told to the process, by SIGHUP.
    """
    here, there = pty.openpty()

    def take():
        os.setsid()
        if owns_it:
            fcntl.ioctl(there, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(command, cwd=project.root, stdin=there, stdout=there, stderr=there, preexec_fn=take)
    os.close(there)
    seen = b""
    while b"val/loss" not in seen:
        seen += os.read(here, 4096)
    return process, here


DEAF = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
"""As `nohup` starts a command, which also leads its output elsewhere."""


@pytest.mark.slow
@pytest.mark.parametrize(("before", "owns_it"), [((), False), (DEAF, True)], ids=["not told", "told, and deaf to it"])
def test_a_terminal_that_goes_away_does_not_end_a_run(project, undisturbed, before, owns_it):
    process, terminal = on_terminal(project, *before, *TRAIN, owns_it=owns_it)
    os.close(terminal)
    assert process.wait() == 0
    (run,) = project.client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert scores(project, run.info.run_id) == undisturbed


@pytest.mark.slow
def test_a_terminal_that_says_that_it_goes_away_interrupts_a_run(project):
    process, terminal = on_terminal(project, *TRAIN, "--set", "train.epochs=5000", owns_it=True)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)  # the shell tells its jobs as well
    assert process.wait() == 1
    (run,) = project.client.search_runs(["1"])
    assert (run.info.status, run.data.tags["imgcls.outcome"]) == ("KILLED", "interrupted")


@pytest.mark.slow
def test_a_sweep_of_two_workers_whose_streams_are_closed_is_whole(project):
    sweep = shlex.join([*IMGCLS, "sweep", "tiny", "--trials", "4", "--workers", "2"])
    command = f"{sweep} >&- 2>&- <&-"
    done = subprocess.run(["bash", "-c", command], cwd=project.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    runs = project.client.search_runs(["1"])
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
