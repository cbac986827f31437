import subprocess
import sys

import optuna
import pytest
from optuna.storages import JournalStorage

from imgcls.search.journal import Journal

HOLD = """
import sys, os, pathlib
from imgcls.search.journal import _Lock
_Lock(pathlib.Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def study(path):
    return optuna.create_study(storage=JournalStorage(Journal(path)), study_name="s", load_if_exists=True)


@pytest.mark.parametrize("kept", [1, 10, 40])
def test_half_a_line_of_a_killed_writer_is_cut_off(tmp_path, kept):
    path = tmp_path / "s.journal"
    before = study(path)
    before.tell(before.ask(), 1.0)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(whole.splitlines()[-1][:kept])
    after = study(path)
    assert [trial.value for trial in after.trials] == [1.0]
    after.tell(after.ask(), 2.0)
    assert [trial.value for trial in study(path).trials] == [1.0, 2.0]
    assert path.read_bytes().startswith(whole)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "s.journal"
    study(path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    after = study(path)
    after.tell(after.ask(), 2.0)
    assert [trial.value for trial in after.trials] == [2.0]
