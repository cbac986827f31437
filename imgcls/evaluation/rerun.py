"""A run trained again from its record alone, and compared with what it left the first time."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from imgcls.data.splits import SQUARES_FORMAT
from imgcls.record import UNKNOWN, Artifact, RunRecord, Tag, best_name
from imgcls.reporting.cautions import caution_tags, cautions
from imgcls.reporting.cautions import flat as flat_cautions
from imgcls.reporting.rounding import accuracy_interval, with_interval
from imgcls.reporting.run_scores import best_accuracy_interval
from imgcls.reporting.tables import markdown_table
from imgcls.runs.announce import announce
from imgcls.runs.earlier_versions import is_kept_larger, other_loss
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import other_versions, rebuild, same_place, trained_record
from imgcls.runs.train import train_run
from imgcls.statistics.intervals import Interval
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

COMPARED = ("train/loss", "val/loss", "val/accuracy", "train/lr")
"""Metrics of an epoch that a repeat owes; its timings are its own."""

History = Mapping[str, Mapping[int, float]]
"""Metric -> epoch -> value."""


@dataclass(frozen=True)
class Verdict:
    """How a repeat compares with the original.

    Attributes:
        run_id: of the repeat.
        repeated_run_id: of the original.
        is_bitwise: every metric of every epoch has the same bits.
        is_within_tolerance: the best val accuracies differ by less than the half-width of the original's 95% Wilson
            interval; on another machine, that is all that can be asked.
        intervals: of the two accuracies, as they are shown.
        owes_bits: the processor, threads and versions are the original's, so the bits should be too.
        first_difference: in words, such as `epoch 3, val/loss: 0.41 -> 0.42`; "" where there is none.
        val_accuracy: of the original and of the repeat.
        num_val: images behind them.
        causes: what differs between the two: loss, code, versions, hardware; in words.
        caution_tags: tags of the repeat from which `cautions.cautions` makes its sentences.
        losses: `imgcls.loss` of the original and of the repeat.
        squares: `imgcls.squares` of both.
        has_other_loss: whether these losses differ for these settings.
    """

    run_id: str
    repeated_run_id: str
    is_bitwise: bool
    is_within_tolerance: bool
    owes_bits: bool
    first_difference: str
    val_accuracy: tuple[float, float]
    num_val: int
    intervals: tuple[Interval, Interval]
    causes: tuple[str, ...]
    caution_tags: Mapping[str, str]
    losses: tuple[int, int]
    squares: int
    has_other_loss: bool

    @property
    def is_verified(self) -> bool:
        """Bitwise where the bits are owed, else within the tolerance; never where another loss was optimised."""
        return self.is_bitwise or (self.is_within_tolerance and not self.owes_bits and not self.has_other_loss)

    @property
    def word(self) -> str:
        """As the tag `imgcls.verified` has it."""
        if self.is_bitwise:
            return "bitwise"
        return "within tolerance" if self.is_verified else "no"

    def flat(self) -> dict[str, object]:
        """Under the record's names, for programs."""
        return {
            "run_id": self.run_id,
            "repeated_run_id": self.repeated_run_id,
            Tag.VERIFIED: self.word,
            best_name("val/accuracy"): self.val_accuracy[1],
            f"repeated/{best_name('val/accuracy')}": self.val_accuracy[0],
            "first_difference": self.first_difference,
            "causes": list(self.causes),
            Tag.SQUARES: self.squares,
            Tag.LOSS: self.losses[1],
            f"repeated/{Tag.LOSS}": self.losses[0],
            **flat_cautions(self.caution_tags),
        }

    def markdown(self) -> str:
        """For people."""
        rows = [
            ("verified", self.word),
            *((f"{best_name('val/accuracy')}, {when}", self._shown(i)) for i, when in enumerate(("then", "now"))),
            ("first difference", self.first_difference or "none"),
            *(("differs", cause) for cause in self.causes),
            *(("caution", said) for said in cautions(self.caution_tags)),
        ]
        return f"# Run `{self.repeated_run_id}` repeated as `{self.run_id}`\n\n{markdown_table(('', ''), rows)}\n"

    def _shown(self, which: int) -> str:
        accuracy = self.val_accuracy[which]
        return with_interval(accuracy, self.intervals[which])


def rerun(run_id: str, tracker: Tracker) -> Verdict:
    """Trains a run again as a run of kind `rerun`, and compares every epoch's metrics, timings aside.

    Args:
        run_id: of a run that trained to its end; a sweep stands for its winner.
        tracker: where the run is and its repeat goes.

    Raises:
        InputError: what cannot be repeated, changed images among it; nothing is logged then.
        Interrupted: a stop was requested.
    """
    record = trained_record(run_id, tracker)
    prepared = rebuild(record, tracker)
    announce(prepared, tracker, runs="1 run")
    _say_what_is_other(record, prepared)
    original = _history(tracker, record.run_id)
    done = train_run(
        prepared,
        tracker,
        kind="rerun",
        name=f"rerun of {record.name}",
        parent=record.run_id,
        tags={Tag.REPEATED_RUN_ID: record.run_id},
    )
    verdict = _compare(record, tracker.get(done.run_id), original, _history(tracker, done.run_id), prepared)
    repeat = tracker.amend(done.run_id)
    repeat.set_tags({Tag.VERIFIED: verdict.word})
    repeat.log_text(Artifact.REPORT, verdict.markdown())
    return verdict


def _say_what_is_other(record: RunRecord, prepared: Prepared) -> None:
    if prepared.dataset.squares != SQUARES_FORMAT and is_kept_larger(prepared.dataset):
        log.info(
            "run %s was recorded with %s = %d; it is repeated with the val images that it had, and a new run of its "
            "config would have others", record.run_id, Tag.SQUARES, prepared.dataset.squares,
        )  # fmt: skip
    if difference := other_loss(record, prepared.experiment):
        log.warning("run %s cannot be repeated as it was: %s", record.run_id, difference)


def _history(tracker: Tracker, run_id: str) -> dict[str, dict[int, float]]:
    return {name: dict(tracker.history(run_id, name)) for name in COMPARED}


def _compare(then: RunRecord, now: RunRecord, original: History, repeat: History, prepared: Prepared) -> Verdict:
    accuracies = then.best("val/accuracy"), now.best("val/accuracy")
    num_val = len(prepared.dataset.val)
    tolerance = accuracy_interval(accuracies[0], num_val).half_width
    difference = first_difference(original, repeat)
    loss = other_loss(then, prepared.experiment)
    return Verdict(
        run_id=now.run_id,
        repeated_run_id=then.run_id,
        is_bitwise=not difference,
        is_within_tolerance=abs(accuracies[1] - accuracies[0]) < tolerance,
        owes_bits=same_place(then, prepared),
        first_difference=difference,
        val_accuracy=accuracies,
        num_val=num_val,
        intervals=(best_accuracy_interval(then), best_accuracy_interval(now)),
        causes=(*((f"loss: {loss}",) if loss else ()), *_causes(then, now)),
        caution_tags=caution_tags(now.tags),
        losses=(then.loss, now.loss),
        squares=now.squares,
        has_other_loss=bool(loss),
    )


def first_difference(original: History, repeat: History) -> str:
    """The earliest epoch, and the metric in it, where two histories differ in any bit; "" where they do not."""
    epochs = sorted({epoch for history in (original, repeat) for points in history.values() for epoch in points})
    for epoch in epochs:
        for name in original:
            before, after = original[name].get(epoch, math.nan), repeat[name].get(epoch, math.nan)
            if before != after:
                return f"epoch {epoch}, {name}: {before!r} -> {after!r}"
    return ""


def _causes(then: RunRecord, now: RunRecord) -> list[str]:
    causes = _other_code(then, now)
    causes += [f"version: {change}" for change in other_versions(then)]
    devices = then.device, now.device
    if devices[0] != devices[1]:
        causes.append(f"hardware: {devices[0]} -> {devices[1]}")
    return causes


def _other_code(then: RunRecord, now: RunRecord) -> list[str]:
    commits = [record.tags.get(Tag.GIT_COMMIT, "no commit") for record in (then, now)]
    causes = [f"code: commit {commits[0][:10]} -> {commits[1][:10]}"] if commits[0] != commits[1] else []
    for record, when in ((then, "then"), (now, "now")):
        dirty, why = record.tags.get(Tag.GIT_DIRTY), record.tags.get(Tag.GIT_UNKNOWN, "git did not tell")
        if dirty == "true":
            changed = record.tags.get(Tag.GIT_CHANGED, "")
            causes.append(f"code: files changed since the commit ({when}{changed and f': {changed}'})")
        elif dirty == UNKNOWN:
            causes.append(f"code: whether files changed since the commit is unknown ({when}: {why})")
    return causes
