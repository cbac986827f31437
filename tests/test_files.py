"""Locks and second names of files, on file systems that have them and on what the kernel makes one that has not."""

import errno
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from imgcls.errors import InputError
from imgcls.files import link_or_copy, output_file, put_in_place
from imgcls.machine_failures import explain
from tests import refusals

needs_filters = pytest.mark.skipif(
    not refusals.IS_POSSIBLE,
    reason="the file systems without locks are played by seccomp filters, written for Linux on x86-64",
)

ROOT = Path(__file__).parent.parent


def run(program, *arguments, **environment):
    """Another process, with the folder of the tests among its modules."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


EACH = """
import os, sys
for number in map(int, sys.argv[2:]):  # what a child refuses, it refuses for good
    child = os.fork()
    if not child:
        break
    assert os.waitpid(child, 0)[1] == 0, number
else:
    sys.exit()
folder = Path(sys.argv[1]) / str(number)
folder.mkdir()
sys.stdout = open(folder / "stdout", "w")
"""
"""Goes on once for each number in a child of its own: what was imported is imported once."""


def each(imports, program, tmp_path, numbers):
    """Runs a program once for each number; (number, lines that it wrote), each."""
    done = run(imports + EACH + program, tmp_path, *numbers)
    assert done.returncode == 0, done.stderr
    return [(number, (tmp_path / str(number) / "stdout").read_text().splitlines()) for number in numbers]


LINKS = """
import errno
from pathlib import Path
from imgcls.files import link_or_copy, output_file, put_in_place
from imgcls.tracking.claims import claim, claims_id
from imgcls.tracking.outbox import Outbox
from tests import refusals
"""

WITHOUT_LINKS = """
refusals.install(refusals.without_links(number))
source = folder / "source"
source.write_text("content")
try:
    os.link(source, folder / "second")
except OSError as error:
    print("refused", error.errno)
link_or_copy(source, folder / "second")
print((folder / "second").read_text())
put_in_place(folder / "second", folder / "third")
print((folder / "third").read_text(), (folder / "second").exists())
try:
    put_in_place(source, folder / "third")
except FileExistsError as error:
    print("exists", error.filename)
print(claims_id(folder) == claims_id(folder))
with claim(folder, "run", "run 1"):
    pass
outbox = Outbox(folder / "outbox", "server", None)
with outbox.writing() as writing:
    (writing / "note.txt").write_text("hello")
    outbox.append_artifact("1", "note.txt", writing / "note.txt")
with outbox.staged("1", "note.txt") as staged:
    print(staged.read_text())
with outbox.staged("1", "other.txt") as staged:
    print(staged)
"""


@needs_filters
@pytest.mark.slow
def test_without_second_names_everything_goes_on(tmp_path):
    numbers = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
    for number, lines in each(LINKS, WITHOUT_LINKS, tmp_path, numbers):
        third = tmp_path / str(number) / "third"
        assert lines == [
            f"refused {number}", "content", "content False", f"exists {third}", "True", "hello", "None",
        ]  # fmt: skip


LOCKS = """
from pathlib import Path
from imgcls.errors import ResourceError
from imgcls.files import check_locks
from imgcls.search.journal import Journal
from imgcls.tracking.claims import claim, claims_id, is_claimed
from imgcls.tracking.outbox import Outbox
from tests import refusals
"""

WITHOUT_LOCKS = """
(folder / "mlruns" / ".claims").mkdir(parents=True)
(folder / "mlruns" / ".claims" / "run.lock").touch()
refusals.install(refusals.without_locks(number))
for attempt in (
    lambda: claim(folder, "run", "run 1").__enter__(),
    lambda: is_claimed(folder, "run"),
    lambda: claims_id(folder),
    lambda: check_locks(folder),
    lambda: Outbox(folder / "outbox", "server", None).append("1", {"op": "batch"}),
    lambda: Journal(folder / "study.journal").append_logs([{}]),
):
    try:
        attempt()
    except ResourceError as error:
        print(error)
"""


@needs_filters
@pytest.mark.slow
def test_without_locks_the_file_system_is_named_and_no_process(tmp_path):
    for number, lines in each(LOCKS, WITHOUT_LOCKS, tmp_path, (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)):
        assert len(lines) == 6
        for line in lines:
            assert f"has no locks ({os.strerror(number)})" in line
            assert "put the project on a local disk" in line
            assert "already running" not in line and "permissions" not in line
            assert str(tmp_path / str(number)) in line


TRAIN = """
import sys
from tests import refusals
refusals.install(getattr(refusals, sys.argv.pop(1))())
from imgcls.cli import main
main()
"""


@pytest.mark.slow
@needs_filters
def test_a_project_is_trained_without_second_names_and_refused_without_locks(project):
    (project.root / "mlflow.db").unlink()  # so that it is made there
    short = ("--set", "train.epochs=1", "--set", "train.warmup_epochs=0")
    done = run(TRAIN, "without_links", "train", "tiny", *short)
    assert done.returncode == 0, done.stderr
    assert [record.outcome for record in project.runs(kind="train")] == ["completed"]
    refused = run(TRAIN, "without_locks", "train", "tiny", *short)
    assert refused.returncode == 1
    assert "has no locks" in refused.stderr and "Traceback" not in refused.stderr


def test_a_second_name_is_the_same_file_where_there_can_be_one(tmp_path):
    source = tmp_path / "source"
    source.write_text("content")
    link_or_copy(source, tmp_path / "second")
    assert (tmp_path / "second").samefile(source)
    with pytest.raises(FileExistsError):
        put_in_place(source, tmp_path / "second")
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "nothing", tmp_path / "third")


@pytest.mark.parametrize(
    ("number", "said", "unsaid"),
    [
        (errno.EACCES, "mend its permissions", "file system"),
        (errno.EPERM, "a file system that cannot do it", "mend its permissions"),
        (errno.ENOLCK, "has no locks", "permissions"),
        (errno.EOPNOTSUPP, "cannot do what is asked of it", "permissions"),
        (errno.EIO, "a failing disk, a lost mount or a terminal that is gone", "permissions"),
        (errno.ESTALE, "mount it again", "permissions"),
        (errno.ENOTCONN, "mount it again", "permissions"),
    ],
)
def test_an_error_of_the_system_is_told_by_its_number(number, said, unsaid):
    text = str(explain(OSError(number, os.strerror(number), "/project/file")))
    assert "/project/file" in text
    assert said in text and unsaid not in text


@pytest.mark.parametrize("before", [None, "older"])
def test_a_file_for_output_is_there_whole_or_as_it_was(tmp_path, before):
    target = tmp_path / "out.csv"
    if before:
        target.write_text(before)
    with suppress(ZeroDivisionError), output_file(target, "--csv") as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"out.csv": before} if before else {})
    with output_file(target, "--csv") as aside:
        assert aside.read_text() == ""
        aside.write_text("whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.csv": "whole"}


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_one(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name, pid in (("table.csv", process.pid), ("table.csv", os.getppid()), ("other.csv", process.pid)):
        (tmp_path / f".{name}.{socket.gethostname()}.{pid}").touch()
    with output_file(tmp_path / "table.csv", "--csv") as path:
        path.write_text("whole")
    left = sorted(path.name.rpartition(".")[2] for path in tmp_path.glob(".*"))
    assert left == sorted([str(os.getppid()), str(process.pid)]) and (tmp_path / "table.csv").read_text() == "whole"


def test_a_folder_that_takes_no_file_is_not_called_missing():
    with (
        pytest.raises(InputError, match=r"^--csv /proc/x\.csv cannot be written"),
        output_file(Path("/proc/x.csv"), "--csv"),
    ):
        pass
