"""The runbook, with real servers: a sweep with passwords, and a record that is backed up and restored."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.conftest import TINY
from tests.postgres import PROGRAMS, free_port

pytestmark = pytest.mark.distributed

DEPLOY = Path(__file__).parents[2] / "deploy"
ADMIN, USER = "first-password-of-admin", "another-password-of-ada"


@contextmanager
def mlflow_server(postgresql, databases, folder, port):
    """The server as deploy/ starts it, on the databases of the tests."""
    owner = f"{postgresql.user}@127.0.0.1:{postgresql.port}"
    ini = (DEPLOY / "mlflow-auth.ini").read_text()
    (folder / "auth.ini").write_text(ini.replace("imgcls@postgres/mlflow_users", f"{owner}/{databases['users']}"))
    environment = os.environ | {
        "PGPASSWORD": postgresql.password,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of these tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        Path(sys.executable).with_name("mlflow"), "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--backend-store-uri",
        f"postgresql+psycopg://{owner}/{databases['record']}", "--serve-artifacts", "--artifacts-destination",
        folder / "artifacts", "--allowed-hosts", f"127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
    try:
        assert is_healthy(server, f"http://127.0.0.1:{port}"), (folder / "server.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait()


def is_healthy(server, address):
    """Whether a server answers, and does not end; on a busy machine it takes a minute to start."""
    with requests.Session() as session:
        session.mount(address, HTTPAdapter(max_retries=Retry(total=20, backoff_factor=0.2, backoff_max=0.5)))
        while server.poll() is None:
            with suppress(requests.ConnectionError):
                return session.get(f"{address}/health", timeout=60).ok
    return False


def imgcls(project, address, *arguments, password=USER, storage=""):
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_TRACKING_USERNAME": "ada",
        "MLFLOW_TRACKING_PASSWORD": password,
        "IMGCLS_STUDY_STORAGE": storage,
    }
    command = [sys.executable, "-m", "imgcls", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def scores(project, address):
    done = imgcls(project, address, "runs", "--json")
    assert done.returncode == 0, done.stderr
    changing = ("end_time", "seconds")  # of a sweep that the same command looks at again
    facts = [{name: fact for name, fact in run.items() if name not in changing} for run in json.loads(done.stdout)]
    return sorted(json.dumps(run, sort_keys=True) for run in facts)


def program(postgresql, name, *arguments):
    environment = os.environ | {"PGPASSWORD": postgresql.password}
    server = ["-h", "127.0.0.1", "-p", str(postgresql.port), "-U", postgresql.user]
    subprocess.run([PROGRAMS[0] / name, *server, *map(str, arguments)], check=True, env=environment)


def test_a_sweep_with_passwords_is_backed_up_and_restored(postgresql, tmp_path):
    project = tmp_path / "project"
    (project / "experiments").mkdir(parents=True)
    (project / "experiments" / "tiny.toml").write_text(TINY)
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with (
        postgresql.database() as record, postgresql.database() as users, postgresql.database() as studies,
        postgresql.database() as restored_record, postgresql.database() as restored_users,
    ):  # fmt: skip
        storage = postgresql.address(studies)
        port = free_port()
        with mlflow_server(postgresql, {"record": record, "users": users}, tmp_path / "first", port) as address:
            add_user(address)
            refused = imgcls(project, address, "runs", password="not-that-of-ada")
            assert refused.returncode and "not-that-of-ada" not in refused.stderr
            swept = imgcls(project, address, "sweep", "tiny", "--set", "search.trials=2", storage=storage)
            assert swept.returncode == 0, swept.stderr
            before = scores(project, address)
            leaderboard = next((tmp_path / "first" / "artifacts").rglob("leaderboard.csv")).read_bytes()
        # As docs/operating.md has it: databases first, then artifacts, which are only ever added.
        for name in (record, users):
            program(postgresql, "pg_dump", "--format=custom", f"--file={tmp_path / name}.dump", name)
        with tarfile.open(tmp_path / "artifacts.tar", "w") as archive:
            archive.add(tmp_path / "first" / "artifacts", "artifacts")
        shutil.rmtree(tmp_path / "first" / "artifacts")
        for name, restored in ((record, restored_record), (users, restored_users)):
            program(postgresql, "pg_restore", "--exit-on-error", f"--dbname={restored}", tmp_path / f"{name}.dump")
        with tarfile.open(tmp_path / "artifacts.tar") as archive:
            archive.extractall(tmp_path / "second", filter="data")
        databases = {"record": restored_record, "users": restored_users}
        with mlflow_server(postgresql, databases, tmp_path / "second", port) as address:
            again = imgcls(project, address, "sweep", "tiny", "--set", "search.trials=2", storage=storage)
            assert again.returncode == 0, again.stderr
            assert scores(project, address) == before and len(before) == 3
        assert next((tmp_path / "second" / "artifacts").rglob("leaderboard.csv")).read_bytes() == leaderboard
    for text in (swept.stdout, swept.stderr, again.stderr, *all_texts(tmp_path)):
        assert USER not in text and postgresql.password not in text and ADMIN not in text


def add_user(address):
    """As docs/operating.md has it."""
    (command,) = re.findall(
        r"^curl .*/users/create$", (DEPLOY.parent / "docs" / "operating.md").read_text(), re.MULTILINE
    )
    command = command.replace("http://127.0.0.1:5000", address).replace("--user admin", f"--user admin:{ADMIN}")
    user = json.dumps({"username": "ada", "password": USER})
    subprocess.run(command.split(), input=user, text=True, check=True, capture_output=True)


def all_texts(folder):
    """Every log and every record on disk, whatever is in it."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".dump", ".tar"):
            yield path.read_bytes().decode(errors="replace")
