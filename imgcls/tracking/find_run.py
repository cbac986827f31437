"""Finds the run that a user means: by its id or the beginning of it, as `last` or as `best`."""

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime

from imgcls.errors import InputError
from imgcls.record import Kind, Tag
from imgcls.run_record import RunRecord
from imgcls.text import did_you_mean, listed, nearest
from imgcls.tracking.store import Tracker

PREFIX = re.compile("[0-9a-f]{6,31}")
"""How an id may begin; a whole one has 32 characters."""

TOO_SHORT = re.compile("[0-9a-f]{1,5}")
"""The beginning of an id, too short to name one run."""

NUM_CANDIDATES = 10
"""Most runs that an error names where the ids of several begin so."""

NUM_NEAR = 200
"""Number of the newest runs among which a similar name is looked for."""

NUM_SHORT = 8
"""Characters of an id that stand for it in a command, which names the other runs where a second one begins so."""

MOST_RUNS = 1000
"""Most of the newest runs that the store gives at once."""

ON_THEIR_OWN: tuple[Kind, ...] = ("train", "sweep", "rerun")
"""Kinds of run that a user starts; what lies below a sweep, and a look at the test split, is never `last`."""

log = logging.getLogger(__name__)


def find_run(text: str, tracker: Tracker) -> RunRecord:
    """Finds the run that a user means, by an id, the beginning of one, `last` or `best`.

    Args:
        text: a run's id, the first six characters of it or more, `last` (the run or sweep that finished last) or
            `best` (the winner of the sweep that finished last). What the last two stand for is logged.
        tracker: the record.

    Raises:
        InputError: no such run, naming one of a similar name; or several, naming them.
    """
    if text in _BY_WORD:
        record = _BY_WORD[text](tracker)
        log.info("%s is %s", text, described(record))
        return record
    if PREFIX.fullmatch(text.lower()):
        return _begun_by(text.lower(), tracker)
    if TOO_SHORT.fullmatch(text.lower()):
        raise InputError(f"{text!r} is too short to name a run; give the first six characters of its id; {_SEE_RUNS}")
    try:
        return tracker.get(text)
    except InputError as error:
        near = _near(text, tracker)
        raise InputError(f"no run {text!r}{near} in {tracker.where()}; {_SEE_RUNS}") from error


def trained_record(run_id: str, tracker: Tracker) -> RunRecord:
    """Finds a run that has trained to its end, to be used, judged or repeated; a sweep stands for its winner.

    Raises:
        InputError: an unknown id, an evaluation, a run of somebody else's, an unfinished one.
    """
    record = find_run(run_id, tracker)
    if record.kind == "sweep":
        winner = record.best_run_id
        if not winner:
            raise InputError(f"sweep {record.run_id} has no winner yet ({record.outcome}); let it end first")
        record = tracker.get(winner)
        log.info("the winner of this sweep is %s", described(record))
    if record.kind == "evaluation":
        judged = record.evaluated_run_id
        raise InputError(f"run {record.run_id} is itself an evaluation, of run {judged}; name the run to judge")
    if record.kind == "init":
        raise InputError(
            f"run {record.run_id} looked through a folder and trained nothing; imgcls sweep {record.experiment}"
        )
    if not record.kind:
        raise InputError(f"run {record.run_id} was not written by imgcls")
    if record.outcome != "completed":
        reason = f": {record.reason}" if record.reason else ""
        raise InputError(f"run {record.run_id} is not finished ({record.outcome}{reason}); name a completed run")
    return record


def newest_runs(tracker: Tracker, experiment: str | None, limit: int | None) -> list[RunRecord]:
    """Finds the newest runs of the record, the newest first; folds are left out, since their run stands for them.

    Args:
        tracker: the record.
        experiment: name of the MLflow experiment to which they belong; None for any.
        limit: how many, from 1 to 1000; None for all.

    Raises:
        InputError: another limit, no name, or no run of the experiment; it names one like it, and all that have runs.
    """
    if not isinstance(experiment, str | None):
        raise InputError(f"{experiment!r} names no experiment; give the name of an MLflow experiment, or None for all")
    if limit is not None and not (isinstance(limit, int) and 1 <= limit <= MOST_RUNS):
        raise InputError(f"limit = {limit!r}: give a whole number from 1 to {MOST_RUNS}, or None for all runs")
    records = _newest_but_folds(tracker, experiment, limit)
    if experiment is not None and not records:
        with_runs = sorted({record.experiment for record in tracker.find({})})
        near = did_you_mean(experiment, with_runs)
        there = ", ".join(with_runs) or "none"
        raise InputError(f"no runs of an experiment {experiment!r} in this store{near}; experiments with runs: {there}")
    return records


def _newest_but_folds(tracker: Tracker, experiment: str | None, limit: int | None) -> list[RunRecord]:
    """The newest runs, the newest first; where folds stand among them, more are asked for."""
    asked = limit
    while True:
        found = tracker.find({}, experiment=experiment, newest=asked)[::-1]
        records = [record for record in found if record.kind != "fold"]
        if limit is None or asked is None or len(records) >= limit or len(found) < asked:
            return records[:limit]
        asked = min(2 * asked, MOST_RUNS) if asked < MOST_RUNS else None


def newest_begun(tracker: Tracker) -> RunRecord | None:
    """Finds the run or sweep that a user began last, whether or not it has finished; None where there is none."""
    newest = [record for kind in ON_THEIR_OWN for record in tracker.find({Tag.KIND: kind}, newest=1)]
    return max(newest, key=lambda record: record.started, default=None)


def short_id(record: RunRecord) -> str:
    """What finds a run with little typing, also when others have followed: the first characters of its id."""
    return record.run_id[:NUM_SHORT]


def described(record: RunRecord) -> str:
    """A found run in one line: its id, its kind, its experiment and when it began."""
    began = datetime.fromtimestamp(record.started / 1000, UTC)
    kind = record.kind or "not written by imgcls"
    return f"{record.run_id} ({kind}, {record.experiment}, {record.name}, {began:%Y-%m-%d %H:%M:%S} UTC)"


_SEE_RUNS = "`imgcls runs` lists the runs of this store"


def _begun_by(prefix: str, tracker: Tracker) -> RunRecord:
    found = tracker.find({}, prefix=prefix, newest=NUM_CANDIDATES + 1)
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no run {prefix!r}{_near(prefix, tracker)} in {tracker.where()}; {_SEE_RUNS}")
    number = str(len(found)) if len(found) <= NUM_CANDIDATES else f"more than {NUM_CANDIDATES}"
    lines = listed([described(record) for record in found[-NUM_CANDIDATES:]])
    raise InputError("\n".join([f"{prefix!r} begins the ids of {number} runs; give more characters of one:", *lines]))


def _last(tracker: Tracker) -> RunRecord:
    newest = [record for kind in ON_THEIR_OWN for record in _newest_finished(kind, tracker)]
    if not newest:
        raise InputError("no run has finished in this store, so there is no `last`; imgcls train EXPERIMENT makes one")
    return max(newest, key=lambda record: record.ended or record.started)


def _best(tracker: Tracker) -> RunRecord:
    winners = [record.best_run_id for record in _newest_finished("sweep", tracker) if record.best_run_id]
    if not winners:
        raise InputError(
            "no sweep has finished with a winner in this store, so there is no `best`; imgcls sweep EXPERIMENT makes "
            "one"
        )
    return tracker.get(winners[0])


_BY_WORD: dict[str, Callable[[Tracker], RunRecord]] = {"last": _last, "best": _best}


def _newest_finished(kind: Kind, tracker: Tracker) -> list[RunRecord]:
    """The run of a kind that was completed last; none where there is none."""
    return tracker.find({Tag.KIND: kind, Tag.OUTCOME: "completed"}, newest=1, by="end_time")


def _near(text: str, tracker: Tracker) -> str:
    """` (did you mean X?)` for a word, or for a run with an id, a name or an experiment like it."""
    known: dict[str, str] = {}
    # What a user started comes last, and so before what lies below it, such as a look at its test split.
    for record in sorted(tracker.find({}, newest=NUM_NEAR), key=lambda record: record.kind in ON_THEIR_OWN):
        known |= {word: described(record) for word in (record.experiment, record.name, record.run_id) if word}
    if close := nearest(text, known, cutoff=0.8):
        return f" (did you mean {known[close]}?)"
    word = nearest(text, _BY_WORD, cutoff=0.7)
    return f" (did you mean `{word}`?)" if word else ""
