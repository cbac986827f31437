"""Optuna's journal file, made safe against the death of whoever writes it."""

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from imgcls.files import open_locked, whole_lines
from imgcls.project import MLRUNS


def journal_of(root: Path, study: str) -> Path:
    """Where the journal of a study lies below a project's root, if it has one."""
    return root / MLRUNS / ".studies" / f"{study}.journal"  # no experiment's name begins with a dot


class Journal(JournalFileBackend):
    """Optuna's journal file, under a lock that the kernel frees, without the torn line of a killed writer.

    Optuna's locks are files that stay when their holder is killed: everybody waits 30 seconds, then breaks them. And
    what is appended to half a line can never be read again.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_Lock(path))


class StudyJournal(JournalStorage):
    """The storage of one study, in a journal.

    Attributes:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(Journal(path))
        self.path = path


class _Lock(JournalFileOpenLock):
    """Held while a record is appended."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f"{journal.name}.lock")

    def acquire(self) -> bool:
        self._file = open_locked(self._path)
        with self._journal.open("r+b") as file:
            file.truncate(whole_lines(file))
        return True

    def release(self) -> None:
        self._file.close()
