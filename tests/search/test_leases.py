"""Leases in a real journal, by clocks that the tests move; processes are objects with a storage of their own."""

import logging
import multiprocessing
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from imgcls.errors import LeaseLost
from imgcls.search.journal import Journal, StudyJournal
from imgcls.search.leases import RENEWED, LeaseReader, Leases

SECONDS = 40.0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def join(tmp_path, clock):
    """Joins the leases of one study, each time as another process would."""
    journal = tmp_path / "journal"
    journal.touch()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def join(pid="1", **options):
        storage = JournalStorage(Journal(journal))
        study = optuna.create_study(storage=storage, study_name="study", load_if_exists=True)
        options = {"clock": clock, "own_clock": clock} | options
        return Leases(study, SECONDS, {"host": "here", "pid": pid}, **options)

    return join


@pytest.mark.parametrize("where", [StudyJournal, lambda path: JournalStorage(Journal(path))])
def test_whoever_only_looks_writes_nothing(tmp_path, where):
    """The first keeps leases in a file beside the journal, the second in the same storage, as servers do."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (tmp_path / "study.journal").touch()
    study = optuna.create_study(storage=where(tmp_path / "study.journal"), study_name="study")

    def files():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".lock"}

    before = files()
    reader = LeaseReader(study)
    assert reader.holders() == [] and reader.renewed_by("trial 0") == 0.0
    assert files() == before
    joined = Leases(study, SECONDS, {"host": "here", "pid": "1"})
    joined.take("trial 0")
    before = files()
    assert [holder.what for holder in reader.holders()] == ["trial 0"] == [h.what for h in LeaseReader(study).holders()]
    assert files() == before


def test_one_process_holds_a_lease_until_it_gives_it_back(join):
    one, other = join(), join("2")
    assert one.take("trial 0") and not other.take("trial 0")
    assert one.take("trial 0")  # as often as it asks
    assert other.take("trial 1") and not one.take("trial 1")
    assert one.held_elsewhere() == {"trial 1"} and other.held_elsewhere() == {"trial 0"}
    one.give_back("trial 0")
    lease = other.take("trial 0")
    assert lease and not lease.was_lost


def test_whoever_leaves_gives_back_all_that_it_held(join):
    one, other = join(), join("2")
    with one.renewed():
        assert one.take("trial 0") and one.take("parent")
    assert other.take("trial 0") and other.take("parent")
    assert not one.take("trial 2")


def test_a_process_is_gone_once_another_has_seen_it_silent_for_the_seconds(join, clock, caplog):
    one, other = join(), join("2")
    assert one.take("trial 0")
    for _ in range(3):  # as long as it renews its entry
        clock.now += 0.9 * SECONDS
        one.fence.renew()
        other.look()
        assert not other.take("trial 0")
    clock.now += SECONDS - 0.1
    other.look()
    assert not other.take("trial 0")
    clock.now += 0.1
    with caplog.at_level(logging.INFO):
        other.look()
    assert caplog.messages == ["process 1 of here is gone; others take over what it held"]
    lease = other.take("trial 0")
    assert lease and lease.was_lost
    with pytest.raises(LeaseLost, match=r"silent for more than search.lease = 40 s"):
        one.fence.check()
    with pytest.raises(LeaseLost):
        one.take("trial 1")
    one.give_back("trial 0")
    assert not join("3").take("trial 0")


def test_what_a_process_left_before_this_one_came_was_not_lost_while_the_study_ran(join, clock):
    one = join()
    assert one.take("trial 0")
    other = join("2")
    clock.now += SECONDS
    other.look()
    lease = other.take("trial 0")
    assert lease and not lease.was_lost


def test_a_process_that_is_known_to_be_dead_is_gone_at_once(join):
    one = join()
    assert one.take("trial 0")
    other = join("2", is_dead=lambda about: about["pid"] == "1")
    lease = other.take("trial 0")
    assert lease and not lease.was_lost


def test_one_that_renews_at_the_last_moment_keeps_others_waiting_until_it_cannot_write(join, clock):
    one, other, third = join(), join("2"), join("3")
    assert one.take("trial 0")
    other.look()
    clock.now += SECONDS
    third.fence.renew()
    look_at = other._trials()
    one.fence.renew()  # after the other has read its entry, and before it ends that
    other._trials = lambda: look_at
    other.look()
    del other._trials
    one.fence.check()  # it still writes
    assert not other.take("trial 0") and not third.take("trial 0")
    clock.now += SECONDS
    with pytest.raises(LeaseLost):
        one.fence.check()
    assert other.take("trial 0") and not third.take("trial 0")
    assert [holder.about["pid"] for holder in third.holders()] == ["2"]


def test_a_fence_reads_the_storage_only_when_its_renewal_grows_old(join, clock):
    one = join()
    one.fence.check()
    entry = one._storage.get_trial(one.entry.trial_id)
    before = entry.user_attrs[RENEWED]
    clock.now += SECONDS / 2
    one.fence.check()
    assert one._storage.get_trial(one.entry.trial_id).user_attrs[RENEWED] == before
    clock.now += SECONDS / 4
    one.fence.check()
    assert one._storage.get_trial(one.entry.trial_id).user_attrs[RENEWED] > before


def test_a_process_that_slept_with_its_machine_and_was_not_missed_goes_on(join):
    one, other = join(own_clock=(own := Clock())), join("2")
    assert one.take("trial 0")
    own.now += 1000 * SECONDS
    one.fence.check()
    other.look()
    assert not other.take("trial 0")


@pytest.mark.parametrize("answers", [True, False])
def test_a_storage_that_was_away_for_all_costs_nobody_its_lease(join, clock, answers):
    one, other = join(), join("2")
    assert one.take("trial 0")
    other.look()
    renew, turns = other.fence.renew, iter([False, False, True])

    def late():
        clock.now += 2 * SECONDS
        other.fence.renew = renew
        if not answers:
            raise ConnectionError
        renew()

    other.fence.renew = late
    other._renew(SimpleNamespace(wait=lambda _: next(turns)))
    one.fence.check()
    assert not other.take("trial 0")
    other.look()
    clock.now += SECONDS
    other.look()
    assert other.take("trial 0")


def test_a_ticket_whose_answer_was_lost_is_found_again(join):
    one, other = join(), join("2")
    created = one._created

    def lose(attrs):
        created(attrs)
        raise ConnectionError

    one._created = lose
    with pytest.raises(ConnectionError):
        one.take("trial 0")
    one._created = created
    assert not other.take("trial 0")
    assert one.take("trial 0")
    one.give_back("trial 0")
    assert other.take("trial 0")


def test_two_tickets_at_the_same_moment_are_one_lease(join):
    one, other = join(), join("2")
    first = other._first
    # Both look, nobody has it; one takes it, and the other has its own ticket made.
    looks = []

    def look(what, trials):
        looks.append(what)
        if len(looks) == 1:
            assert first(what, trials) is None and one.take(what)
            return None
        return first(what, trials)

    other._first = look
    assert not other.take("trial 0")
    assert len(looks) == 2
    tickets = [trial for trial in other._trials() if "what" in trial.user_attrs]
    assert [ticket.state for ticket in tickets] == [TrialState.RUNNING, TrialState.COMPLETE]


def test_who_holds_what_since_when(join):
    one, other = join(), join("2")
    assert one.take("trial 0") and other.take("trial 1") and one.take("parent")
    holders = other.holders()
    assert [(holder.what, holder.about["pid"]) for holder in holders] == [
        ("trial 0", "1"), ("trial 1", "2"), ("parent", "1"),
    ]  # fmt: skip
    assert all(abs(holder.since - holder.renewed) < 60 for holder in holders)


def _take_all(journal, num, pipe):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=JournalStorage(Journal(journal)), study_name="study", load_if_exists=True)
    leases = Leases(study, 60, {"pid": str(multiprocessing.current_process().pid)})
    pipe.send([number for number in range(num) if leases.take(f"trial {number}")])
    pipe.recv()  # it holds them until all have asked


@pytest.mark.slow
def test_processes_that_ask_for_the_same_at_once_share_it_out(tmp_path):
    journal, num, context = tmp_path / "journal", 40, multiprocessing.get_context("fork")
    journal.touch()
    pipes, processes = [], []
    for _ in range(4):
        here, there = context.Pipe()
        process = context.Process(target=_take_all, args=(journal, num, there))
        process.start()
        pipes.append(here)
        processes.append(process)
    taken = [number for pipe in pipes for number in pipe.recv()]
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send("leave")
        process.join()
    assert sorted(taken) == list(range(num))
