"""Finds files that nobody needs any more: states of completed runs, weights that were not chosen, leftovers of kills.

No run, metric or tag is changed, and the predictions, reports and config of every run stay. Winners, confirmed and
evaluated runs keep all of their files, and so does every run that may go on. A paused trial may go on unless its sweep
was abandoned: deleted, or followed by another sweep of the same experiment.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imgcls.data.cache_folder import abandoned, size_in_words
from imgcls.files import WRITTEN_ASIDE
from imgcls.record import STATUS, Artifact, Tag
from imgcls.run_record import RunRecord
from imgcls.tracking.mlflow_internals import HALF_MADE
from imgcls.tracking.store import Tracker

ABANDONED_AFTER = 600.0
"""Seconds without a write after which nobody is making a store any more."""

RESUMED = "what completed runs would be resumed from"
EPOCHS = "checkpoints of single epochs of completed runs"
NOT_CHOSEN = "best checkpoints of trials that were not chosen"
FOLDS = "checkpoints of folds whose run holds their weights"
ENDED_EARLY = "checkpoints of pruned and failed trials"
ABANDONED = "checkpoints of paused trials of abandoned sweeps"
LEFTOVERS = "leftovers of killed processes"
DELETED = "artifacts of deleted runs"


@dataclass(frozen=True)
class Item:
    """One thing to clean away: a file or folder, why it may go, in words, and how large it is."""

    kind: str
    path: Path
    num_bytes: int

    def flat(self) -> dict[str, object]:
        """For programs."""
        return {"kind": self.kind, "path": str(self.path), "num_bytes": self.num_bytes}


@dataclass(frozen=True)
class Findings:
    """All that there is to clean away.

    Attributes:
        items: in no particular order.
        num_elsewhere: runs whose artifacts are not on this machine, which are left alone.
    """

    items: tuple[Item, ...]
    num_elsewhere: int


def look_through(tracker: Tracker) -> Findings:
    """Finds what there is to clean away, in the record and beside it."""
    records = [record for record in tracker.find({}, with_deleted=True) if record.kind]
    needed, needed_by_active = _needed(records), _needed(record for record in records if not record.is_deleted)
    chosen_from = {r.run_id for r in records if r.best_run_id and r.outcome == "completed" and not r.is_deleted}
    going_on = _sweeps_that_go_on(records)
    by_id = {record.run_id: record for record in records}
    paused = [r for r in records if r.status == STATUS["paused"] and r.kind != "fold"]
    abandoned_trials = {r.run_id for r in paused if r.parent not in going_on}
    found: list[tuple[str, Path]] = []
    for record in records:
        is_abandoned = record.run_id in abandoned_trials or record.parent in abandoned_trials
        if record.folder is None or (_may_go_on(record) and not is_abandoned):
            continue
        if record.is_deleted:
            found += _of_deleted(record) if record.run_id not in needed_by_active else []
            continue
        found += _leftovers(record.folder)
        if record.run_id not in needed:
            if is_abandoned:
                found += [(ABANDONED, path) for path in _checkpoints(record.folder)]
            elif record.kind == "fold":
                found += _of_fold(record, by_id.get(record.parent))
            else:
                found += _of_ended(record, has_chosen=record.parent in chosen_from)
    found += [(LEFTOVERS, path) for path in (*_unfinished_stores(tracker.root), *abandoned())]
    items = tuple(Item(kind, path, _num_bytes(path)) for kind, path in found)
    return Findings(items, sum(record.folder is None for record in records))


def remove(findings: Findings) -> None:
    """Cleans away the files that were found, which nobody needs any more.

    Raises:
        OSError: what this user may not remove.
    """
    for item in findings.items:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def as_text(findings: Findings) -> str:
    """What there is to clean away, as text: a line for each kind, the largest first."""
    by_kind: dict[str, list[int]] = {}
    for item in findings.items:
        by_kind.setdefault(item.kind, []).append(item.num_bytes)
    rows = sorted(by_kind.items(), key=lambda row: -sum(row[1]))
    lines = [f"{size_in_words(sum(sizes)):>9}  {len(sizes):>5}  {kind}" for kind, sizes in rows]
    total = sum(item.num_bytes for item in findings.items)
    lines.append(
        f"{size_in_words(total):>9}  {len(findings.items):>5}  in all" if rows else "nothing may go: 0B in all"
    )
    if findings.num_elsewhere:
        runs = "1 run keeps its" if findings.num_elsewhere == 1 else f"{findings.num_elsewhere} runs keep their"
        lines.append(f"{runs} artifacts elsewhere; those are left alone")
    return "\n".join(lines)


def _needed(records: Iterable[RunRecord]) -> set[str]:
    """Ids of runs that others refer to: winners, confirmed and evaluated runs, and parents."""
    needed: set[str] = set()
    confirmed: set[tuple[str, str]] = set()
    trials = []
    for record in records:
        needed |= {record.best_run_id, record.evaluated_run_id}
        if record.kind != "fold":  # whether a fold is needed follows from the run above it
            needed.add(record.parent)
        confirmed |= {(record.run_id, str(number)) for number in record.confirmed_trials}
        if record.kind == "confirm":
            needed.add(record.run_id)
            confirmed.add((record.parent, record.tags.get(Tag.TRIAL, "")))
        if record.kind == "trial":
            trials.append(record)
    return needed | {trial.run_id for trial in trials if (trial.parent, trial.tags.get(Tag.TRIAL)) in confirmed}


def _sweeps_that_go_on(records: Iterable[RunRecord]) -> set[str]:
    """Ids of the newest sweep of each experiment: the command of an older one now begins or goes on with another."""
    sweeps = (record for record in records if record.kind == "sweep" and not record.is_deleted)
    newest = {sweep.experiment: sweep.run_id for sweep in sorted(sweeps, key=lambda sweep: sweep.started)}
    return set(newest.values())


def _may_go_on(record: RunRecord) -> bool:
    return record.outcome in ("running", "interrupted") or record.status not in ("FINISHED", "FAILED")


def _of_deleted(record: RunRecord) -> Iterator[tuple[str, Path]]:
    """All files of a run, unless it is an evaluation: its list of test images is needed to count later looks."""
    folder = record.folder
    assert folder is not None
    own = folder.parent if folder.parent.name == record.run_id else folder
    if record.kind != "evaluation" and record.run_id in folder.parts and own.is_dir():
        yield DELETED, own


def _of_ended(record: RunRecord, *, has_chosen: bool) -> Iterator[tuple[str, Path]]:
    assert record.folder is not None
    is_trial, best = record.kind == "trial", record.folder / Artifact.BEST
    for path in _checkpoints(record.folder):
        if is_trial and record.outcome in ("pruned", "failed"):
            yield ENDED_EARLY, path
        elif record.outcome == "completed" and path != best:
            yield EPOCHS if path.name.startswith("epoch_") else RESUMED, path
        elif record.outcome == "completed" and is_trial and has_chosen:
            yield NOT_CHOSEN, path


def _of_fold(fold: RunRecord, run: RunRecord | None) -> Iterator[tuple[str, Path]]:
    """Checkpoints of a fold that may go: a completed run holds their weights, a pruned or failed trial needs none."""
    assert fold.folder is not None
    if run is None or _may_go_on(run):
        return
    for path in _checkpoints(fold.folder):
        if run.outcome == "completed":
            yield FOLDS, path
        elif run.kind == "trial" and run.outcome in ("pruned", "failed"):
            yield ENDED_EARLY, path


def _leftovers(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob(".*")):
        if WRITTEN_ASIDE.fullmatch(path.name) and _is_file(path):
            yield LEFTOVERS, path


def _checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run; no link is followed."""
    checkpoints = (folder / Artifact.BEST).parent
    if checkpoints.is_symlink() or not checkpoints.is_dir():
        return []
    return sorted(path for path in checkpoints.iterdir() if _is_file(path) and not WRITTEN_ASIDE.fullmatch(path.name))


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _unfinished_stores(root: Path) -> Iterator[Path]:
    for aside in root.glob(f"{HALF_MADE}*"):
        last_write = max(path.stat().st_mtime for path in (aside, *aside.iterdir()))
        if time.time() - last_write > ABANDONED_AFTER:
            yield aside


def _num_bytes(path: Path) -> int:
    files = [path] if path.is_file() else filter(_is_file, path.rglob("*"))
    return sum(file.stat().st_size for file in files)
