"""Addresses of a study's storage, without a server; with one: test_shared_storage.py."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.storages import JournalStorage

from imgcls.errors import ConfigError, InputError, Interrupted
from imgcls.file_systems import file_system_of, network_file_system
from imgcls.search import patient_storage, storage
from imgcls.search.storage import VARIABLE, check_storage, open_storage, shared_address
from imgcls.tracking.credentials import scrubbed
from tests.postgres import free_port
from tests.shell import typed
from tests.stops import StopAfter

MOUNTS = r"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:45 / /home rw,nosuid shared:9 - nfs4 server:/export rw,vers=4.2
31 30 0:46 / /home/local rw - xfs /dev/sdb1 rw
32 22 0:47 / /mnt/two\040words rw - cifs //server/share rw
33 22 0:48 / /over rw - ext4 /dev/sdc1 rw
34 22 0:49 / /over rw master:1 propagate_from:2 - fuse.sshfs me@host: rw
""".strip().splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"), ("/srv/x", "ext4"), ("/home", "nfs4"), ("/home/me/project", "nfs4"), ("/homely", "ext4"),
        ("/home/local/x", "xfs"), ("/mnt/two words/x", "cifs"), ("/mnt/two", "ext4"), ("/over/x", "fuse.sshfs"),
    ],
)  # fmt: skip
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, kind):
    assert file_system_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("path", ["/", "/tmp", "/proc/self", "/dev/shm", "/sys"])
def test_the_file_system_of_a_path_is_what_findmnt_says(path):
    said = subprocess.check_output(["findmnt", "-n", "-o", "FSTYPE", "-T", path], text=True).split()
    assert file_system_of(Path(path).resolve(), Path("/proc/self/mountinfo").read_text().splitlines()) == said[-1]
    assert not network_file_system(Path(path))


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "folder" / "s.journal"


@pytest.mark.parametrize("asked", ["auto", "journal"])
def test_a_journal_is_the_default(journal, asked):
    assert isinstance(open_storage(asked, journal), JournalStorage)
    assert journal.is_file()


def test_a_journal_on_a_network_file_system_is_refused_unless_it_is_asked_for(journal, monkeypatch):
    monkeypatch.setattr(storage, "network_file_system", lambda path: "nfs4" if path == journal else "")
    with pytest.raises(ConfigError, match=r"\(nfs4\).*set IMGCLS_STUDY_STORAGE to .*--set search.storage=journal$"):
        open_storage("auto", journal)
    assert not journal.parent.exists()
    assert isinstance(open_storage("journal", journal), JournalStorage)


def test_the_key_goes_before_the_variable(monkeypatch):
    assert shared_address("auto") == ""
    monkeypatch.setenv(VARIABLE, "postgresql://me:password@host/studies")
    assert shared_address("auto") == "postgresql://me:password@host/studies"
    assert shared_address("grpc://host:13000") == "grpc://host:13000"
    assert shared_address("journal") == ""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("sqlite:///studies.db", "SQLite is a file of one machine"),
        ("mysql://me@host/studies", "a study is kept in a journal, in PostgreSQL or behind"),
        ("studies.journal", "a study is kept in a journal, in PostgreSQL or behind"),
        ("postgres://host/studies", "a study is kept in a journal, in PostgreSQL or behind"),
        ("postgresql://me@host", "name a database"),
        ("postgresql://me@host:many/studies", "not an address"),
        ("grpc://host", "write grpc://HOST:PORT"),
        ("grpc://host:13000/studies", "write grpc://HOST:PORT"),
        ("grpc://me:word@host:13000", "no user or password"),
    ],
)
@pytest.mark.parametrize("by_key", [True, False])
def test_an_address_that_cannot_be_one_of_a_study_is_refused(address, why, by_key, monkeypatch):
    monkeypatch.setenv(VARIABLE, "journal" if by_key else address)
    with pytest.raises(ConfigError, match=why) as refused:
        shared_address(address if by_key else "auto")
    assert str(refused.value).startswith("search.storage = " if by_key else f"{VARIABLE} = ")


@pytest.mark.parametrize(
    "address", ["postgresql://me:secretword@host/db", "postgresql://me@host/db?password=secretword"]
)
def test_a_password_in_the_key_is_refused_and_not_said(address):
    with pytest.raises(
        ConfigError, match=r"can be read by others; put the whole address into IMGCLS_STUDY_STORAGE"
    ) as refused:
        shared_address(address)
    assert "secretword" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_that_is_not_there_is_named_by_host_and_port(scheme, monkeypatch):
    port = free_port()
    monkeypatch.setenv(VARIABLE, f"{scheme}://me:secretword@127.0.0.1:{port}/studies")
    with pytest.raises(
        InputError, match=f"storage at 127.0.0.1:{port} cannot be opened: .*refused.*correct {VARIABLE}"
    ) as refused:
        check_storage("auto")
    assert "secretword" not in str(refused.value)


@pytest.fixture
def away(monkeypatch):
    """A server in the environment that is not there; gives its place."""
    place = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv(VARIABLE, f"postgresql://me:secretword@{place}/studies")
    return place


def test_a_server_that_stays_away_interrupts_in_the_end(away, journal, monkeypatch, caplog):
    slept = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(patient_storage, "time", clock)
    monkeypatch.setattr(patient_storage, "PAUSES", (1.0, 100.0))
    with pytest.raises(Interrupted, match=f"storage at {away} was away for 601 s .*refused"):
        open_storage("auto", journal)
    assert slept == [1.0, *[100.0] * 6]
    assert caplog.text.count(f"waiting for the study's storage at {away}: ") == 1
    assert "secretword" not in caplog.text


def test_a_stop_ends_the_wait_for_a_server(away, journal):
    with (
        StopAfter(1),
        pytest.raises(Interrupted, match=f"stopped by SIGTERM while the study's storage at {away} was away"),
    ):
        open_storage("auto", journal)


def test_a_sweep_is_refused_before_it_begins_and_a_run_does_not_care(project):
    from imgcls.search.sweep import Sweep

    refused = f"search.storage=postgresql://me@127.0.0.1:{free_port()}/studies"
    with pytest.raises(InputError, match=r"correct search\.storage"):
        Sweep(project.experiment(refused), project.tracker)
    assert not project.runs()
    assert "storage" not in project.experiment(refused).to_toml()
    assert project.experiment(refused).params() == project.experiment().params()
    assert project.experiment(refused).config_hash() == project.experiment().config_hash()


def test_the_example_in_a_refusal_is_not_taken_for_a_secret():
    """What looks like a user before an @ is hidden in every error, so an example with one could not be read."""
    with pytest.raises(ConfigError) as refused:
        shared_address("sqlite:///x.db")
    assert "set it to postgresql://HOST/DATABASE or" in scrubbed(str(refused.value))


@pytest.mark.parametrize(
    ("verb", "variable", "missing"),
    [
        ("storage-proxy", "postgresql://me@127.0.0.1:1/studies", "grpc"),
        ("storage-proxy", "postgresql://me@127.0.0.1:1/studies", "google.protobuf"),
        ("storage-proxy", "postgresql://me@127.0.0.1:1/studies", "psycopg"),
        ("sweep", "grpc://127.0.0.1:1", "grpc"),
        ("sweep", "postgresql://me@127.0.0.1:1/studies", "psycopg"),
    ],
)
def test_a_package_of_the_extra_that_is_missing_is_one_error(project, monkeypatch, verb, variable, missing):
    monkeypatch.setenv(VARIABLE, variable)
    monkeypatch.setitem(sys.modules, missing, None)  # what Python does for a package that is not installed
    refused = typed(verb, *(["tiny"] if verb == "sweep" else []))
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
    assert f"is missing ({missing}): pip install 'imgcls[cluster]'" in refused.stderr
    assert not project.runs()
