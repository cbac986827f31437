"""A run trained again from its record alone, and compared with what it left the first time."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from imgcls.metrics import ACCURACY, BY_NAME, LOSS
from imgcls.record import UNKNOWN, Artifact, MetricName, Tag, best_name
from imgcls.reporting.cautions import cautions, flat_cautions
from imgcls.reporting.run_scores import val_score
from imgcls.reporting.tables import markdown_table
from imgcls.run_record import RunRecord
from imgcls.runs.announce import announce
from imgcls.runs.earlier_versions import is_kept_larger, other_loss
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import other_versions, rebuild, same_place
from imgcls.runs.train import train_run
from imgcls.statistics.intervals import accuracy_interval
from imgcls.tracking.find_run import trained_record
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

COMPARED = (MetricName.TRAIN_LOSS, LOSS.on_val, ACCURACY.on_val, MetricName.TRAIN_LR)
"""Metrics of an epoch that a repeat owes; its timings are its own."""

COMPARED_WHERE_RECORDED = (*(name for name in BY_NAME if name not in COMPARED), MetricName.BEST_TEMPERATURE)
"""Further ones, which earlier versions lack; the temperature is a metric of the last epoch."""

History = Mapping[str, Mapping[int, float]]
"""Metric -> epoch -> value."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a rerun: how the repeat of a run compares with the original.

    Attributes:
        then: the original.
        now: the repeat.
        first_difference: in words, such as `epoch 3, val/loss: 0.41 -> 0.42`; "" where every bit is the same.
        owes_bits: the processor, threads and versions are the original's, so the bits should be too.
        other_loss: how the loss that is optimised differs now, in words; "" where it does not.
    """

    then: RunRecord
    now: RunRecord
    first_difference: str
    owes_bits: bool
    other_loss: str

    @property
    def is_bitwise(self) -> bool:
        """Whether every metric of every epoch has the same bits."""
        return not self.first_difference

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the best val accuracies differ by less than the half-width of the original's 95% Wilson interval."""
        then, now = self.val_accuracy
        return abs(now - then) < accuracy_interval(then, self.then.num_val).half_width

    @property
    def is_verified(self) -> bool:
        """Bitwise where the bits are owed, else within the tolerance; never where another loss was optimised."""
        return self.is_bitwise or (self.is_within_tolerance and not self.owes_bits and not self.other_loss)

    @property
    def word(self) -> str:
        """As the tag `imgcls.verified` has it."""
        if self.is_bitwise:
            return "bitwise"
        return "within tolerance" if self.is_verified else "no"

    @property
    def val_accuracy(self) -> tuple[float, float]:
        """Of the original and of the repeat."""
        return self.then.best(ACCURACY.on_val), self.now.best(ACCURACY.on_val)

    @property
    def causes(self) -> list[str]:
        """What differs between the two: loss, code, versions, hardware; in words."""
        before, after = self.then.device, self.now.device
        return [
            *([f"loss: {self.other_loss}"] if self.other_loss else []),
            *_other_code(self.then, self.now),
            *(f"version: {change}" for change in other_versions(self.then)),
            *([f"hardware: {before} -> {after}"] if before != after else []),
        ]

    def flat(self) -> dict[str, object]:
        """How the rerun compares with its original, under the record's names, for programs."""
        return {
            "run_id": self.now.run_id,
            "repeated_run_id": self.then.run_id,
            Tag.VERIFIED: self.word,
            best_name(ACCURACY.on_val): self.val_accuracy[1],
            f"repeated/{best_name(ACCURACY.on_val)}": self.val_accuracy[0],
            "first_difference": self.first_difference,
            "causes": self.causes,
            Tag.SQUARES: self.now.squares,
            Tag.LOSS: self.now.loss,
            f"repeated/{Tag.LOSS}": self.then.loss,
            **flat_cautions(self.now.tags),
        }

    def markdown(self) -> str:
        """Report of a rerun as Markdown."""
        rows = [
            ("verified", self.word),
            *(
                (f"{best_name(ACCURACY.on_val)}, {when}", val_score(record, ACCURACY.on_val))
                for when, record in (("then", self.then), ("now", self.now))
            ),
            ("first difference", self.first_difference or "none"),
            *(("differs", cause) for cause in self.causes),
            *(("caution", said) for said in cautions(self.now.tags)),
        ]
        return f"# Run `{self.then.run_id}` repeated as `{self.now.run_id}`\n\n{markdown_table(('', ''), rows)}\n"


def rerun(run_id: str, tracker: Tracker) -> Verdict:
    """Reruns a run: trains it again as a run of kind `rerun`, and compares every epoch's metrics, timings aside.

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
    done = train_run(
        prepared,
        tracker,
        kind="rerun",
        name=f"rerun of {record.name}",
        tags={Tag.PARENT: record.run_id, Tag.REPEATED_RUN_ID: record.run_id},
    )
    verdict = Verdict(
        then=record,
        now=tracker.get(done.run_id),
        first_difference=first_difference(_history(tracker, record.run_id), _history(tracker, done.run_id)),
        owes_bits=same_place(record, prepared),
        other_loss=other_loss(record, prepared.experiment),
    )
    repeat = tracker.amend(done.run_id)
    repeat.set_tags({Tag.VERIFIED: verdict.word})
    repeat.log_text(Artifact.REPORT, verdict.markdown())
    return verdict


def _say_what_is_other(record: RunRecord, prepared: Prepared) -> None:
    if prepared.dataset.squares < 2 and is_kept_larger(prepared.dataset):
        log.info(
            "run %s was recorded with %s = %d; it is repeated with the val images that it had, and a new run of its "
            "config would have others", record.run_id, Tag.SQUARES, prepared.dataset.squares,
        )  # fmt: skip
    if difference := other_loss(record, prepared.experiment):
        log.warning("run %s cannot be repeated as it was: %s", record.run_id, difference)


def _history(tracker: Tracker, run_id: str) -> dict[str, dict[int, float]]:
    return {name: dict(tracker.history(run_id, name)) for name in (*COMPARED, *COMPARED_WHERE_RECORDED)}


def first_difference(original: History, repeat: History) -> str:
    """A rerun's first difference: the earliest epoch, and metric in it, where its history has other bits; else ""."""
    epochs = sorted({epoch for history in (original, repeat) for points in history.values() for epoch in points})
    for epoch in epochs:
        for name in original:
            if name in COMPARED_WHERE_RECORDED and epoch not in original[name]:
                continue
            before, after = original[name].get(epoch, math.nan), repeat[name].get(epoch, math.nan)
            if before != after:
                return f"epoch {epoch}, {name}: {before!r} -> {after!r}"
    return ""


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
