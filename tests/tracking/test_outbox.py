"""What waits for a server: real files, real processes, a real server of HTTP that is there or is not."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imgcls.stored_names import process_tag
from imgcls.tracking.folder_identity import FolderIdentity
from imgcls.tracking.outbox import Outbox
from imgcls.tracking.server_errors import Away, Refused, Unsent


def until(condition, seconds=20):
    """Polls where nothing tells that another thread or process has got somewhere."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def listening(port, answers=None):
    """A server that notes what it takes; gives the list. `answers` are HTTP codes for the first entries."""
    taken, codes = [], list(answers or ())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code = codes.pop(0) if codes else 200
            if code == 200:
                taken.append(body)
            self.send_response(code)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def deliver_to(port):
    def deliver(run_id, entry, path):
        body = {"run": run_id, "file": path.read_text() if path else None, **entry}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(body).encode())
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 400:
                raise Refused(f"HTTP {error.code}") from None
            raise Unsent(f"has trouble (HTTP {error.code})") from None
        except urllib.error.URLError as error:
            raise Away(f"does not answer ({error.reason})") from None

    return deliver


@pytest.fixture
def make_outbox(tmp_path, port):
    made = []

    def make():
        made.append(Outbox(tmp_path / "outbox", "http://server", deliver_to(port)))
        return made[-1]

    yield make
    for outbox in made:
        outbox.close()


def is_empty(outbox):
    return outbox.pending().num_entries == 0


def test_what_is_logged_while_nobody_listens_arrives_in_order_and_once(make_outbox, port, caplog):
    outbox = make_outbox()
    outbox.start()
    for step in range(5):
        outbox.append("run-a", {"op": "metric", "step": step})
        outbox.append("run-b", {"op": "metric", "step": step})
    until(lambda: outbox.num_failures >= 2)
    assert isinstance(outbox.trouble, Away)
    assert (outbox.pending().num_entries, outbox.pending().num_runs) == (10, 2)
    with listening(port) as taken:
        outbox.hurry()
        until(lambda: is_empty(outbox) and not outbox.num_failures)
    for run in ("run-a", "run-b"):
        assert [entry["step"] for entry in taken if entry["run"] == run] == [0, 1, 2, 3, 4]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "http://server does not answer" in said[0] and "Connection refused" in said[0] and "goes on" in said[0]
    assert "answers again" in said[1]
    until(lambda: not list(outbox.folder.glob("run-*")))  # nothing of what has been sent is left


def test_what_waited_of_a_run_that_goes_on_elsewhere_is_dropped(tmp_path, port, caplog):
    owners = {"run-a": "elsewhere", "run-b": "here", "run-c": "elsewhere", "run-e": ""}
    outbox = Outbox(tmp_path / "outbox", "http://server", deliver_to(port), owners.__getitem__, lambda: "here")
    long_ago = {"at": time.time_ns() - 10**10}
    for run in ("run-a", "run-b", "run-e"):
        outbox.append(run, {"op": "batch", "tags": [["imgcls.note", "old"]], **long_ago})
        outbox.append(run, {"op": "batch", "tags": []})
    takes_over = [[key, value] for key, value in process_tag({"claims": "here"}).items()]
    outbox.append("run-c", {"op": "batch", "tags": takes_over, **long_ago})
    outbox.append("run-d", {"op": "batch", "tags": []})  # it did not wait, and nobody is asked
    with listening(port) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
        outbox.close()
    assert [entry["run"] for entry in taken] == ["run-b", "run-b", "run-c", "run-d", "run-e", "run-e"]
    assert "run run-a goes on elsewhere; 2 entries that waited here are dropped" in caplog.text
    assert not (outbox.folder / "run-a").exists()


def test_a_process_killed_after_its_call_returned_has_lost_nothing(make_outbox, port):
    outbox = make_outbox()
    program = f"""
import os, pathlib, signal
from imgcls.tracking.outbox import Outbox
outbox = Outbox(pathlib.Path({str(outbox.folder)!r}), "http://server", None)
for step in range(3):
    outbox.append("run", {{"op": "metric", "step": step}})
with outbox.writing() as folder:
    (folder / "last.pt").write_text("weights")
    outbox.append_artifact("run", "checkpoints/last.pt", folder / "last.pt")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((outbox.folder / "writing").iterdir())
    outbox.append("run", {"op": "metric", "step": 3})  # another process goes on with the run
    with listening(port) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
    assert [entry.get("step", entry["file"]) for entry in taken] == [0, 1, 2, "weights", 3]
    assert not list((outbox.folder / "writing").iterdir())


def test_a_torn_last_line_is_cut_off(make_outbox, port):
    outbox = make_outbox()
    outbox.append("run", {"op": "metric", "step": 0})
    journal = outbox.folder / "run" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[:-7])
    assert outbox.pending().num_entries == 1
    outbox.append("run", {"op": "metric", "step": 1})
    assert journal.read_bytes().startswith(whole + b'{"at"')
    with listening(port) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
    assert [entry["step"] for entry in taken] == [0, 1]


def test_a_journal_that_ends_torn_is_finished_with(make_outbox, port):
    outbox = make_outbox()
    outbox.append("run", {"op": "metric", "step": 0})
    with (outbox.folder / "run" / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"at": 17, "op": "met')
    with listening(port) as taken:
        outbox.start()
        until(lambda: not (outbox.folder / "run").exists())
    assert [entry["step"] for entry in taken] == [0]


def test_only_the_newest_version_of_a_file_is_sent_and_where_it_was_logged(make_outbox, port):
    outbox = make_outbox()
    for epoch in range(3):
        with outbox.writing() as folder:
            (folder / "last.pt").write_text(f"epoch {epoch}")
            outbox.append_artifact("run", "checkpoints/last.pt", folder / "last.pt")
        outbox.append("run", {"op": "metric", "step": epoch})
    with listening(port) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
    assert [entry["file"] or entry["step"] for entry in taken] == [0, 1, "epoch 2", 2]


def test_a_file_replaced_while_it_is_sent_is_sent_again(tmp_path):
    sent, replaced = [], threading.Event()

    def deliver(_run_id, _entry, path):
        sent.append(path.read_text())
        if len(sent) == 1:
            (tmp_path / "new").write_text("new")
            outbox.append_artifact("run", "file", tmp_path / "new")
            replaced.set()

    outbox = Outbox(tmp_path / "outbox", "http://server", deliver)
    (tmp_path / "old").write_text("old")
    outbox.append_artifact("run", "file", tmp_path / "old")
    outbox.start()
    until(lambda: is_empty(outbox))
    outbox.close()
    assert replaced.is_set()
    assert sent == ["old", "new"]


def test_a_file_that_waits_is_read_back(make_outbox, tmp_path):
    outbox = make_outbox()
    with outbox.staged("run", "checkpoints/last.pt") as path:
        assert path is None
    (tmp_path / "mine").write_text("weights")
    outbox.append_artifact("run", "checkpoints/last.pt", tmp_path / "mine")
    (tmp_path / "mine").write_text("changed afterwards")
    with outbox.staged("run", "checkpoints/last.pt") as path:
        assert (path.name, path.read_text()) == ("last.pt", "weights")
    with outbox.staged("run", "checkpoints/best.pt") as path:
        assert path is None


def test_what_is_refused_is_set_aside_and_can_be_tried_again(make_outbox, port, caplog, tmp_path):
    outbox = make_outbox()
    (tmp_path / "note.txt").write_text("note")
    outbox.append_artifact("run", "note.txt", tmp_path / "note.txt")
    for step in range(2):
        outbox.append("run", {"op": "metric", "step": step})
    with listening(port, answers=[400, 400]) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
    assert [entry["step"] for entry in taken] == [1]
    refused = outbox.folder / "run" / "refused.jsonl"
    assert [json.loads(line)["refused"] for line in refused.read_text().splitlines()] == ["HTTP 400", "HTTP 400"]
    assert outbox.num_refused() == {refused: 2}
    (record,) = caplog.records  # once, however much of the run is refused
    assert "refused note.txt of run run (HTTP 400)" in record.getMessage() and str(refused) in record.getMessage()
    with listening(port) as taken:
        outbox.take_up_refused()
        until(lambda: is_empty(outbox))
    assert [entry.get("step", entry["file"]) for entry in taken] == ["note", 0]
    until(lambda: not (outbox.folder / "run").exists())


def with_two_runs(outbox):
    outbox.append("run-a", {"op": "metric", "step": 0})
    outbox.append("run-b", {"op": "metric", "step": 0})
    return outbox


def test_trouble_with_one_run_does_not_keep_the_others_waiting(make_outbox, port):
    outbox = with_two_runs(make_outbox())
    with listening(port, answers=[500]) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
    assert [entry["run"] for entry in taken] == ["run-b", "run-a"]


def test_a_line_that_is_no_entry_is_handed_on_as_such(make_outbox, port):
    outbox = make_outbox()
    outbox.append("run", {"op": "metric", "step": 0})
    journal = outbox.folder / "run" / "journal.jsonl"
    journal.write_bytes(b"\x00\xff garbage\n" + journal.read_bytes())
    with listening(port) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
    assert [entry["op"] for entry in taken] == ["unreadable", "metric"]


def test_two_processes_never_send_the_same_run(make_outbox, port):
    outbox = with_two_runs(make_outbox())
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, outbox.folder / "run-a" / "sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    other.stdout.readline()
    with listening(port) as taken:
        outbox.start()
        until(lambda: outbox.pending().num_entries == 1)
        assert [entry["run"] for entry in taken] == ["run-b"]
        other.kill()
        other.communicate()
        until(lambda: is_empty(outbox))
    assert [entry["run"] for entry in taken] == ["run-b", "run-a"]


def test_writing_never_waits_for_a_request_that_hangs(tmp_path):
    asked, answer = threading.Event(), threading.Event()

    def deliver(*_):
        asked.set()
        answer.wait()

    outbox = Outbox(tmp_path / "outbox", "http://server", deliver)
    outbox.start()
    outbox.append("run", {"op": "metric", "step": 0})
    asked.wait()
    outbox.append("run", {"op": "metric", "step": 1})
    assert outbox.pending().num_entries == 2
    answer.set()
    until(lambda: is_empty(outbox))
    outbox.close()


def test_what_waited_at_a_moment_has_left_when_it_was_sent(make_outbox, port):
    outbox = make_outbox()
    outbox.append("run-a", {"op": "metric", "step": 0})
    of_a, of_all = outbox.last_entries("run-a"), outbox.last_entries()
    assert not outbox.have_left(of_a)
    assert outbox.last_entries("run-b") == {}
    assert outbox.have_left({})
    with listening(port):
        outbox.start()
        until(lambda: outbox.have_left(of_a))
    outbox.append("run-a", {"op": "metric", "step": 1})  # came later, and is not waited for
    assert outbox.have_left(of_all)


def test_the_end_says_what_is_unsent_and_how_to_send_it(make_outbox, caplog):
    outbox = make_outbox()
    outbox.farewell()
    assert not caplog.records
    outbox = make_outbox()
    outbox.start()
    for step in range(3):
        outbox.append("run", {"op": "metric", "step": step})
    until(lambda: outbox.num_failures >= 2)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        outbox.farewell(seconds=60)  # which are not waited for: the server is known to be away
    (record,) = caplog.records
    assert "unsent: 3 entries of 1 runs" in record.getMessage()
    assert "http://server" in record.getMessage() and "imgcls doctor" in record.getMessage()


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "../../etc"])
def test_a_run_id_that_is_a_path_is_no_run_id(make_outbox, run_id):
    outbox = make_outbox()
    with pytest.raises(ValueError, match="is not a run id"):
        outbox.append(run_id, {"op": "metric"})
    assert outbox.last_entries(run_id) == {}
    with outbox.staged(run_id, "passwd") as path:
        assert path is None


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x"])
def test_an_artifact_stays_in_its_run(make_outbox, tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is not a name for an artifact"):
        make_outbox().append_artifact("run", name, tmp_path / "file")


def test_what_came_with_a_copy_is_left_to_the_original(tmp_path, port, caplog):
    original = Outbox(tmp_path / "original", "server", deliver_to(port))
    original.append("1", {"op": "batch", "text": "old"})
    note = tmp_path / "note.txt"
    note.write_text("old")
    original.append_artifact("2", "note.txt", note)
    subprocess.run(["cp", "-a", str(tmp_path / "original"), str(tmp_path / "copy")], check=True)
    copy = Outbox(tmp_path / "copy", "server", deliver_to(port))
    with listening(port) as taken:
        copy.start()
        copy.append("3", {"op": "batch", "text": "of the copy"})
        until(lambda: is_empty(copy))
        assert [body["run"] for body in taken] == ["3"]
        assert "left to the original, which sends them itself" in caplog.text
        original.start()
        until(lambda: is_empty(original))
        assert sorted(body["run"] for body in taken) == ["1", "2", "3"]
        (tmp_path / "original").rename(tmp_path / "gone")
        assert copy.take_up_copied() == 2
        until(lambda: is_empty(copy))
        assert sorted(body["run"] for body in taken) == ["1", "1", "2", "2", "3"]
    for outbox in (copy, original):
        outbox.close()


def test_a_copy_of_a_copy_leaves_one_run_to_both_of_its_originals(tmp_path, port, caplog):
    """Each has entries of the same run; nothing is sent from the last copy until somebody says so."""
    server = deliver_to(port)  # where nobody listens
    Outbox(tmp_path / "first", "server", server).append("1", {"op": "batch", "text": "of the first"})
    for before, now in (("first", "second"), ("second", "third")):
        subprocess.run(["cp", "-a", str(tmp_path / before), str(tmp_path / now)], check=True)
        outbox = Outbox(tmp_path / now, "server", server)
        outbox.start()
        outbox.close()
        assert len(outbox.copied()) == ("second", "third").index(now) + 1
        outbox.append("1", {"op": "batch", "text": f"of the {now}"})
    assert caplog.text.count("came with this copy of the project") == 2
    again = Outbox(tmp_path / "third", "server", server)
    again.start()
    again.close()
    assert caplog.text.count("came with this copy of the project") == 2  # it is said once
    assert [entry["text"] for entry in again.last_entries().values()] == ["of the third"]


@pytest.mark.parametrize("how", ["moved", "linked", "of an earlier version"])
def test_what_is_no_copy_is_sent(tmp_path, port, how):
    Outbox(tmp_path / "before", "server", deliver_to(port)).append("1", {"op": "batch"})
    if how == "moved":
        (tmp_path / "before").rename(tmp_path / "now")
    elif how == "linked":
        (tmp_path / "now").symlink_to(tmp_path / "before")
    else:
        (tmp_path / "before" / "owner").unlink()
        subprocess.run(["cp", "-a", str(tmp_path / "before"), str(tmp_path / "now")], check=True)
    outbox = Outbox(tmp_path / "now", "server", deliver_to(port))
    with listening(port) as taken:
        outbox.start()
        until(lambda: is_empty(outbox))
        assert [body["run"] for body in taken] == ["1"]
    outbox.close()


def test_a_folder_on_another_machine_is_a_copy_unless_it_is_the_same_file():
    """As one machine sees the folder of another over the network, or gets a copy of it."""
    here = FolderIdentity("/a", 1, 2, "here")
    assert FolderIdentity("/b", 9, 3, "there").is_copied_from(here)
    assert not FolderIdentity("/b", 9, 2, "there").is_copied_from(here)
