"""Who works on the sweeps of a store that have not ended: which process on which trial, since when."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import optuna

from imgcls.errors import ImgclsError
from imgcls.record import Tag
from imgcls.run_record import RunRecord
from imgcls.search.journal import journal_of
from imgcls.search.leases import Holder, LeaseReader, process_in_words
from imgcls.search.storage import AUTO, check_storage, open_storage, shared_address
from imgcls.search.study import verbosity_kept
from imgcls.text import counted
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


def who_works(tracker: Tracker) -> list[Work]:
    """Who works on the newest sweeps of a store that have not ended.

    Args:
        tracker: of the store; the studies are where IMGCLS_STUDY_STORAGE says, or in journals of this project.

    Raises:
        ImgclsError: the studies' server cannot be reached.
    """
    sweeps = [s for s in tracker.find({Tag.KIND: "sweep"}, newest=MOST_SWEEPS) if s.outcome != "completed"]
    if not sweeps:
        return []
    check_storage(AUTO)
    with verbosity_kept():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return [work for sweep in sweeps for work in _on(sweep, tracker)]


def _on(sweep: RunRecord, tracker: Tracker) -> Iterator[Work]:
    journal = journal_of(tracker.root, sweep.study)
    if not shared_address(AUTO) and not journal.exists():
        return
    storage = open_storage(AUTO, journal)
    try:
        study = optuna.load_study(study_name=sweep.study, storage=storage)
    except KeyError:  # it is kept elsewhere, or was removed
        return
    for holder in LeaseReader(study).holders():
        yield Work(sweep, holder)


def work_in_words(tracker: Tracker) -> list[str]:
    """Who works on what, a line each, or why that cannot be said."""
    try:
        return [str(work) for work in who_works(tracker)]
    except ImgclsError as error:
        return [f"who works on the sweeps of this store cannot be said: {error}"]
