"""A tracking server that goes away: a real one, killed and started again, or behind a door that closes and opens."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from imgcls.errors import InputError, Interrupted
from imgcls.record import VersionTag
from imgcls.signals import GracefulStop
from imgcls.tracking import remote_client as server_module
from imgcls.tracking.outbox import Outbox
from imgcls.tracking.remote_client import SETTINGS, outbox_folder, public_uri
from imgcls.tracking.server_errors import Away, Denied, Refused, Unsent, classify
from imgcls.tracking.store import Tracker
from tests import fast_start
from tests.tracking.test_outbox import is_empty, listening, until


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Door:
    """A port that leads to another one. Closed, it refuses connections and ends those that there are."""

    def __init__(self, target):
        self.port = free_port()
        self._target = target
        self._listener, self._open = None, []

    def open(self):
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._let_in, args=(self._listener,), daemon=True).start()

    def close(self):
        if self._listener is not None:
            listener, self._listener = self._listener, None
            for one in (listener, *self._open):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)  # which ends the threads that wait for it
            self._open = []

    def _let_in(self, listener):
        with listener, contextlib.suppress(OSError):  # the door was closed
            while True:
                guest, _ = listener.accept()
                try:
                    host = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # the server is not there yet
                    guest.close()
                    continue
                self._open += [guest, host]
                for pair in ((guest, host), (host, guest)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target):
        with source, contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)


class Server:
    """`mlflow server` on a free port behind a door, with its database and artifacts in a folder."""

    def __init__(self, folder, database):
        self.port = free_port()
        self.door = Door(self.port)
        self.uri = f"http://127.0.0.1:{self.door.port}"
        self._folder, self._database = folder, database
        self._process = None

    @property
    def client(self):
        return MlflowClient(self.uri)

    def start(self):
        self.door.open()
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", "--serve-artifacts",
             "--backend-store-uri", f"sqlite:///{self._database}", "--artifacts-destination", "artifacts"],
            cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
        until(self._answers, seconds=120)

    def leave(self):
        """Is away, as one that was killed, until `start`; to start a process again would take ten seconds."""
        self.door.close()

    def kill(self):
        self.door.close()
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            return True
        time.sleep(0.2)
        return False


@contextlib.contextmanager
def server_in(folder, empty_store):
    """A server with a store of its own, which begins with `start`."""
    server = Server(folder, Path(shutil.copy(empty_store, folder / "server.db")))
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def the_server(tmp_path_factory, empty_store):
    with server_in(tmp_path_factory.mktemp("server"), empty_store) as server:
        yield server


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """As imgcls sets them for a remote store; undone after each test."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(the_server, monkeypatch):
    the_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", the_server.uri)
    return the_server


@pytest.fixture
def tracker(server, tmp_path):
    tracker = Tracker(tmp_path / "project")
    assert tracker.uri == server.uri
    yield tracker
    tracker._client.outbox.close()


def points(client, run_id, metric):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, metric)]


@pytest.mark.slow
def test_a_run_logged_through_an_outage_arrives_whole(server, tracker, tmp_path):
    outbox = tracker._client.outbox
    with tracker.start_run("outage", kind="train", name="a run") as run:
        run.log_params({f"key{i}": str(i) for i in range(150)})
        for epoch in range(1, 7):
            if epoch == 3:
                server.kill()
            if epoch == 5:
                until(lambda: outbox.num_failures >= 2)
                server.start()
            run.log_bytes("checkpoints/last.pt", b"epoch %d" % epoch)
            run.log_metrics({"val/loss": 1 / epoch, "val/accuracy": 0.5}, step=epoch, tags={"imgcls.heartbeat": "1"})
        run.log_dataset("exp/train", "train", "abc", "{}", {"num_images": 3})
        run.log_text("note.txt", "hello")
        ended_before = int(time.time() * 1000)
    read = tracker.get(run.run_id)  # waits until all has arrived
    assert (read.status, read.outcome, read.metrics["val/loss"]) == ("FINISHED", "completed", 1 / 6)
    assert is_empty(outbox)

    seen = server.client.get_run(run.run_id)
    assert len(seen.data.params) == 150
    assert points(server.client, run.run_id, "val/loss") == [(epoch, 1 / epoch) for epoch in range(1, 7)]
    assert points(server.client, run.run_id, "val/accuracy") == [(epoch, 0.5) for epoch in range(1, 7)]
    times = [point.timestamp for point in server.client.get_metric_history(run.run_id, "val/loss")]
    assert times == sorted(times) and times[3] < ended_before
    assert [(i.dataset.name, i.tags[0].value) for i in seen.inputs.dataset_inputs] == [("exp/train", "train")]
    for name, content in (("checkpoints/last.pt", b"epoch 6"), ("note.txt", b"hello")):
        path = server.client.download_artifacts(run.run_id, name, str(tmp_path))
        assert Path(path).read_bytes() == content
    assert tracker.read_text(run.run_id, "note.txt") == "hello"
    until(lambda: not list(outbox.folder.glob("*/*")))


@pytest.mark.slow
def test_sending_everything_again_changes_nothing(server, tracker):
    with tracker.start_run("again", kind="train", name="a run") as run:
        run.log_params({"key": "value"})
        run.log_metrics({"val/loss": 0.5}, step=1, tags={"extra": "1"})
        run.log_dataset("exp/train", "train", "abc", "{}", {"num_images": 3})
        run.log_text("note.txt", "hello")
        folder = tracker._client.outbox.folder / run.run_id
        with tracker._client.outbox._locked():
            journal = (folder / "journal.jsonl").read_bytes() if (folder / "journal.jsonl").exists() else b""
    tracker.get(run.run_id)
    before = server.client.get_run(run.run_id).to_dictionary()
    lines = [json.loads(line) for line in journal.splitlines()]
    entries = [{"op": "batch", "metrics": [], "params": [["key", "value"]], "tags": [["extra", "1"]]}, *lines]
    point = server.client.get_metric_history(run.run_id, "val/loss")[0]
    entries.append({"op": "batch", "metrics": [["val/loss", 0.5, point.timestamp, 1]], "params": [], "tags": []})
    profile = '{"num_images": 3}'
    dataset = {"name": "exp/train", "digest": "abc", "source_type": "imgcls", "source": "{}", "profile": profile}
    entries.append({"op": "inputs", "datasets": [{"dataset": dataset, "tags": [["mlflow.data.context", "train"]]}]})
    end = {"op": "end", "status": before["info"]["status"], "end_time": before["info"]["end_time"]}
    for entry in [*entries, {"op": "update", "status": "RUNNING", "name": None}, end]:
        tracker._client.outbox.append(run.run_id, entry)
    tracker.get(run.run_id)
    assert server.client.get_run(run.run_id).to_dictionary() == before
    assert points(server.client, run.run_id, "val/loss") == [(1, 0.5)]


@pytest.mark.slow
def test_a_process_killed_during_the_outage_leaves_nothing_behind_that_doctor_does_not_send(server, tmp_path):
    root = tmp_path / "project"
    program = f"""
import os, pathlib, signal, sys
from imgcls.tracking.store import Tracker
tracker = Tracker(pathlib.Path({str(root)!r}))
with tracker.start_run("killed", kind="train", name="a run") as run:
    print(run.run_id, flush=True)
    input()
    for step in range(3):
        run.log_metrics({{"val/loss": float(step)}}, step=step)
        run.log_text("checkpoints/last.pt", f"step {{step}}")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    writer = fast_start.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    run_id = writer.stdout.readline().strip()
    server.leave()
    writer.communicate("go on\n")
    assert writer.returncode == -signal.SIGKILL
    server.start()
    assert points(server.client, run_id, "val/loss") == []

    (root / "experiments").mkdir(parents=True)
    doctor = [sys.executable, "-P", "-m", "imgcls", "doctor"]
    done = fast_start.run(doctor, cwd=root, capture_output=True, text=True, check=True)
    assert "6 entries sent to the tracking server http://127.0.0.1" in done.stdout
    assert points(server.client, run_id, "val/loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    path = server.client.download_artifacts(run_id, "checkpoints/last.pt", str(tmp_path))
    assert Path(path).read_text() == "step 2"
    again = fast_start.run(doctor, cwd=root, capture_output=True, text=True, check=True)
    assert "0 entries sent" in again.stdout and "unsent" not in again.stdout + again.stderr


@pytest.mark.slow
def test_what_a_deleted_run_wrote_is_set_aside_and_the_rest_goes_on(server, tracker, caplog):
    with tracker.start_run("deleted", kind="train", name="kept") as kept:
        with tracker.start_run("deleted", kind="train", name="deleted") as deleted:
            tracker.get(deleted.run_id)
            server.client.delete_run(deleted.run_id)
            deleted.log_metrics({"val/loss": 0.5}, step=1)
        kept.log_metrics({"val/loss": 0.25}, step=1)
    assert tracker.get(kept.run_id).metrics == {"val/loss": 0.25}
    assert any(f"of run {deleted.run_id} (INVALID_PARAMETER_VALUE" in r.getMessage() for r in caplog.records)
    assert tracker.get(deleted.run_id).metrics == {}
    server.client.restore_run(deleted.run_id)
    assert tracker.send_unsent() == [f"6 entries sent to the tracking server {server.uri}"]  # three of each run
    assert tracker.get(deleted.run_id).metrics == {"val/loss": 0.5}
    assert tracker.get(deleted.run_id).status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_is_still_starting_is_waited_for_and_that_is_said(server, tmp_path, caplog):
    assert server_module.FIRST_ANSWER >= 20  # a server of MLflow takes 10 to 20 seconds to start on a small machine
    server.leave()

    def start_once_it_is_said():
        until(lambda: caplog.text)
        server.start()

    starting = threading.Thread(target=start_once_it_is_said)
    starting.start()
    tracker = Tracker(tmp_path / "project")
    starting.join()
    assert tracker.find({"imgcls.study": "of nobody"}) == []  # it answers
    assert f"opening the store waits: the tracking server {server.uri} does not answer (" in caplog.text
    assert "in case it is starting, it is tried for 30 s; Ctrl-C ends the wait" in caplog.text
    assert "opening the store goes on after" in caplog.text


@pytest.mark.slow
def test_opening_a_run_waits_for_the_server_and_says_so(server, tracker, caplog):
    with tracker.start_run("waiting", kind="trial", name="trial 0"):
        server.leave()
    outbox = tracker._client.outbox

    def come_back():
        until(lambda: any("waits: the" in record.getMessage() for record in caplog.records), seconds=60)
        server.start()

    helper = threading.Thread(target=come_back)
    helper.start()
    with tracker.start_run("waiting", kind="trial", name="trial 1") as second:
        pass
    helper.join()
    said = [record.getMessage() for record in caplog.records]
    assert any("waits: the tracking server" in line and "Connection refused" in line for line in said)
    assert any("goes on after" in line for line in said)
    assert tracker.get(second.run_id).outcome == "completed"
    assert {record.outcome for record in tracker.find({}, experiment="waiting")} == {"completed"}
    assert is_empty(outbox)


@pytest.mark.slow
def test_a_run_whose_opening_was_answered_into_the_void_is_opened_once(tracker, monkeypatch):
    """The server opened the run, and its answer was lost."""
    real, lost = MlflowClient.create_run, []

    def answer_lost(self, *arguments, **options):
        run = real(self, *arguments, **options)
        if not lost:
            lost.append(run)
            raise ConnectionResetError("connection lost")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", answer_lost)
    with tracker.start_run("once", kind="train", name="a run") as run:
        pass
    assert run.run_id == lost[0].info.run_id
    assert [record.run_id for record in tracker.find({}, experiment="once")] == [run.run_id]


@pytest.mark.slow
def test_a_missing_artifact_is_said_to_be_missing(tracker):
    with tracker.start_run("missing", kind="train", name="a run") as run:
        run.log_text("folder/note.txt", "hello")
    for name in ("folder/none.txt", "none.txt", "nofolder/none.txt"):
        with pytest.raises(InputError, match=f"has no artifact {name}"):
            tracker.read_text(run.run_id, name)
    assert tracker.read_text(run.run_id, "folder/note.txt") == "hello"
    with pytest.raises(InputError, match="no run 'nonsense'"):
        tracker.get("nonsense")


@pytest.mark.slow
def test_while_the_server_is_away_what_waits_is_read_back_and_a_stop_ends_a_wait(server, tracker):
    with tracker.start_run("back", kind="train", name="a run") as run:
        tracker.get(run.run_id)
        server.leave()
        run.log_bytes("checkpoints/last.pt", b"weights")
        with tracker.fetch(run.run_id, "checkpoints/last.pt") as path:
            assert path.read_bytes() == b"weights"
    with GracefulStop():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="stopped by SIGTERM while opening run 'another'"):
            tracker._client.create_run("0", run_name="another")


@pytest.mark.slow
def test_training_goes_on_without_its_server_and_doctor_sends_the_rest(server, project):
    overrides = ["--set", "train.epochs=12", "--set", "train.warmup_epochs=0"]
    training = fast_start.Popen(
        [sys.executable, "-P", "-m", "imgcls", "train", "tiny", "--json", *overrides],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in training.stderr:
        said.append(line)
        if "epoch   2/12" in line:
            server.leave()
            break
    out, rest = training.communicate(timeout=300)
    said = "".join(said) + rest
    assert training.returncode == 0, said
    run_id = json.loads(out)["run_id"]
    assert "epoch  12/12" in said
    assert "unsent: " in said and "imgcls doctor" in said

    server.start()
    assert server.client.get_run(run_id).info.status == "RUNNING"
    doctor = fast_start.run(
        [sys.executable, "-P", "-m", "imgcls", "doctor"], cwd=project.root, capture_output=True, text=True, check=True
    )
    assert "entries sent" in doctor.stdout and "unsent" not in doctor.stdout + doctor.stderr
    seen = server.client.get_run(run_id)
    assert (seen.info.status, seen.data.tags["imgcls.outcome"]) == ("FINISHED", "completed")
    for metric in ("train/loss", "val/loss", "val/accuracy", "train/lr"):
        assert [step for step, _ in points(server.client, run_id, metric)] == list(range(1, 13))
    names = {file.path for file in server.client.list_artifacts(run_id, "checkpoints")}
    assert names == {"checkpoints/best.pt", "checkpoints/last.pt"}
    assert not list((project.root / "mlruns" / ".outbox").glob("*/*/journal.jsonl"))


# --- without a server ---


@pytest.fixture
def closed_port():
    return free_port()


def test_a_server_that_is_down_at_the_start_is_one_clear_error(closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port}/?token=secret")
    monkeypatch.setattr(server_module, "FIRST_ANSWER", 0.5)
    with pytest.raises(
        InputError, match=f"http://127.0.0.1:{closed_port} does not answer .Connection refused."
    ) as told:
        Tracker(tmp_path)
    assert "MLFLOW_TRACKING_URI" in str(told.value)
    assert "secret" not in str(told.value)


def test_what_waits_for_another_server_is_named(project):
    assert project.tracker.send_unsent() == []
    folder = outbox_folder(project.root, "https://me:secret@host:81/base")
    Outbox(folder, "", None).append("run", {"op": "update", "status": "RUNNING", "name": None})
    (line,) = project.tracker.send_unsent()
    assert line.startswith("unsent: 1 entries of 1 runs") and "set MLFLOW_TRACKING_URI to it" in line
    assert "tracking server https://host:81/base;" in line
    assert "secret" not in str(list(folder.rglob("*")))


def test_an_address_that_is_none_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@[nonsense/")
    with pytest.raises(InputError, match="cannot be opened: ValueError") as told:
        Tracker(tmp_path)
    assert "secret" not in str(told.value)


def test_a_port_where_nobody_listens_is_a_server_away(closed_port):
    with pytest.raises(MlflowException) as caught:
        MlflowClient(f"http://me:secret@127.0.0.1:{closed_port}").log_batch("run", metrics=[Metric("a", 1.0, 1, 1)])
    known = classify(caught.value)
    assert isinstance(known, Away)
    assert str(known) == "does not answer (Connection refused)"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Refused), (401, Denied), (403, Denied), (404, Unsent), (408, Unsent), (413, Unsent), (429, Unsent),
        (500, Unsent), (502, Unsent), (503, Unsent), (504, Unsent),
    ],
)  # fmt: skip
def test_answers_are_judged(closed_port, code, kind):
    with listening(closed_port, answers=[code]), pytest.raises(MlflowException) as caught:
        MlflowClient(f"http://127.0.0.1:{closed_port}").log_batch("run", metrics=[Metric("a", 1.0, 1, 1)])
    assert type(classify(caught.value)) is kind


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:p%40ss@host/base/?token=x#y", "https://host/base"),
        ("http://me@host:80/", "http://host:80"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(uri, shown):
    assert public_uri(uri) == shown


@pytest.mark.slow
def test_a_model_is_registered_on_a_server_and_downloaded_from_it(server, tracker, tmp_path):
    with tracker.start_run("exp", kind="train", name="a run") as run:
        pass
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    registry = tracker.registry()
    assert registry.holder("a model", "champion") is None and registry.version_of("a model", run.run_id) is None
    tags = {VersionTag.ONNX_SHA256: "0" * 64, VersionTag.NUM_PROVED: "8"}
    version = registry.add("a model", run.run_id, tmp_path / "model", tags)
    registry.describe(version, "what it is")
    registry.set_alias(version, "champion", {"imgcls.challenge": "p = 0.01"})
    assert registry.holder("a model", "champion").number == registry.version_of("a model", run.run_id).number == 1

    seen = server.client.get_model_version_by_alias("a model", "champion")
    assert (seen.run_id, seen.status, seen.description) == (run.run_id, "READY", "what it is")
    assert seen.tags == tags | {"imgcls.challenge": "p = 0.01"}
    got = download_artifacts("models:/a model@champion", dst_path=str(tmp_path), tracking_uri=server.uri)
    assert (Path(got) / "MLmodel").read_text() == "flavors: {}\n"


@pytest.mark.slow
def test_a_heartbeat_never_waits_and_never_takes_a_run_back(server, tracker):
    outbox = tracker._client.outbox
    with tracker.start_run("beats", kind="train", name="a run") as run:
        recorded = tracker.get(run.run_id).process
        run.process = {**run.process, "versions": {"torch": "beaten"}}
        run.beat()
        assert tracker.get(run.run_id).process["versions"] == {"torch": "beaten"}
        server.client.set_tag(run.run_id, "imgcls.process", json.dumps(recorded | {"claims": "another machine's"}))
        run.beat()
        assert tracker.get(run.run_id).process["claims"] == "another machine's"
        server.leave()
        with pytest.raises(MlflowException):
            run.beat()
        assert is_empty(outbox)
        server.start()
