"""The health of a record: what `imgcls doctor` finds in it and mends."""

from dataclasses import dataclass

from imgcls.run_record import RunRecord
from imgcls.text import counted
from imgcls.tracking.find_run import described
from imgcls.tracking.store import Tracker


@dataclass(frozen=True)
class Health:
    """The health of a record, as `imgcls doctor` found it.

    Attributes:
        num_runs: of the store.
        num_experiments: of the store that have runs.
        closed: runs that said RUNNING although their process was gone, and were ended.
        sending: what was sent to a tracking server, and what is left, a line each.
        is_all_sent: whether nothing waits to be sent.
        num_unreachable: experiments whose artifacts are not where the store says.
    """

    num_runs: int
    num_experiments: int
    closed: tuple[RunRecord, ...]
    sending: tuple[str, ...]
    is_all_sent: bool
    num_unreachable: int

    @property
    def is_well(self) -> bool:
        """Whether nothing is left to be mended."""
        return self.is_all_sent and not self.num_unreachable

    def flat(self) -> dict[str, object]:
        """For programs."""
        return {
            "is_well": self.is_well,
            "num_runs": self.num_runs,
            "num_experiments": self.num_experiments,
            "num_closed": len(self.closed),
            "closed_run_ids": ",".join(record.run_id for record in self.closed),
            "is_all_sent": self.is_all_sent,
            "num_unreachable_experiments": self.num_unreachable,
        }

    def as_text(self) -> str:
        """For people: a line for each thing that was found, and at the end whether all is well."""
        lines = [*self.sending, *(f"closed because its process is gone: {described(record)}" for record in self.closed)]
        if self.num_unreachable:
            lines.append(
                f"{counted(self.num_unreachable, 'experiment')} with artifacts that are not where the store says; "
                "after moving the project: imgcls doctor --relocate"
            )
        size = f"{counted(self.num_runs, 'run')} in {counted(self.num_experiments, 'experiment')}"
        if self.is_well:
            lines.append(
                f"all is well: {size}; each run that says RUNNING has its process, the artifacts are where the store "
                "says, and nothing waits to be sent"
            )
        else:
            lines.append(f"not all is well, see above: {size}")
        return "\n".join(lines)


def examine(tracker: Tracker) -> Health:
    """Examines the health of a record: sends what waits, closes runs whose process is gone, looks for artifacts."""
    sending = tracker.send_unsent()
    closed = tracker.close_orphans()
    records = tracker.find({})
    return Health(
        num_runs=len(records),
        num_experiments=len({record.experiment for record in records}),
        closed=tuple(closed),
        sending=tuple(sending),
        is_all_sent=tracker.is_all_sent(),
        num_unreachable=tracker.unreachable_artifacts(),
    )
