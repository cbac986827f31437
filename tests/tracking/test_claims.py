import signal
import subprocess
import sys
import time

import pytest

from imgcls.errors import InputError
from imgcls.tracking.claims import ClaimedError, claim, claims_id, is_claimed
from imgcls.tracking.origin import is_beating

HOLD = """
import sys, pathlib
from imgcls.tracking.claims import claim
with claim(pathlib.Path(sys.argv[1]), "run", "run 1"):
    print("held", flush=True)
    sys.stdin.read()
"""

LOOK = """
import sys, pathlib
from imgcls.tracking.claims import is_claimed
print(is_claimed(pathlib.Path(sys.argv[1]), "other"))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the claim `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_claim_keeps_others_out_and_names_its_holder(tmp_path, holder):
    assert is_claimed(tmp_path, "run")
    with (
        pytest.raises(ClaimedError, match=f"run 1 is already running .process {holder.pid}."),
        claim(tmp_path, "run", "run 1"),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_kernel_frees_the_claim_of_a_killed_process(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert not is_claimed(tmp_path, "run")
    with claim(tmp_path, "run", "run 1"):
        assert is_claimed(tmp_path, "run")
    assert not is_claimed(tmp_path, "run")


def test_a_claim_is_not_given_twice_to_the_same_process(tmp_path):
    with claim(tmp_path, "run", "run 1"):
        with pytest.raises(InputError), claim(tmp_path, "run", "run 1"):
            pass
        with claim(tmp_path, "other", "run 2"):
            assert is_claimed(tmp_path, "run")


def test_looking_does_not_free_a_claim_of_ones_own(tmp_path):
    with claim(tmp_path, "other", "run 2"):
        assert is_claimed(tmp_path, "other")
        done = subprocess.run([sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


def test_claims_leave_no_files(tmp_path):
    with claim(tmp_path, "run", "run 1"):
        pass
    assert list((tmp_path / "mlruns" / ".claims").iterdir()) == []


def test_a_folder_of_claims_keeps_its_name(tmp_path):
    assert claims_id(tmp_path / "a") == claims_id(tmp_path / "a") != claims_id(tmp_path / "b")


@pytest.mark.parametrize(("seconds", "beating"), [(30, True), (700, False)])
def test_of_a_run_elsewhere_the_heartbeat_tells(seconds, beating):
    assert is_beating({"imgcls.heartbeat": f"{time.time() - seconds:.0f}"}) is beating
