"""Who works on the sweeps of a store that have not ended: which process on which trial, since when."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna

from imgcls.config.load import load_experiment
from imgcls.errors import ImgclsError, InputError
from imgcls.project import find_experiment
from imgcls.record import Tag
from imgcls.run_record import RunRecord
from imgcls.search.journal import journal_of
from imgcls.search.leases import Holder, LeaseReader, process_in_words
from imgcls.search.storage import AUTO, JOURNAL, shared_address, storage_now
from imgcls.search.study_place import verbosity_kept
from imgcls.text import counted
from imgcls.tracking.credentials import scrubbed
from imgcls.tracking.store import Tracker

MOST_SWEEPS = 20
"""Number of sweeps, the newest, of which it is looked up who works on them."""


@dataclass(frozen=True)
class Work:
    """What one process works on.

    Attributes:
        sweep: the sweep's run.
        holder: the process, and what it holds.
    """

    sweep: RunRecord
    holder: Holder

    def __str__(self) -> str:
        silent = round(max(0.0, time.time() - self.holder.renewed))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.holder.since))
        return (
            f"sweep {self.sweep.run_id}: process {process_in_words(self.holder.about)} works on {self.holder.what} "
            f"since {since}, and said {counted(silent, 'second')} ago that it lives"
        )


def work_in_words(tracker: Tracker) -> list[str]:
    """Who works on the newest sweeps of a store that have not ended.

    It looks into the journals of the project, and into the storages that IMGCLS_STUDY_STORAGE and the experiments of
    these sweeps name. It waits for none of them.

    Args:
        tracker: of the store.

    Returns:
        A line for each process and what it works on, and one for each storage that does not answer.
    """
    sweeps = [s for s in tracker.find({Tag.KIND: "sweep"}, newest=MOST_SWEEPS) if s.outcome != "completed"]
    lines: list[str] = []
    seen: set[str] = set()
    for asked in _named_storages(sweeps, tracker.root) if sweeps else ():
        try:
            if (address := shared_address(asked)) not in seen:
                seen.add(address)
                lines += [str(work) for sweep in sweeps for work in _works(sweep, asked, tracker.root)]
        except Exception as error:  # whatever a storage answers, the record is examined all the same
            lines.append(f"who works on the sweeps of this store cannot be said: {_in_one_line(error)}")
    return lines


def _named_storages(sweeps: Sequence[RunRecord], root: Path) -> list[str]:
    """What `search.storage` may have been for sweeps, as far as it can be known here: no record has it."""
    named = {JOURNAL: None, AUTO: None}
    for name in {sweep.experiment for sweep in sweeps}:
        with suppress(InputError):  # the file is gone, or was changed to one that cannot be read
            named[load_experiment(find_experiment(name, root)[0]).search.storage] = None
    return list(named)


def _works(sweep: RunRecord, asked: str, root: Path) -> list[Work]:
    journal = journal_of(root, sweep.study)
    if not shared_address(asked) and not journal.exists():
        return []
    with verbosity_kept(), storage_now(asked, journal) as storage:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.load_study(study_name=sweep.study, storage=storage)
        except KeyError:  # it is kept elsewhere, or was removed
            return []
        return [Work(sweep, holder) for holder in LeaseReader(study).holders()]


def _in_one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, ImgclsError) else f"{type(error).__name__}: {error}"
    return scrubbed(text.strip().partition("\n")[0])
