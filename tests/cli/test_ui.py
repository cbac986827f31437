"""`imgcls ui`: MLflow's own server on the project's store, on this machine alone, for as long as the verb runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from imgcls.cli.app import app
from imgcls.errors import InputError
from imgcls.reporting.where_to_look import page_of
from imgcls.runs.experiment_page import write_page
from imgcls.tracking.ui_server import serving, stop_signals


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


def test_a_port_for_a_tracking_server_is_refused(tmp_path):
    refusal = pytest.raises(InputError, match=r"--port 5001 .* https://tracking.example/mlflow shows its own: leave")
    with refusal, serving("https://tracking.example/mlflow", tmp_path, 5001):
        pass


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with stop_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_server_is_started_or_ended_waits(number):
    with stop_signals() as signals:
        os.kill(os.getpid(), number)  # the process of the server is not known yet
        with pytest.raises(KeyboardInterrupt):
            signals.release()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        signals.hold()
        os.kill(os.getpid(), number)


def test_the_address_of_a_page_makes_no_experiment(project):
    run_id = a_sweep(project)
    record = replace(project.tracker.get(run_id), experiment="elsewhere")
    with pytest.raises(InputError, match="no experiment 'elsewhere'"):
        page_of(record, project.tracker)
    assert project.client.get_experiment_by_name("elsewhere") is None


@pytest.mark.slow
def test_it_serves_the_store_at_the_printed_address_and_leaves_no_process(project):
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
        verb.send_signal(signal.SIGTERM)  # Ctrl-C goes the same way: see above
        assert verb.wait(timeout=60) == 0, verb.communicate()
    finally:
        verb.kill()
        verb.communicate()
    host, port = server.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
