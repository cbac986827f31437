"""Sends what a tracking server has not got yet, in order and in the background, from whichever process can."""

import atexit
import json
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from imgcls.stored_names import process_of
from imgcls.tracking.outbox_files import ARTIFACT, REFUSED, Entry, OutboxFiles, note_sent, remove_sent, waiting_entries
from imgcls.tracking.server_errors import Away, Refused, Unsent

log = logging.getLogger(__name__)

Deliver = Callable[[str, Entry, Path | None], None]
"""Sends an entry of a run, with the file of an artifact; raises Unsent, Away or Refused."""

Owner = Callable[[str], str]
"""Gives the id of the claims under which a run is written now, by the server's record; raises as `Deliver` does."""

LONG = 1.0
"""Seconds after which an entry that still waits may be of a run that a process elsewhere has taken over."""

LONGEST_PAUSE = 15.0
"""Seconds between two attempts at a server that stays away."""
FAREWELL = 5.0
"""Seconds that the end of a process leaves for what is still to be sent."""


class Outbox(OutboxFiles):
    """The outbox for a tracking server, with the thread that sends what waits in it by `deliver`.

    Messages name the server by `server`, which has no credentials. What waited for long is sent only where `owner`, if
    it is given, says that nobody elsewhere has taken over the run: an old checkpoint would follow newer ones.
    """

    def __init__(
        self, folder: Path, server: str, deliver: Deliver, owner: Owner | None = None,
        claims: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        super().__init__(folder, claims)
        self._owner_of = owner
        self.server = server
        self.trouble: Unsent | None = None
        self.num_failures = 0
        self.num_sent = 0
        self._deliver = deliver
        self._refusing: set[str] = set()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to send, in the background; also what earlier processes left."""
        if self._thread is not None:
            return
        self.clear_up()
        if num_copied := self.set_copies_aside():
            log.warning(
                "%d runs with entries for the tracking server %s came with this copy of the project; they are left to "
                "the original, which sends them itself (if it is gone: imgcls doctor --relocate)",
                num_copied, self.server,
            )  # fmt: skip
        self._thread = threading.Thread(target=self._serve, name="outbox", daemon=True)
        self._thread.start()
        if multiprocessing.parent_process() is None:  # what a worker leaves is sent, or named, by its parent
            atexit.register(self.farewell)

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

    def _added(self) -> None:
        if not self.trouble:  # else the pause before the next attempt goes on
            self.hurry()

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
                entries = waiting_entries(run)
            if self._is_taken_over(run.name, [entry for entry, _ in entries]):
                log.warning("run %s goes on elsewhere; %d entries that waited here are dropped", run.name, len(entries))
                with self._locked():
                    remove_sent(run)
                return
            newest: dict[str | None, int] = {entry["name"]: end for entry, end in entries if entry["op"] == ARTIFACT}
            for entry, end in entries:
                try:
                    if newest.get(entry.get("name"), end) == end:
                        self._send(run, entry)
                    self.num_sent += 1
                except Refused as error:
                    self._set_aside(run, entry, str(error))
                note_sent(run, end)
            with self._locked():
                if not waiting_entries(run):
                    remove_sent(run)

    def _is_taken_over(self, run_id: str, entries: Sequence[Entry]) -> bool:
        """Whether a process elsewhere has taken over a run since these entries of it were written here."""
        if self._owner_of is None or not entries or time.time() - entries[0]["at"] / 1e9 < LONG:
            return False
        writers = {entry.get("claims", "") for entry in entries} - {""}
        if not writers or any(_says_who_writes(entry) for entry in entries):  # the run is being taken over by us
            return False
        try:
            owner = self._owner_of(run_id)
        except Refused:  # a run that somebody deleted, of which the entries will be refused too
            return False
        return bool(owner) and owner not in writers

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


def _says_who_writes(entry: Entry) -> bool:
    """Whether an outbox's entry is the one by which a process begins to write a run that there is."""
    return bool(process_of(dict(entry.get("tags", ()))).get("claims"))
