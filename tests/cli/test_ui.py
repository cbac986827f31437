"""`imgcls ui`: MLflow's own server on the project's store, on this machine alone, for as long as the verb runs."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from imgcls.cli.app import app
from imgcls.runs.experiment_page import write_page
from imgcls.tracking.ui_server import serving


def a_sweep(project):
    tags = {"imgcls.study": "tiny-1"}
    with project.tracker.start_run("tiny", kind="sweep", name="sweep tiny-1", tags=tags) as run:
        write_page(project.experiment(), project.tracker, project.tracker.get(run.run_id))
    return run.run_id


@pytest.mark.usefixtures("project")
def test_a_port_that_is_taken_is_named_and_no_server_starts():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(app, ["ui", "--port", str(port)])
    assert done.exit_code == 1 and f"port {port} is taken by another program" in str(done.exception)


def test_a_tracking_server_shows_its_own_ui_and_its_password_is_not_shown(tmp_path):
    with serving("https://ada:secret@tracking.example/mlflow/", tmp_path) as server:
        assert server.address.endswith("tracking.example/mlflow") and "secret" not in server.address
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_the_store_at_the_printed_address_and_leaves_no_process(project, number):
    sweep_id = a_sweep(project)
    command = [sys.executable, "-m", "imgcls", "ui", sweep_id[:8], "--no-browser"]
    verb = subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert verb.stdout is not None
        address = verb.stdout.readline().strip()
        server, _, page = address.partition("/#/")
        assert page == "experiments/1/runs?workflowType=machine_learning&viewStateShareKey=tiny-1"
        with urllib.request.urlopen(f"{server}/api/2.0/mlflow/runs/get?run_id={sweep_id}", timeout=60) as answer:
            assert json.load(answer)["run"]["info"]["run_name"] == "sweep tiny-1"
        verb.send_signal(number)
        assert verb.wait(timeout=60) == 0, verb.communicate()
    finally:
        verb.kill()
        verb.communicate()
    host, port = server.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
