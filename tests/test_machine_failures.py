"""Failures of the machine, brought about for real: each ends in one error of ours, whatever library met it first."""

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy
import torch

from imgcls.errors import InputError
from imgcls.machine_failures import death, explain, oom_kills
from imgcls.record import Artifact
from imgcls.training.checkpoint import load_checkpoint, save_checkpoint
from tests import fast_start


@contextmanager
def limit(which, soft):
    before, hard = resource.getrlimit(which)
    resource.setrlimit(which, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (before, hard))


def full_disk(_):
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


def save_to_a_full_disk(_):
    """torch.save, whose own complaint hides the disk's."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        torch.save({"a": torch.zeros(100_000)}, file)


def file_size_limit(folder):
    with limit(resource.RLIMIT_FSIZE, 10_000):
        save_checkpoint(folder / "large.pt", {"a": torch.zeros(100_000)})


def open_files_limit(folder):
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    with ExitStack() as files, limit(resource.RLIMIT_NOFILE, highest):
        for number in range(highest + 1):
            files.enter_context((folder / str(number)).open("w"))


def full_database(folder):
    with sqlite3.connect(folder / "small.db") as database:
        database.execute("PRAGMA max_page_count = 4")
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 10_000,)] * 10)


def database_beyond_the_file_size_limit(folder):
    with limit(resource.RLIMIT_FSIZE, 20_000), sqlite3.connect(folder / "large.db") as database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 10_000,)] * 10)


def read_only_database(folder):
    sqlite3.connect(folder / "ro.db").execute("CREATE TABLE t (x)").connection.close()
    engine = sqlalchemy.create_engine(f"sqlite:///file:{folder}/ro.db?mode=ro&uri=true")
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO t VALUES (1)"))
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("bring_about", "what", "remedy"),
    [
        (full_disk, "no room is left on the disk of ", "imgcls clean"),
        (save_to_a_full_disk, "no room is left on the disk of ", "imgcls cache --prune"),
        (file_size_limit, "larger than this process may write", "ulimit -f"),
        (open_files_limit, "too many files open", "fewer --workers"),
        (full_database, "tracking store cannot be written (database or disk is full)", "free some space"),
        (database_beyond_the_file_size_limit, "tracking store cannot be written (disk I/O error)", "ulimit -f"),
        (read_only_database, "attempt to write a readonly database", "permissions"),
        (lambda _: torch.empty(10**15), "used up (asked for 4000000000000000 bytes)", "smaller train.batch_size"),
        (lambda _: np.empty(10**15), "used up (asked for 7.11 PiB)", "fewer --workers"),
        (lambda _: bytearray(2**62), "what this process may take of it, is used up", "smaller train.batch_size"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_real_failure_is_told_with_its_remedy(bring_about, what, remedy, tmp_path):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the library raises
        bring_about(tmp_path)
    told = explain(caught.value)
    assert told is not None, repr(caught.value)
    assert told.exit_code == 1
    text = str(told)
    assert what in text and remedy in text and "the same command goes on" in text
    assert "\n" not in text


def test_a_full_gpu_is_told():
    """As torch 2.15 words it; no GPU is needed to read a message."""
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8")
    assert "the memory of the GPU is used up (asked for 20.00 GiB)" in str(explain(error))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU's own allocator says that it is full")
def test_a_gpu_that_is_really_full_is_told():
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(10**13, device="cuda")
    assert "the memory of the GPU is used up (asked for 3" in str(explain(caught.value))


def wrapped(error, cause):
    try:
        raise error from cause
    except type(error) as raised:
        return raised


def handled(error, on_the_way):
    try:
        try:
            raise on_the_way
        except type(on_the_way):
            raise error  # noqa: B904
    except type(error) as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a mistake of ours"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        wrapped(InputError("said already"), OSError(errno.ENOSPC, "No space left")),
        handled(KeyError("a bug"), PermissionError(errno.EACCES, "Permission denied", "x")),
        ValueError("the column 'database or disk is full'"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_what_is_no_failure_of_the_machine_is_left_as_it_is(error):
    assert explain(error) is None


def test_the_cause_is_found_below_what_a_library_wrapped_around_it():
    error = wrapped(RuntimeError("the worker failed"), OSError(errno.EROFS, "Read-only file system", "/data/x"))
    assert str(explain(error)).startswith("/data/x lies on a disk that may only be read")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_says_by_what(number):
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    before = oom_kills()
    child.send_signal(number)
    child.communicate()
    told = death(child.returncode, before)
    assert f"(exit code {-number}: {number.name}" in told
    assert ("for want of memory" in told) == (number == signal.SIGKILL)


def test_a_kill_beside_one_of_the_kernel_for_want_of_memory_is_put_down_to_it_where_the_kernel_counts_them():
    now = oom_kills()
    told = death(-signal.SIGKILL, None if now is None else now - 1)
    assert ("as the kernel ran out of memory" in told) == (now is not None)


def test_an_exit_code_of_its_own_is_said_as_it_is():
    assert death(3, None) == "its worker process died (exit code 3)"


# --- the whole command ----------------------------------------------------------------------------------------------


LARGE = ("model.width=64", "train.epochs=200", "train.batch_size=64", "search.pruner=none")
"""A last checkpoint of some 15 MB, which is more than the store ever is."""

MIB = 2**20


def imgcls(root, *arguments, started_by=fast_start, **options):
    return started_by.Popen(
        [sys.executable, "-m", "imgcls", *arguments],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def train(root, *overrides, **options):
    sets = [part for override in overrides for part in ("--set", override)]
    return imgcls(root, "train", "tiny", *sets, **options)


def after_epoch(process, number):
    """What the process says until it has completed so many epochs."""
    for line in process.stderr:
        if f"epoch {number:>3}/" in line:
            return
    raise AssertionError("it ended before")


def one_error(process, exit_code=1):
    """The process's only complaint."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == exit_code, said
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    return errors[0]


def failed_with(project, reason):
    """The only run is FAILED for this reason, and its last state is whole; how many epochs that has."""
    (record,) = project.runs(kind="train")
    assert (record.status, record.outcome) == ("FAILED", "failed")
    assert reason in record.tags["imgcls.reason"]
    folder = (record.folder / Artifact.LAST).parent
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    load_checkpoint(record.folder / "checkpoints" / "best.pt")
    return load_checkpoint(record.folder / Artifact.LAST)["state"]["epoch"]


@pytest.mark.slow
def test_a_file_size_limit_fails_the_run_and_leaves_its_last_state_whole(project):
    process = train(project.root, *LARGE)
    after_epoch(process, 2)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8 * MIB, resource.RLIM_INFINITY))
    assert "larger than this process may write; raise the limit (ulimit -f)" in one_error(process)
    assert failed_with(project, "larger than this process may write") >= 1


@pytest.fixture
def small_disk(project):
    """The project on a disk of 60 MiB of its own."""
    kept = project.root.with_name(project.root.name + "-kept")
    project.root.rename(kept)
    project.root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(project.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(
            f"filling a disk takes a small one, and only root may mount it ({mounted.stderr.strip()}); the same errors "
            "are brought about without, by /dev/full and by limits, in the tests above"
        )
    subprocess.run(["cp", "-a", f"{kept}/.", str(project.root)], check=True)
    os.chdir(project.root)
    yield project
    os.chdir("/")
    subprocess.run(["umount", "--lazy", str(project.root)], check=True)  # MLflow keeps the store open


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_leaves_its_last_state_whole(small_disk):
    process = train(small_disk.root, *LARGE)
    after_epoch(process, 2)
    process.send_signal(signal.SIGSTOP)  # so that it is between two writes or in one, and nothing is raced
    with (small_disk.root / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free(small_disk.root) - 2 * MIB))
    process.send_signal(signal.SIGCONT)
    assert f"no room is left on the disk of {small_disk.root}" in one_error(process)
    assert failed_with(small_disk, "no room is left") >= 1


def free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.mark.slow
def test_a_disk_without_any_room_is_one_error_too(small_disk):
    """Not even the store can be written, so the run cannot be closed; the last state is whole all the same."""
    process = train(small_disk.root, *LARGE)
    after_epoch(process, 2)
    process.send_signal(signal.SIGSTOP)
    with (small_disk.root / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free(small_disk.root))
    process.send_signal(signal.SIGCONT)
    message = one_error(process)
    assert "no room is left" in message or "the tracking store cannot be written" in message
    (small_disk.root / "ballast").unlink()
    (record,) = small_disk.runs(kind="train")
    load_checkpoint(record.folder / Artifact.LAST)


@pytest.mark.slow
@pytest.mark.parametrize("has_store", [True, False])
def test_a_folder_that_may_only_be_read_is_one_error(small_disk, has_store):
    if not has_store:
        (small_disk.root / "mlflow.db").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.root)], check=True)
    message = one_error(train(small_disk.root), exit_code=1)
    assert "may only be read" in message or "permissions" in message


@pytest.mark.slow
def test_want_of_memory_fails_the_run_and_says_what_takes_less(project):
    # One activation of 1,024 x 64 x 224 x 224 float32 is 13 GB: more than is allowed, and never really taken.
    process = train(
        project.root, "data.image_size=224", "model.width=64", 'model.stem="small"', "train.batch_size=1024",
        started_by=subprocess,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (10 * 2**30, resource.RLIM_INFINITY)),
    )  # fmt: skip
    message = one_error(process)
    assert "memory" in message and "smaller train.batch_size" in message
    (record,) = project.runs(kind="train")
    assert record.status == "FAILED"
    assert record.tags["imgcls.reason"].startswith("the memory of this machine")


@pytest.mark.slow
def test_ctrl_c_before_anything_is_trained_is_one_line(project):
    process = train(project.root, started_by=subprocess)
    deadline = time.monotonic() + 120
    while b"torch" not in (mapped := Path(f"/proc/{process.pid}/maps").read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert b"torch" in mapped  # it is in the verb, importing
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("left at once; to go on")
    assert "Traceback" not in said
