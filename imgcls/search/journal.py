"""Optuna's journal file, made safe against the death of whoever writes it."""

from __future__ import annotations

import os
from pathlib import Path

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from imgcls.files import lock


class Journal(JournalFileBackend):
    """Optuna's own file, under a lock that the kernel frees, without the torn line of a killed writer.

    Optuna's locks are files that stay when their holder is killed: everybody waits 30 seconds, then breaks them. And
    what is appended to half a line can never be read again.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_Lock(path))


class _Lock(BaseJournalFileLock):
    """Held while a record is appended."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f"{journal.name}.lock")
        self._file = -1

    def acquire(self) -> bool:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        lock(self._file, self._path, wait=True)
        _cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        os.close(self._file)


def _cut_torn_line(journal: Path) -> None:
    with journal.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
