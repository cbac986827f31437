"""One trial, in whatever process runs it: attaches to the study, trains, reports each epoch."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage

from imgcls.config.keys import Experiment
from imgcls.errors import TrainingError
from imgcls.metrics import ACCURACY, metric_named
from imgcls.record import UNKNOWN, Artifact, Tag
from imgcls.reporting.run_scores import best_interval
from imgcls.runs.prepare import prepare
from imgcls.runs.record_writer import Finished
from imgcls.runs.train import train_run
from imgcls.search.journal import Journal
from imgcls.search.optuna_internals import attach
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EPOCH_METRICS, EpochResult


@dataclass(frozen=True)
class StudyPlace:
    """Where the study of a sweep is, and what all of its trials share.

    Attributes:
        root: the project's root.
        name: of the study.
        sweep_run_id: of the parent run.
        pruner_warmup: epochs before which no trial is judged.
    """

    root: Path
    name: str
    sweep_run_id: str
    pruner_warmup: int

    def open(self, experiment: Experiment) -> optuna.Study:
        """Creates the study's journal below `mlruns/`, or opens it.

        MLflow is the record; the journal only coordinates.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = self.root / "mlruns" / ".studies" / f"{self.name}.journal"  # no experiment's name begins with a dot
        path.parent.mkdir(parents=True, exist_ok=True)
        return optuna.create_study(
            storage=JournalStorage(Journal(path)),
            study_name=self.name,
            direction=direction(experiment),
            sampler=RandomSampler(seed=0),  # it has nothing to draw: a trial's values are enqueued
            pruner=make_pruner(experiment, self.pruner_warmup),
            load_if_exists=True,
        )


@dataclass(frozen=True)
class TrialJob:
    """One trial to run.

    Attributes:
        study: that it belongs to.
        experiment: with the trial's values set.
        number: of the trial in its study.
    """

    study: StudyPlace
    experiment: Experiment
    number: int

    @property
    def tags(self) -> dict[str, str]:
        """By which the record names the trial."""
        return {Tag.STUDY: self.study.name, Tag.TRIAL: str(self.number)}


def direction(experiment: Experiment) -> Literal["minimize", "maximize"]:
    """Optuna's word for which way the metric gets better."""
    return "maximize" if metric_named(experiment.search.metric).higher_is_better else "minimize"


def make_pruner(experiment: Experiment, warmup: int) -> BasePruner:
    """The experiment's pruner, which judges nothing before `warmup` completed epochs."""
    if experiment.search.pruner == "none" or warmup >= experiment.train.epochs:
        return NopPruner()
    if experiment.search.pruner == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
    return HyperbandPruner(min_resource=max(1, warmup), max_resource=experiment.train.epochs, reduction_factor=3)


def run_trial(job: TrialJob) -> Finished:
    """Trains one trial under its sweep's run.

    Raises:
        Interrupted: a stop was requested.
        ImgclsError: what the trial failed of.
    """
    tracker = _tracker(job.study.root)
    finished = _recorded(job, tracker) or _train(job, tracker)
    if finished.outcome == "pruned" and not job.experiment.search.keep_pruned:
        _remove_checkpoints(finished.run_id, tracker)
    return finished


def _train(job: TrialJob, tracker: Tracker) -> Finished:
    trial = attach(job.study.open(job.experiment), job.number)
    values = ", ".join(f"{key} = {value}" for key, value in trial.params.items())

    def prune(result: EpochResult) -> bool:
        trial.report(result.value(job.experiment.search.metric), step=result.epoch)
        return trial.should_prune()

    return train_run(
        prepare(job.experiment, tracker.project),
        tracker,
        kind="trial",
        name=f"trial {job.number}",
        tags={**job.tags, Tag.PARENT: job.study.sweep_run_id, Tag.VALUES: values},
        prune=prune,
    )


def _remove_checkpoints(run_id: str, tracker: Tracker) -> None:
    """Only once the run has ended: until then it would be taken up from them. A store elsewhere keeps them."""
    folder = tracker.get(run_id).folder
    if folder is not None:
        for path in (folder / Artifact.BEST).parent.glob("*"):
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
    epoch, metric = record.best_epoch, job.experiment.search.metric
    histories = {name: dict(tracker.history(record.run_id, name)) for name in EPOCH_METRICS if name in record.metrics}
    at_best = {name: points[epoch] for name, points in histories.items() if epoch in points}
    intervals = {name: best_interval(record, name) for name in (ACCURACY.on_val, metric)}
    return Finished(
        record.run_id, record.outcome, EpochResult.recorded(epoch, at_best), max(histories[metric]),
        {name: interval for name, interval in intervals.items() if interval is not None},
    )  # fmt: skip


@lru_cache(maxsize=1)
def _tracker(root: Path) -> Tracker:
    """A worker opens the store once, not once a trial."""
    return Tracker(root)
