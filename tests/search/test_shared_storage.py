"""Studies in a real PostgreSQL and behind Optuna's proxy."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from imgcls.errors import InputError, TrainingError
from imgcls.search import study_servers
from imgcls.search.storage import VARIABLE, check_storage, open_storage
from imgcls.search.study_servers import Proxy
from imgcls.search.sweep import Sweep
from imgcls.search.who_works import work_in_words
from tests import fast_start
from tests.postgres import free_port
from tests.search.test_sweep import everything

pytestmark = pytest.mark.distributed


def study(tmp_path, name="s"):
    return optuna.create_study(storage=open_storage("auto", tmp_path / "journal"), study_name=name, load_if_exists=True)


@pytest.fixture
def named(database, monkeypatch):
    monkeypatch.setenv(VARIABLE, database)
    return database


@pytest.fixture
def proxy(database, monkeypatch):
    """Starts the proxy in front of a new database, or starts it again; gives the process."""
    port = free_port()

    def start():
        command = [sys.executable, "-m", "imgcls", "storage-proxy", "--port", str(port)]
        monkeypatch.setenv(VARIABLE, database)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert f"127.0.0.1:{port}" in process.stderr.readline()
        monkeypatch.setenv(VARIABLE, f"grpc://127.0.0.1:{port}")
        return process

    started = []
    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_study_is_kept_in_postgresql(named, tmp_path):
    check_storage("auto")
    before = study(tmp_path)
    before.enqueue_trial({"x": 0.5})
    trial = before.ask()
    trial.report(0.25, step=1)
    before.tell(trial, trial.suggest_float("x", 0, 1))
    assert not (tmp_path / "journal").exists()
    url = named.replace("postgresql:", "postgresql+psycopg:")
    stored = optuna.load_study(study_name="s", storage=RDBStorage(url, {"poolclass": NullPool}))
    assert [(t.value, t.intermediate_values, t.params) for t in stored.trials] == [(0.5, {1: 0.25}, {"x": 0.5})]


def test_a_process_keeps_one_connection(named, postgresql, tmp_path):
    for name in ("a", "b"):
        for _ in range(3):
            study(tmp_path, name).tell(study(tmp_path, name).ask(), 1.0)
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'imgcls' AND datname = '{}'"
    assert postgresql.execute(mine.format(named.rpartition("/")[2])) == [(1,)]


@pytest.mark.usefixtures("named")
def test_processes_that_start_together_on_an_empty_database_make_its_tables_once():
    command = "import pathlib; from imgcls.search.storage import open_storage; open_storage('auto', pathlib.Path('j'))"
    begun = [fast_start.Popen([sys.executable, "-c", command], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(process.communicate()[1], process.returncode) for process in begun] == [("", 0)] * 4


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_of_postgresql_is_survived(postgresql, tmp_path, how):
    before = study(tmp_path)
    postgresql.stop(how)
    again = threading.Timer(0.5, postgresql.start)
    again.start()
    before.tell(before.ask(), 1.0)
    again.join()
    assert [trial.value for trial in before.trials] == [1.0]


@pytest.mark.usefixtures("named")
def test_a_trial_may_be_told_the_same_end_twice(tmp_path):
    """As where the server ended between the commit and its answer."""
    shared = study(tmp_path)
    trial = shared.ask()
    storage = open_storage("auto", tmp_path / "journal")
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [2.0])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda address: address.replace("owner:", "owner:not"), "password authentication failed"),
        (lambda address: f"{address}_not", "does not exist"),
    ],
)
def test_who_is_not_let_in_is_told_why(database, postgresql, monkeypatch, change, why):
    monkeypatch.setenv(VARIABLE, change(database))
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{postgresql.port} cannot be opened: .*{why}") as refused:
        check_storage("auto")
    assert postgresql.password not in str(refused.value)


@pytest.mark.parametrize("how", ["proxy", "postgresql"])
def test_a_study_behind_the_proxy_outlives_the_proxy_and_postgresql(proxy, postgresql, tmp_path, how):
    first = proxy()
    check_storage("auto")
    before = study(tmp_path)
    before.enqueue_trial({"x": 0.5})
    trial = before.ask()
    trial.report(0.25, step=1)
    if how == "proxy":
        first.kill()
        first.wait()
        again = threading.Timer(0.5, proxy)
    else:
        postgresql.stop()
        again = threading.Timer(0.5, postgresql.start)
    again.start()
    before.tell(trial, trial.suggest_float("x", 0, 1))
    again.join()
    assert [(t.value, t.intermediate_values, t.params) for t in before.trials] == [(0.5, {1: 0.25}, {"x": 0.5})]


@pytest.mark.usefixtures("named")
def test_an_error_within_the_proxy_ends_the_call_and_is_said(proxy, tmp_path, postgresql):
    """PostgreSQL refuses a key of more than 512 letters. The proxy has its database, so nobody has to wait for it."""
    proxy()
    trial = study(tmp_path).ask()
    with pytest.raises(
        TrainingError, match=r"storage at 127\.0\.0\.1:\d+ failed: An exception is raised during the commit"
    ):
        trial.set_user_attr("k" * 600, 1)
    trial.set_user_attr("k", 1)  # it is as good as before
    assert postgresql.password not in str(trial.user_attrs)


def test_a_proxy_whose_database_is_away_is_refused_with_the_reason(proxy, postgresql, project):
    proxy()
    Proxy(os.environ[VARIABLE]).connect()  # its first line comes before it has its database
    postgresql.stop()
    try:
        with pytest.raises(InputError, match=r"cannot be opened: it does not reach its database \(") as refused:
            check_storage("auto")
        with project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": "tiny-01234567"}):
            (line,) = work_in_words(project.tracker)
    finally:
        postgresql.start()
    assert "cannot be opened: it does not reach its database" in line
    assert postgresql.password not in str(refused.value) + line


def test_a_proxy_that_is_not_there_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(study_servers, "CONNECT_SECONDS", 0.1)
    with pytest.raises(InputError, match=f"127.0.0.1:{(port := free_port())} cannot be opened: .*imgcls storage-proxy"):
        check_storage(f"grpc://127.0.0.1:{port}")


def test_the_proxy_shows_no_password_and_shares_no_port(proxy, postgresql, database, monkeypatch):
    first = proxy()
    assert postgresql.password not in Path(f"/proc/{first.pid}/cmdline").read_text()
    monkeypatch.setenv(VARIABLE, database)
    command = [sys.executable, "-m", "imgcls", "storage-proxy", "--port", first.args[-1]]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (2, "")
    assert f"--port {first.args[-1]}: Address already in use" in second.stderr
    assert postgresql.password not in second.stderr


def test_a_sweep_goes_on_in_postgresql_and_leaves_no_address_behind(
    project, make_project, database, postgresql, monkeypatch, caplog
):
    def sweep(made, *overrides):
        with contextlib.chdir(made.root):
            return Sweep(made.experiment("search.pruner=median", *overrides), made.tracker).run()

    with caplog.at_level(logging.INFO):
        sweep(project, "search.trials=2")
        monkeypatch.setenv(VARIABLE, database)
        result = sweep(project)
        monkeypatch.delenv(VARIABLE)
    assert "lacks 2 trials" in caplog.text
    study = optuna.load_study(
        study_name=project.tracker.get(result.run_id).study,
        storage=RDBStorage(database.replace("postgresql:", "postgresql+psycopg:"), {"poolclass": NullPool}),
    )
    assert [len(trial.intermediate_values) for trial in study.trials] == [2, 2, 2]  # nobody prunes after the last epoch
    files = [path.read_bytes() for path in project.root.rglob("*") if path.is_file()]
    place = f"127.0.0.1:{postgresql.port}"
    for secret in (postgresql.password, place):
        assert not any(secret.encode() in content for content in files)
        assert secret not in caplog.text
    other = make_project()
    assert everything(project, result) == everything(other, sweep(other))
