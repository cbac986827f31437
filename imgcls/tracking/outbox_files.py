"""The files of an outbox: what a tracking server has not got yet, in a journal on disk for each run.

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

import json
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

from imgcls.files import (
    leftovers,
    link_or_copy,
    lock,
    mark_of_this_process,
    open_locked,
    whole_lines,
    written_aside,
)
from imgcls.tracking.folder_identity import FolderIdentity

Entry = dict[str, Any]

ARTIFACT = "artifact"
"""The `op` of an entry that stands for a file; its `name` is the artifact's path in the run."""
JOURNAL, POSITION, REFUSED, SENDER = "journal.jsonl", "position", "refused.jsonl", "sender"
OWNER, COPIED = "owner", ".copied"
RUN_ID = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Pending:
    """What waits in the outbox files.

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


class OutboxFiles:
    """The outbox files for one server, in a folder that is made when something is written.

    Args:
        folder: of the files.
        claims: gives the id of this project's claims, under which each entry is written; "" for none.
    """

    def __init__(self, folder: Path, claims: Callable[[], str] = lambda: "") -> None:
        self.folder = folder
        self._claims = claims
        self._mutex = threading.Lock()
        self._bell = threading.Event()

    # --- writing ---

    def append(self, run_id: str, entry: Entry) -> None:
        """Adds an entry of a run, plain values with an `op`; it is on the disk when this returns."""
        with self._locked():
            self._write(self._run(run_id), entry)
        self._added()

    def append_artifact(self, run_id: str, name: str, path: Path) -> None:
        """Adds an artifact, in the place of an older one of that name which is still here.

        Its file is copied, or linked where it lies in a folder of `writing()`.
        """
        with self._locked():
            staged = self._artifact(run_id, name)
            staged.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(staged) as aside:
                if path.is_relative_to(self.folder):
                    aside.unlink(missing_ok=True)  # of a process of the same number
                    link_or_copy(path, aside)
                else:
                    shutil.copyfile(path, aside)
            self._write(self._run(run_id), {"op": ARTIFACT, "name": name})
        self._added()

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder on the same disk to write an artifact in."""
        parent = self.folder / "writing"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=mark_of_this_process(), dir=parent) as folder:
            yield Path(folder)

    def _write(self, run: Path, entry: Entry) -> None:
        if not (self.folder / OWNER).exists():
            self._sign(FolderIdentity.of(self.folder))
        run.mkdir(parents=True, exist_ok=True)
        written = {"at": time.time_ns(), "claims": self._claims()}
        line = json.dumps({**written, **entry}).encode() + b"\n"
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
            return [entry for entry, _ in waiting_entries(run)]

    def _runs(self) -> list[Path]:
        return sorted(file.parent for file in self.folder.glob(f"*/{JOURNAL}"))

    def _run(self, run_id: str) -> Path:
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is not a run id")
        return self.folder / run_id

    def _artifact(self, run_id: str, name: str) -> Path:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name!r} is not a name for an artifact")
        return self._run(run_id) / "artifacts" / name

    # --- what others left ---

    def clear_up(self) -> None:
        """Removes what processes of this machine that were killed had begun to write."""
        for folder in leftovers(self.folder / "writing"):
            shutil.rmtree(folder, ignore_errors=True)

    def set_copies_aside(self) -> int:
        """Sets aside what came with a copy of another folder, which sends it itself; gives the number of runs.

        If it were sent from here as well, an old checkpoint or an old end of a run would follow newer ones.
        """
        if not self.folder.is_dir():
            return 0
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
        return len(runs)

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
        self.hurry()
        return taken

    def _owner(self) -> FolderIdentity | None:
        try:
            return FolderIdentity(**json.loads((self.folder / OWNER).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # of an earlier version, or cut off with the power
            return None

    def _sign(self, own: FolderIdentity) -> None:
        with written_aside(self.folder / OWNER) as aside:
            aside.write_text(json.dumps(asdict(own)), encoding="utf-8")

    def take_up_refused(self) -> None:
        """Puts what the server refused behind what waits, to be tried once more."""
        for file in self.num_refused():
            with self._locked():
                for line in file.read_bytes().splitlines():
                    entry: Entry = json.loads(line)
                    self._write(file.parent, {key: value for key, value in entry.items() if key != "refused"})
                file.unlink()
        self.hurry()

    # --- for whoever sends ---

    def hurry(self) -> None:
        """Ends the pause before the next attempt: somebody waits."""
        self._bell.set()

    def _added(self) -> None:
        """Called when something was added."""
        self.hurry()

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

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._mutex:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open_locked(self.folder / "lock"):
                yield


def waiting_entries(run: Path) -> list[tuple[Entry, int]]:
    """The outbox files' entries of a run that wait, from its journal, each with the byte at which it ends."""
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


def note_sent(run: Path, position: int) -> None:
    """Notes in the outbox files that a run's journal has been sent up to this byte."""
    with written_aside(run / POSITION) as aside:
        aside.write_text(str(position))


def remove_sent(run: Path) -> None:
    """Removes from the outbox files what has been sent of a run; what was refused stays."""
    # The position first: a journal without one is sent again, a new journal with an old one would lose entries.
    for name in (POSITION, JOURNAL, SENDER):
        (run / name).unlink(missing_ok=True)
    if not (run / REFUSED).exists():
        shutil.rmtree(run)
