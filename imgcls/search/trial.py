"""One trial, in whatever process runs it: attaches to the study, trains, reports each epoch."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from optuna import Study

from imgcls.config.keys import Experiment
from imgcls.errors import TrainingError
from imgcls.project import Project
from imgcls.record import UNKNOWN, Artifact, Tag
from imgcls.reporting.run_progress import Outlook
from imgcls.runs.limits import Limits
from imgcls.runs.prepare import Prepared, prepare
from imgcls.runs.rebuild import recorded_epochs
from imgcls.runs.record_writer import Finished
from imgcls.runs.train import train_run
from imgcls.search.leases import Entry, Fence
from imgcls.search.optuna_internals import attach
from imgcls.search.promotion import HOPELESS, reported_steps
from imgcls.search.recorded_trials import recorded_end, values_in_words
from imgcls.search.study_place import StudyPlace
from imgcls.text import PARTS, short
from imgcls.tracking.guard import Guard
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EpochResult


@dataclass(frozen=True, eq=False)
class Job:
    """A run that an engine trains, in whatever process.

    Attributes:
        experiment: with the run's own values set.
    """

    experiment: Experiment

    @property
    def name(self) -> str:
        """Of the run, such as `trial 3`."""
        raise NotImplementedError

    def prepare(self) -> Prepared:
        """Prepares it as each process does that trains it; see `imgcls.runs.prepare.prepare`."""
        raise NotImplementedError

    def run(self) -> Finished:
        """Trains it.

        Raises:
            Interrupted: a stop was requested.
            ImgclsError: what the run failed of.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TrialJob(Job):
    """One trial of a sweep, to be run.

    Attributes:
        study: that it belongs to.
        number: of the trial in its study.
        pause_at: the epoch after which it pauses, with folds the fold; 0: it is trained to its end.
        ends: why it ends as pruned, a paused trial that goes on no more; "" for any other.
        ends_early: whether it is completed with the epochs that it has.
        until: seconds since 1970 at which it stops after a step, and is paused.
        least_epochs: that it completes before that, however late it is.
        outlook: of the sweep when the trial was given out, for its progress.
        entry: of the process that gave it out, in the leases of its study; None where that process is alone.
    """

    study: StudyPlace
    number: int
    pause_at: int = 0
    ends: str = ""
    ends_early: bool = False
    until: float = math.inf
    least_epochs: int = 0
    outlook: Outlook | None = None
    entry: Entry | None = None

    @property
    def name(self) -> str:
        """Such as `trial 3`."""
        return f"trial {self.number}"

    @property
    def tags(self) -> dict[str, str]:
        """By which the record names the trial."""
        return {Tag.STUDY: self.study.name, Tag.TRIAL: str(self.number)}

    def prepare(self) -> Prepared:
        """With the squares of its study."""
        return prepare(self.experiment, Project(self.study.root), self.study.squares)

    def run(self) -> Finished:
        """Trains the trial under its sweep's run."""
        return run_trial(self)


def run_trial(job: TrialJob) -> Finished:
    """Runs one trial: trains it under its sweep's run.

    Raises:
        Interrupted: a stop was requested, or others have taken the trial over (`LeaseLost`).
        ImgclsError: what the trial failed of.
    """
    tracker = cached_tracker(job.study.root)
    study = job.study.open(job.experiment)
    guard = Guard() if job.entry is None else job.study.guard(cached_fence(job, study), job.experiment)
    with tracker.guarded(guard):
        return _run(job, study, tracker, guard)


def _run(job: TrialJob, study: Study, tracker: Tracker, guard: Guard) -> Finished:
    finished = _recorded(job, tracker) or _train(job, study, tracker, guard)
    if finished.outcome == "pruned" and (job.ends or job.pause_at):
        tracker.amend(finished.run_id).set_tags({Tag.REASON: job.ends or HOPELESS})
    if finished.outcome == "completed" and (how_far := _how_far(finished, job, tracker)):
        tracker.amend(finished.run_id).set_tags({Tag.ENDED_EARLY: how_far})
    if finished.outcome == "pruned" and not job.experiment.search.keep_pruned:
        guard.check()
        _remove_checkpoints(finished.run_id, tracker)
    return finished


def _how_far(finished: Finished, job: TrialJob, tracker: Tracker) -> str:
    """How far a completed trial came that ended early, such as `3 of 30 epochs` or `2 of 5 folds`; "" of any other.

    A sitting that was killed before it could say so leaves it to the next one, which was not asked to end it early.
    """
    data, train = job.experiment.data, job.experiment.train
    if data.num_models > 1:
        done, whole, steps = tracker.get(finished.run_id).num_folds, data.folds, "folds"
    else:
        done, whole, steps = finished.num_epochs, train.last_epoch, "epochs"
    is_early = done < whole and (job.ends_early or not train.patience)
    return f"{done} of {whole} {steps}" if is_early else ""


def _train(job: TrialJob, study: Study, tracker: Tracker, guard: Guard) -> Finished:
    trial, promotion = attach(study, job.number), job.study.promotion(study, job.experiment)
    reported, search = reported_steps(study, job.number), job.experiment.search
    values = {key: trial.params[key] for key in search.space}  # a database gives them in any order

    def ends(step: int, value: float) -> bool:
        guard.check()
        if step not in reported:
            trial.report(value, step=step)
        if job.ends_early:
            return False
        if step == job.pause_at and promotion is not None:
            return bool(job.ends) or promotion.is_hopeless(job.number, search.trials)
        return bool(job.ends) or trial.should_prune()

    def prune(result: EpochResult) -> bool:
        return ends(result.epoch, result.value(search.metric))

    def prune_folds(folds: Sequence[EpochResult]) -> bool:
        scores = [fold.value(search.metric) for fold in folds]
        # Wilcoxon's test pairs the folds of two trials; the others compare what trials have reached.
        return ends(len(scores), scores[-1] if search.pruner == "wilcoxon" else fmean(scores))

    return train_run(
        job.prepare(),
        tracker,
        kind="trial",
        name=trial_name(job.number, values),
        tags={**job.tags, Tag.PARENT: job.study.sweep_run_id, Tag.VALUES: values_in_words(values)},
        prune=prune,
        pause_at=0 if job.ends_early else job.pause_at,
        prune_folds=prune_folds,
        limits=Limits(job.until, job.least_epochs, job.ends_early),
        outlook=job.outlook,
    )


def trial_name(number: int, values: Mapping[str, object]) -> str:
    """The name of a trial's run, which says what the trial was: `trial 1 · lr 1.6e-3 · depth 18`.

    Args:
        number: of the trial in its study.
        values: dotted key -> what was drawn; a key is shortened to its last part if that is unique.
    """
    ends = Counter(key.rpartition(".")[2] for key in values)
    told = {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in values}
    return PARTS.join([f"trial {number}", *(f"{told[key]} {short(value)}" for key, value in values.items())])


def _remove_checkpoints(run_id: str, tracker: Tracker) -> None:
    """Only once the run has ended: until then it would be taken up from them. A store elsewhere keeps them."""
    for record in (tracker.get(run_id), *tracker.children(run_id, "fold")):
        if record.folder is not None:
            for path in (record.folder / Artifact.BEST).parent.glob("*"):
                path.unlink(missing_ok=True)


def _recorded(job: TrialJob, tracker: Tracker) -> Finished | None:
    """What the record holds of a trial that ended, where the sweep was killed before it was told.

    Raises:
        TrainingError: the trial failed.
    """
    found = tracker.find({Tag.KIND: "trial", **job.tags}, experiment=job.experiment.name, newest=1)
    if not found or found[-1].outcome not in ("completed", "pruned", "failed"):
        return None
    record = found[-1]
    if record.outcome == "failed":
        raise TrainingError(record.reason or UNKNOWN)
    return recorded_end(record, recorded_epochs(record, tracker), job.experiment.search.metric)


@lru_cache(maxsize=1)
def cached_tracker(root: Path) -> Tracker:
    """A worker opens the store once, not once a trial."""
    return Tracker(root)


def cached_fence(job: TrialJob, study: Study) -> Fence:
    """A worker renews the entry of its sweep's process once in a while, not once a trial."""
    assert job.entry is not None  # of a driver that shares its trials
    key = job.study, job.entry
    if key not in _FENCES:
        _FENCES[key] = Fence(study, job.entry)
    return _FENCES[key]


_FENCES: dict[tuple[StudyPlace, Entry], Fence] = {}
"""Of each sweep that this process has worked on."""
