"""Leases: which process works on what in a study that several share, decided by the study's storage alone.

They are trials of a second study, `NAME.leases`, because every storage of Optuna does two things at once or not at all:
it creates a trial with its attributes and gives it the next number, and it ends a trial that has not ended. A process
that joins has an entry, and a ticket for each thing that it holds:

- Of several tickets for the same thing, the lowest that is not over has it. A ticket is over when its holder gave it
  back, or when its holder's entry has ended. Neither ever changes back, so all who read agree.
- A holder renews its entry from a thread. Whoever sees for `seconds` of its own clock that an entry is not renewed ends
  it. No clocks of two machines are compared. Time in which the storage was away does not count: nobody could renew.
- A holder that was stopped finds that it cannot renew an entry that has ended, and writes nothing (`Fence.check`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from imgcls.errors import LeaseLost
from imgcls.search.journal import StudyJournal
from imgcls.search.optuna_internals import id_of, storage_of, study_id_of

log = logging.getLogger(__name__)

ABOUT, RENEWED, SECONDS, SILENT = "about", "renewed", "seconds", "silent_since"
"""Attributes of an entry: of which process it is, when it was renewed last (nanoseconds since 1970 by its own clock),
after how many seconds without that it may be ended, and which renewal was the last one seen by whoever ended it."""

WHAT, HOLDER = "what", "holder"
"""Attributes of a ticket: what it is for, and the number of its holder's entry."""

LOOKS = 4
"""Number of times within a lease's seconds that an entry is renewed, and that those of others are looked at."""

SAFE = 2 / 3
"""Share of a lease's seconds for which a holder writes after it renewed; the rest is for the writing itself."""

SECONDS_TO_END = 2.0
"""Seconds that a process which leaves waits for a renewal that is being written, which an absent server may hold up."""


def seconds_with_sleep() -> float:
    """A clock for leases, in seconds, that goes on while the machine sleeps, where the system has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True)
class Entry:
    """The entry of a process in the leases of a study.

    Attributes:
        trial_id: by which the storage knows it.
        seconds: after which others may end it if it is not renewed.
    """

    trial_id: int
    seconds: float


class Fence:
    """What a process asks before it writes on a lease: whether its entry has not been ended meanwhile.

    Any process that works for the entry's owner may renew the entry, such as one that trains a trial for a driver.

    Args:
        study: whose trials are worked on.
        entry: of the process that holds the leases.
        clock: in seconds, which goes on while the machine sleeps.
    """

    def __init__(self, study: optuna.Study, entry: Entry, clock: Callable[[], float] = seconds_with_sleep) -> None:
        self._storage, self._entry, self._clock = _storage_of_leases(study), entry, clock
        self._renewed = -float("inf")

    def check(self) -> None:
        """Lets a write pass if the entry was renewed not long ago, or can be renewed now.

        Raises:
            LeaseLost: others have ended the entry.
        """
        while self._clock() - self._renewed > SAFE * self._entry.seconds:
            self.renew()

    def renew(self) -> None:
        """Renews the entry.

        Raises:
            LeaseLost: others have ended it.
        """
        begun = self._clock()
        try:
            self._storage.set_trial_user_attr(self._entry.trial_id, RENEWED, time.time_ns())
            # Read again: a storage may look whether a trial has ended some moments before it writes the attribute.
            has_ended = self._storage.get_trial(self._entry.trial_id).state.is_finished()
        except UpdateFinishedTrialError:
            has_ended = True
        if has_ended:
            raise LeaseLost(
                f"this process was silent for more than search.lease = {self._entry.seconds:g} s and counts as gone; "
                "what it worked on goes on elsewhere, and it wrote nothing more"
            )
        self._renewed = begun


@dataclass(frozen=True)
class Lease:
    """A lease that this process holds.

    Attributes:
        what: is held, such as `trial 7`.
        was_lost: whether a process that was seen at work held it before and is gone.
    """

    what: str
    was_lost: bool = False


@dataclass(frozen=True)
class Holder:
    """The holder of a lease, as others see it.

    Attributes:
        what: is held, such as `trial 7`.
        about: the process, as it described itself.
        since: seconds since 1970 at which it took the lease, by its own clock.
        renewed: seconds since 1970 at which it renewed its entry last, by its own clock.
    """

    what: str
    about: Mapping[str, str]
    since: float
    renewed: float


class LeaseReader:
    """Reads the leases of a study: who works on what. It writes nothing; a study that nobody has joined has no leases.

    Args:
        study: whose trials are worked on.
        clock: in seconds; by it others count as silent.
    """

    def __init__(self, study: optuna.Study, clock: Callable[[], float] = time.monotonic) -> None:
        self.study = study
        self._clock = clock
        self._leases: optuna.Study | None = None
        self._seen_dead: dict[int, float] = {}

    def holders(self) -> list[Holder]:
        """The holders of all leases, this process included, in the order in which they took them."""
        trials = self._trials()
        entries = {trial.number: trial for trial in trials if ABOUT in trial.user_attrs}
        gone = self._gone(trials)
        firsts: dict[str, Holder] = {}
        for trial in trials:
            if _is_open_ticket(trial) and (number := trial.user_attrs[HOLDER]) not in gone:
                entry, began = entries[number].user_attrs, trial.datetime_start
                since = began.timestamp() if began else 0.0
                holder = Holder(trial.user_attrs[WHAT], entry[ABOUT], since, entry[RENEWED] / 1e9)
                firsts.setdefault(holder.what, holder)
        return list(firsts.values())

    def renewed_by(self, what: str) -> float:
        """When whoever holds a lease renewed its entry last, in seconds since 1970 by its own clock; 0 for nobody."""
        return next((holder.renewed for holder in self.holders() if holder.what == what), 0.0)

    def _gone(self, trials: list[FrozenTrial]) -> set[int]:
        """Numbers of the entries whose processes write no more."""
        gone = set()
        for entry in trials:
            if ABOUT not in entry.user_attrs or not entry.state.is_finished():
                continue
            attrs = entry.user_attrs
            # One that renewed its entry at the last moment does not know yet, and finds out within its seconds.
            dead_for = self._clock() - self._seen_dead.setdefault(entry.number, self._clock())
            if entry.state == TrialState.COMPLETE or attrs.get(SILENT) == attrs[RENEWED] or dead_for >= attrs[SECONDS]:
                gone.add(entry.number)
        return gone

    def _trials(self) -> list[FrozenTrial]:
        self._leases = self._leases or _existing_leases(self.study)
        return self._leases.get_trials(deepcopy=False) if self._leases else []


class Leases(LeaseReader):
    """The leases of a study, as one process takes and gives them back.

    Args:
        study: whose trials are worked on.
        seconds: after which others may take over what a process held that is silent.
        about: this process, for whoever looks.
        is_dead: whether a process of this machine that described itself so is known to have ended.
        clock: in seconds; by it others count as silent.
        own_clock: in seconds, which goes on while the machine sleeps; by it this process does.
    """

    def __init__(
        self,
        study: optuna.Study,
        seconds: float,
        about: Mapping[str, str],
        is_dead: Callable[[Mapping[str, str]], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
        own_clock: Callable[[], float] = seconds_with_sleep,
    ) -> None:
        super().__init__(study, clock)
        self.seconds = seconds
        self._storage = _storage_of_leases(study)
        self._leases = leases = optuna.create_study(
            storage=self._storage, study_name=_name_of_leases(study), load_if_exists=True
        )
        self._study_id = study_id_of(leases)
        self._is_dead = is_dead
        self._seen: dict[int, tuple[int, float]] = {}
        self._at_work: set[int] = set()
        self._held: dict[str, int] = {}
        attrs = {ABOUT: dict(about), RENEWED: time.time_ns(), SECONDS: seconds}
        self.entry = Entry(self._created(attrs), seconds)
        self._number = self._storage.get_trial(self.entry.trial_id).number
        self.fence = Fence(study, self.entry, own_clock)
        self.look()

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the entry from a thread within the block, and looks at those of others; then all is given back."""
        left = threading.Event()
        thread = threading.Thread(target=self._renew, args=(left,), name="leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join(timeout=SECONDS_TO_END)
            self.leave()

    def take(self, what: str, *, seems_free: bool = False) -> Lease | None:
        """Takes a lease; None where another process holds it.

        Args:
            what: is to be held.
            seems_free: whether the caller has just seen that nobody holds it, so that the first look is left out.

        Raises:
            LeaseLost: others have ended this process's entry.
        """
        if what in self._held:
            return Lease(what)
        self.fence.check()
        trials = [] if seems_free else self._trials()
        if (first := self._first(what, trials)) is None:
            ticket = self._created({WHAT: what, HOLDER: self._number})
            trials = self._trials()
            first = self._first(what, trials)
            if first is None or id_of(first) != ticket:
                self._end(ticket)
        if first is None or first.user_attrs[HOLDER] != self._number:
            return None
        self._held[what] = id_of(first)
        return Lease(what, self._was_lost(what, trials))

    def give_back(self, what: str) -> None:
        """Gives back a lease, if this process holds it."""
        if (ticket := self._held.pop(what, None)) is not None:
            self._end(ticket)

    def leave(self) -> None:
        """Gives back all that this process holds."""
        for what in list(self._held):
            self.give_back(what)
        self._end(self.entry.trial_id)

    def held_elsewhere(self) -> set[str]:
        """What other processes hold."""
        return {holder.what for holder in self.holders()} - self._held.keys()

    def look(self, asked: float | None = None) -> None:
        """Looks at the entries of others, and ends those of processes that are silent or known to have ended.

        `asked` is when this process turned to the storage, by its clock; now by default.
        """
        asked = self._clock() if asked is None else asked
        trials = self._trials()
        if self._clock() - asked > self.seconds / LOOKS:  # the storage was away, and nobody could renew an entry
            self._seen.clear()
        for entry in trials:
            if ABOUT not in entry.user_attrs or entry.state.is_finished() or entry.number == self._number:
                continue
            number, renewed, now = entry.number, entry.user_attrs[RENEWED], self._clock()
            before, _ = self._seen.get(number, (renewed, now))
            if renewed != before:
                self._at_work.add(number)
            if renewed != before or number not in self._seen:
                self._seen[number] = renewed, now
            is_silent = now - self._seen[number][1] >= entry.user_attrs[SECONDS]
            if (is_silent or self._is_dead(entry.user_attrs[ABOUT])) and self._bury(id_of(entry), renewed):
                log.info("process %s is gone; others take over what it held", process_in_words(entry.user_attrs[ABOUT]))

    def _bury(self, entry_id: int, renewed: int) -> bool:
        """Ends an entry whose process is gone; False where it left just now, or somebody else was faster."""
        try:
            self._storage.set_trial_user_attr(entry_id, SILENT, renewed)
            self._storage.set_trial_state_values(entry_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def _first(self, what: str, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """The ticket that has it; None where nobody holds it."""
        gone = self._gone(trials)
        tickets = (trial for trial in trials if _is_open_ticket(trial) and trial.user_attrs[WHAT] == what)
        return next((ticket for ticket in tickets if ticket.user_attrs[HOLDER] not in gone), None)

    def _was_lost(self, what: str, trials: list[FrozenTrial]) -> bool:
        """Whether processes that this one saw at work are gone with an earlier ticket, which is ended then."""
        earlier = [ticket for ticket in trials if _is_open_ticket(ticket) and ticket.user_attrs[WHAT] == what]
        lost = [ticket for ticket in earlier if id_of(ticket) < self._held[what]]
        for ticket in lost:
            self._end(id_of(ticket), TrialState.FAIL)
        return any(ticket.user_attrs[HOLDER] in self._at_work for ticket in lost)

    def _renew(self, left: threading.Event) -> None:
        while not left.wait(self.seconds / LOOKS):
            asked = self._clock()
            try:
                self.fence.renew()
                self.look(asked)
            except LeaseLost:
                return  # whoever writes next finds out
            except Exception as error:  # a storage that is away: the next look may reach it
                self._seen.clear()
                log.debug("no look at the leases: %s", error)

    def _created(self, attrs: dict[str, Any]) -> int:
        entry_or_ticket = create_trial(state=TrialState.RUNNING, user_attrs=attrs, value=None)
        return self._storage.create_new_trial(self._study_id, entry_or_ticket)

    def _end(self, trial_id: int, state: TrialState = TrialState.COMPLETE) -> None:
        values = [0.0] if state == TrialState.COMPLETE else None
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial_id, state, values)


def _storage_of_leases(study: optuna.Study) -> BaseStorage:
    """A file beside the study's journal, which other programs take to hold one study; a server keeps both."""
    storage = storage_of(study)
    return StudyJournal(_path_of_leases(storage)) if isinstance(storage, StudyJournal) else storage


def _path_of_leases(journal: StudyJournal) -> Path:
    return journal.path.with_suffix(".leases")


def _name_of_leases(study: optuna.Study) -> str:
    return f"{study.study_name}.leases"


def _existing_leases(study: optuna.Study) -> optuna.Study | None:
    """The leases of a study; None where no process has joined it yet."""
    storage = storage_of(study)
    if isinstance(storage, StudyJournal) and not _path_of_leases(storage).exists():  # which opening it would make
        return None
    try:
        return optuna.load_study(study_name=_name_of_leases(study), storage=_storage_of_leases(study))
    except KeyError:
        return None


def _is_open_ticket(trial: FrozenTrial) -> bool:
    return WHAT in trial.user_attrs and not trial.state.is_finished()


def process_in_words(about: Mapping[str, str]) -> str:
    """The process that a lease's entry describes, such as `4711 of host1`."""
    return f"{about.get('pid', 'unknown')} of {about.get('host', 'unknown')}"
