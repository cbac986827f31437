"""What a tracking server has not got yet: a journal on disk for each run, sent in order by whichever process can.

Below the folder of one server lie

    lock                    held for the moments in which something here is written or removed
    writing/                artifacts that are being written
    RUN_ID/journal.jsonl    one entry a line, in the order in which they were logged
    RUN_ID/position         how many of its bytes have been sent
    RUN_ID/artifacts/       files to send; a newer one takes the place of an older one
    RUN_ID/sender           locked by the process that is sending this run
    RUN_ID/refused.jsonl    what the server will not take, each with its reason
    owner                   which folder of which machine this is
    .copied/OWNER/RUN_ID/   what came with a copy of another folder, which sends it itself

A process may die at any instant: what stands in a journal stays there until somebody has sent it, and sending it twice
does no harm. The locks are lockf's, which a forked worker does not keep alive as it would those of flock.
"""

from __future__ import annotations

import atexit
import json
import logging
import multiprocessing
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from imgcls.files import is_alive, link_or_copy, lock, open_locked, whole_lines, written_aside
from imgcls.tracking.folder_identity import FolderIdentity

log = logging.getLogger(__name__)

Entry = dict[str, Any]
Deliver = Callable[[str, Entry, Path | None], None]
"""Sends an entry of a run, with the file of an artifact; raises Unsent, Away or Refused."""

ARTIFACT = "artifact"
"""The `op` of an entry that stands for a file; its `name` is the artifact's path in the run."""
JOURNAL, POSITION, REFUSED, SENDER = "journal.jsonl", "position", "refused.jsonl", "sender"
OWNER, COPIED = "owner", ".copied"
RUN_ID = re.compile(r"[\w-]+")
LONGEST_PAUSE = 15.0
"""Seconds between two attempts at a server that stays away."""
FAREWELL = 5.0
"""Seconds that the end of a process leaves for what is still to be sent."""


class Unsent(Exception):
    """An entry that the server did not take now; it waits, and is sent again. The text goes on from its name."""


class Away(Unsent):
    """Nobody answers at the server's address."""


class Refused(Exception):
    """An entry that the server will never take."""


@dataclass(frozen=True)
class Pending:
    """What waits.

    Attributes:
        num_entries: in all journals.
        num_runs: that have entries.
        since: when the oldest was logged, in seconds since 1970; 0 where nothing waits.
    """

    num_entries: int
    num_runs: int
    since: float

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.num_entries} entries of {self.num_runs} runs, the oldest of {when}"


class Outbox:
    """The journals for one server, and the thread that sends them.

    Args:
        folder: where they lie; made when something is written.
        server: its name in messages, without credentials.
        deliver: sends one entry.
    """

    def __init__(self, folder: Path, server: str, deliver: Deliver) -> None:
        self.folder = folder
        self.server = server
        self.trouble: Unsent | None = None
        self.num_failures = 0
        self.num_sent = 0
        self._deliver = deliver
        self._refusing: set[str] = set()
        self._mutex = threading.Lock()
        self._bell = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    # --- writing ---

    def append(self, run_id: str, entry: Entry) -> None:
        """Adds an entry; it is on the disk when this returns.

        Args:
            run_id: of the run that it belongs to.
            entry: plain values, with an `op` that `deliver` knows.
        """
        with self._locked():
            self._write(self._run(run_id), entry)
        if not self.trouble:
            self._bell.set()

    def append_artifact(self, run_id: str, name: str, path: Path) -> None:
        """Adds a file, in the place of an older one of that name which is still here.

        Args:
            run_id: of the run that it belongs to.
            name: its path in the run.
            path: copied; linked where it lies in a folder of `writing()`.
        """
        with self._locked():
            staged = self._artifact(run_id, name)
            aside = staged.with_name(f".{staged.name}.new")
            staged.parent.mkdir(parents=True, exist_ok=True)
            aside.unlink(missing_ok=True)
            if path.is_relative_to(self.folder):
                link_or_copy(path, aside)
            else:
                shutil.copyfile(path, aside)
            aside.replace(staged)
            self._write(self._run(run_id), {"op": ARTIFACT, "name": name})
        if not self.trouble:
            self._bell.set()

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder on the same disk to write an artifact in."""
        parent = self.folder / "writing"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{os.uname().nodename}-{os.getpid()}-", dir=parent) as folder:
            yield Path(folder)

    def _write(self, run: Path, entry: Entry) -> None:
        if not (self.folder / OWNER).exists():
            self._sign(FolderIdentity.of(self.folder))
        run.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"at": time.time_ns(), **entry}).encode() + b"\n"
        with (run / JOURNAL).open("a+b") as file:
            file.truncate(whole_lines(file))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    # --- reading ---

    @contextmanager
    def staged(self, run_id: str, name: str) -> Iterator[Path | None]:
        """The newest version of an artifact where it has not been sent, for the length of the block; else None."""
        if not RUN_ID.fullmatch(run_id) or not self._run(run_id).is_dir():
            yield None
            return
        with self.writing() as folder:
            path = folder / Path(name).name
            try:
                link_or_copy(self._artifact(run_id, name), path)  # the sender may remove it at any moment
            except FileNotFoundError:
                yield None
                return
            yield path

    def pending(self) -> Pending:
        """What waits in all journals."""
        journals = [entries for run in self._runs() if (entries := self._entries(run))]
        first = min((entries[0]["at"] for entries in journals), default=0)
        return Pending(sum(map(len, journals)), len(journals), first / 1e9)

    def last_entries(self, run_id: str | None = None) -> dict[str, Entry]:
        """The last entry that waits now, for each run or for one."""
        runs = [run for run in self._runs() if run_id in (None, run.name)]
        return {run.name: entries[-1] for run in runs if (entries := self._entries(run))}

    def have_left(self, last: dict[str, Entry]) -> bool:
        """Whether all that waited when `last` was read waits no more."""
        return all(entry not in self._entries(self._run(run_id)) for run_id, entry in last.items())

    def num_refused(self) -> dict[Path, int]:
        """How many entries the server has refused, by the file that keeps them."""
        files = sorted(self.folder.glob(f"*/{REFUSED}"))
        return {file: len(file.read_bytes().splitlines()) for file in files}

    def _entries(self, run: Path) -> list[Entry]:
        with self._locked():
            return [entry for entry, _ in _unsent(run)]

    def _runs(self) -> list[Path]:
        return sorted(file.parent for file in self.folder.glob(f"*/{JOURNAL}"))

    def _run(self, run_id: str) -> Path:
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is no run id")
        return self.folder / run_id

    def _artifact(self, run_id: str, name: str) -> Path:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name!r} is no name for an artifact")
        return self._run(run_id) / "artifacts" / name

    # --- sending ---

    def start(self) -> None:
        """Begins to send, in the background; also what earlier processes left."""
        if self._thread is None:
            self._clear_up()
            self._set_copies_aside()
            self._thread = threading.Thread(target=self._serve, name="outbox", daemon=True)
            self._thread.start()
            if multiprocessing.parent_process() is None:  # what a worker leaves is sent, or named, by its parent
                atexit.register(self.farewell)

    def _clear_up(self) -> None:
        """Removes what processes of this machine that were killed had begun to write."""
        for folder in self.folder.glob(f"writing/{os.uname().nodename}-*-*"):
            if not is_alive(int(folder.name.split("-")[-2])):
                shutil.rmtree(folder, ignore_errors=True)

    def _set_copies_aside(self) -> None:
        """Sets aside what came with a copy of another folder, which sends it itself.

        If it were sent from here as well, an old checkpoint or an old end of a run would follow newer ones.
        """
        if not self.folder.is_dir():
            return
        with self._locked():
            own, owner = FolderIdentity.of(self.folder), self._owner()
            runs: set[Path] = set()
            if owner is not None and own.is_copied_from(owner):
                runs = {file.parent for name in (JOURNAL, REFUSED) for file in self.folder.glob(f"*/{name}")}
                for run in runs:
                    aside = self.folder / COPIED / owner.digest() / run.name
                    aside.parent.mkdir(parents=True, exist_ok=True)
                    run.rename(aside)
            self._sign(own)
        if runs:
            log.warning(
                "%d runs with entries for the tracking server %s came with this copy of the project; they are left to "
                "the original, which sends them itself (if it is gone: imgcls doctor --relocate)",
                len(runs), self.server,
            )  # fmt: skip

    def copied(self) -> list[Path]:
        """Folders of runs that came with a copy, and are not sent from here."""
        return sorted((self.folder / COPIED).glob("*/*"))

    def take_up_copied(self) -> int:
        """Takes over what came with a copy whose original is gone, so that it is sent; gives the number of runs.

        A run that has newer entries here is left as it is.
        """
        taken = 0
        with self._locked():
            for run in self.copied():
                if not self._run(run.name).exists():
                    run.rename(self._run(run.name))
                    taken += 1
        self._bell.set()
        return taken

    def _owner(self) -> FolderIdentity | None:
        try:
            return FolderIdentity(**json.loads((self.folder / OWNER).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # of an earlier version, or cut off with the power
            return None

    def _sign(self, own: FolderIdentity) -> None:
        with written_aside(self.folder / OWNER) as aside:
            aside.write_text(json.dumps(asdict(own)), encoding="utf-8")

    def hurry(self) -> None:
        """Ends the pause before the next attempt: somebody waits."""
        self._bell.set()

    def close(self) -> None:
        """Ends the thread once its present request is over; what is unsent stays on the disk."""
        atexit.unregister(self.farewell)
        self._closed = True
        self._bell.set()

    def farewell(self, seconds: float = FAREWELL) -> None:
        """Leaves the sender some time, unless the server is away, and says what is unsent and how to send it."""
        deadline = time.monotonic() + seconds
        self.hurry()
        while self._thread and self.num_failures < 2 and self.pending().num_entries and time.monotonic() < deadline:
            time.sleep(0.05)
        if (pending := self.pending()).num_entries:
            log.warning(
                "unsent: %s, wait for the tracking server %s in %s; once it answers, `imgcls doctor` sends them",
                pending, self.server, self.folder,
            )  # fmt: skip

    def take_up_refused(self) -> None:
        """Puts what the server refused behind what waits, to be tried once more."""
        for file in self.num_refused():
            with self._locked():
                for line in file.read_bytes().splitlines():
                    entry: Entry = json.loads(line)
                    self._write(file.parent, {key: value for key, value in entry.items() if key != "refused"})
                file.unlink()
        self._bell.set()

    def _serve(self) -> None:
        pause: float | None = 0.0
        while not self._closed:
            self._bell.wait(pause)
            self._bell.clear()
            pause = self._round()

    def _round(self) -> float | None:
        """Sends what is there; gives the seconds until the next round, None for when something is added."""
        try:
            self._send_all()
        except Exception as error:  # whatever it is, this thread must live on
            self.trouble = error if isinstance(error, Unsent) else Unsent(f"cannot be served: {error!r}")
            self.num_failures += 1
            if self.num_failures == 2:  # a single failure may be a connection that had grown old
                log.warning(
                    "the tracking server %s %s; training goes on, and what could not be sent waits in %s",
                    self.server, self.trouble, self.folder,
                )  # fmt: skip
            return min(LONGEST_PAUSE, 2.0 ** min(self.num_failures - 1, 10))
        if self.num_failures >= 2:
            log.warning("the tracking server %s answers again; what waited has been sent", self.server)
        self.trouble, self.num_failures = None, 0
        return 1.0 if self._runs() else None  # what is left is being sent by another process

    def _send_all(self) -> None:
        trouble: Unsent | None = None
        for run in self._runs():
            try:
                self._send_run(run)
            except Away:
                raise
            except Unsent as error:  # this run has to wait; the others need not
                trouble = error
        if trouble is not None:
            raise trouble

    def _send_run(self, run: Path) -> None:
        claim = self._claim(run)
        if claim is None:
            return
        with claim:
            with self._locked():
                entries = _unsent(run)
            newest: dict[str | None, int] = {entry["name"]: end for entry, end in entries if entry["op"] == ARTIFACT}
            for entry, end in entries:
                try:
                    if newest.get(entry.get("name"), end) == end:
                        self._send(run, entry)
                    self.num_sent += 1
                except Refused as error:
                    self._set_aside(run, entry, str(error))
                _move_on(run, end)
            with self._locked():
                if not _unsent(run):
                    _remove(run)

    def _claim(self, run: Path) -> IO[str] | None:
        """The lock of the one process that sends this run; None where another has it."""
        with self._locked():
            if not (run / JOURNAL).exists():
                return None
            file = (run / SENDER).open("a")
            if lock(file.fileno(), run / SENDER, wait=False):
                return file
            file.close()
            return None

    def _send(self, run: Path, entry: Entry) -> None:
        if entry["op"] != ARTIFACT:
            self._deliver(run.name, entry, None)
            return
        path = self._artifact(run.name, entry["name"])
        try:
            before = path.stat()
        except FileNotFoundError:  # it was sent, and the process died before it could say so
            return
        self._deliver(run.name, entry, path)
        with self._locked():
            after = path.stat()
            if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns):
                path.unlink()  # else a newer one has come, with an entry of its own

    def _set_aside(self, run: Path, entry: Entry, reason: str) -> None:
        if run.name not in self._refusing:  # a run that somebody deleted is refused with every epoch
            self._refusing.add(run.name)
            log.warning(
                "the tracking server %s refused %s of run %s (%s); what it refuses of this run is kept in %s",
                self.server, entry.get("name") or entry["op"], run.name, reason, run / REFUSED,
            )  # fmt: skip
        with self._locked(), (run / REFUSED).open("ab") as file:
            file.write(json.dumps({**entry, "refused": reason}).encode() + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._mutex:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open_locked(self.folder / "lock"):
                yield


def _unsent(run: Path) -> list[tuple[Entry, int]]:
    """The entries of a run that wait, each with the byte of the journal at which it ends."""
    if not (run / JOURNAL).exists():
        return []
    content = (run / JOURNAL).read_bytes()
    position = int((run / POSITION).read_text() or "0") if (run / POSITION).exists() else 0
    if position > len(content):  # a disk that lost the end of the journal with the power
        position = 0
    found = []
    for line in content[position:].splitlines(keepends=True):
        if line.endswith(b"\n"):
            position += len(line)
            found.append((_parsed(line), position))
    return found


def _parsed(line: bytes) -> Entry:
    try:
        entry: Entry = json.loads(line)
    except ValueError:
        return {"at": 0, "op": "unreadable", "line": line.decode(errors="replace")}
    return entry


def _move_on(run: Path, position: int) -> None:
    aside = run / f".{POSITION}"
    aside.write_text(str(position))
    aside.replace(run / POSITION)


def _remove(run: Path) -> None:
    # The position first: a journal without one is sent again, a new journal with an old one would lose entries.
    for name in (POSITION, JOURNAL, SENDER):
        (run / name).unlink(missing_ok=True)
    if not (run / REFUSED).exists():
        shutil.rmtree(run)
