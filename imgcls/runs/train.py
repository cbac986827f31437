"""One tracked run: taken up or begun, trained, ended."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.config.keys import Experiment
from imgcls.errors import DamagedError, InputError
from imgcls.files import leftovers
from imgcls.machine_failures import explain
from imgcls.models.head import whole_network
from imgcls.project import Project
from imgcls.record import Artifact, Kind, MetricName, Outcome, Tag
from imgcls.reporting.cautions import caution_tags
from imgcls.reporting.drawing import pictures_of
from imgcls.reporting.run_progress import Outlook, RunProgress
from imgcls.run_record import RunRecord
from imgcls.runs.announce import announce
from imgcls.runs.earlier_versions import recorded_squares
from imgcls.runs.experiment_page import write_page
from imgcls.runs.folds import FoldsTraining
from imgcls.runs.image_record import ImageRecord
from imgcls.runs.limits import NO_LIMITS, Limits
from imgcls.runs.prepare import Prepared, check_network, prepare
from imgcls.runs.rebuild import recorded_experiment
from imgcls.runs.record_writer import Finished, RecordWriter, kept_fit
from imgcls.runs.threads import with_threads
from imgcls.runs.together import check_num_processes, follow, lead, num_processes_tag
from imgcls.runs.unfinished import identity_of, unfinished
from imgcls.runs.val_figures import has_figures, write_val_figures
from imgcls.signals import GracefulStop
from imgcls.statistics.intervals import NO_INTERVAL
from imgcls.statistics.score_intervals import hits_interval
from imgcls.statistics.temperature import TemperatureFit
from imgcls.terminal import waiting
from imgcls.text import PARTS
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker
from imgcls.training.checkpoint import load_checkpoint
from imgcls.training.device import Device
from imgcls.training.epoch import EpochResult
from imgcls.training.loop import TrainState, fit, is_over, predict_val
from imgcls.training.parallel import joined

log = logging.getLogger(__name__)


def train(experiment: Experiment, project: Project, *, fresh: bool = False) -> Finished:
    """Trains one run of an experiment, from the announcement to the whole record; Ctrl-C stops it after a step.

    Processes that torchrun started train it together. The first of them records it.

    Args:
        experiment: as in its file, with overrides.
        project: where its paths start, and its record lies.
        fresh: begin a new run even where an earlier one of the same work stopped before its end.

    Raises:
        InputError: whatever makes the experiment impossible here; nothing is recorded then.
        Interrupted: a stop was requested; the same call goes on.
        TrainingError: the run cannot go on.
    """
    check_network(experiment, project)
    with joined() as ranks:
        prepared = ranks.in_turn(lambda: prepare(experiment, project))
        with GracefulStop():
            if ranks.rank:
                return follow(prepared)
            with waiting("opening the record"):
                tracker = Tracker(project.root)
            tracker.close_orphans()
            announce(prepared, tracker, runs="1 run")
            return ranks.from_first(train_run(prepared, tracker, kind="train", name=experiment.name, fresh=fresh))


def train_run(
    prepared: Prepared,
    tracker: Tracker,
    *,
    kind: Kind,
    name: str,
    tags: Mapping[str, str] | None = None,
    prune: Callable[[EpochResult], bool] = lambda _: False,
    pause_at: int = 0,
    prune_folds: Callable[[Sequence[EpochResult]], bool] = lambda _: False,
    limits: Limits = NO_LIMITS,
    fresh: bool = False,
    outlook: Outlook | None = None,
) -> Finished:
    """Trains one run, and leaves its whole record; with folds, a run for each fold below it too.

    Where the newest run of the same work (config, data, tags) stopped before its end, it is taken up after the last
    step that its checkpoint holds, and ends with the same bits as if it had never stopped.

    Args:
        prepared: what to train.
        tracker: where the record goes.
        kind: of the run.
        name: of the run, for people.
        tags: further tags, among them the run under which this one stands.
        prune: asked after each epoch, and about the last one once more when a run is taken up; True ends it as pruned.
        pause_at: the epoch after which it ends as paused, with its last checkpoint and without the rest of its record;
            the same call with a later epoch goes on to the same bits. With folds, it is the fold after which it does.
            0: it is trained to its end.
        prune_folds: with folds, asked in its place after each of them, with the kept epochs of all that have run.
        limits: of this sitting.
        fresh: begin a new run even where there is one to take up.
        outlook: of the sweep of which it is a trial, for its progress.

    Raises:
        Interrupted: a stop was requested, or its time was over (`OutOfTime`); the last checkpoint holds the state.
        TrainingError: the loss is not finite; the run is FAILED, with the reason as a tag.
    """
    tags, identity = dict(tags or {}), identity_of(prepared)
    images = ImageRecord(prepared.dataset, tracker)
    work = _Work(tracker, kind, name, images, prune, pause_at, prune_folds, limits, outlook)
    earlier = None if fresh else unfinished(prepared, tracker, {Tag.KIND: kind, **tags}, identity)
    # Another process may be training the same, so begin another run. Nobody else trains what is below a sweep or a run.
    if earlier is not None and (Tag.PARENT in tags or not tracker.is_running(earlier)):
        try:
            with tracker.reopen_run(earlier.run_id) as run:
                _remove_leftovers(run)
                begun = _as_begun(prepared, tracker, earlier)
                if begun.dataset is not prepared.dataset:
                    work = replace(work, images=ImageRecord(begun.dataset, tracker))
                if begun.has_folds:
                    return _train_folds(run, begun, work, earlier.params)
                num_recorded = max((step for step, _ in tracker.history(run.run_id, MetricName.TRAIN_LOSS)), default=0)
                snapshot = _last_snapshot(tracker, earlier, begun.device, num_recorded)
                training = _Training(run, begun, work, num_recorded)
                return training.begin(earlier.params) if snapshot is None else training.go_on(snapshot)
        except DamagedError as error:
            log.warning("%s; a new run begins", error)
    prepared = with_threads(prepared)
    tags |= num_processes_tag(prepared.device.ranks)
    with tracker.start_run(prepared.experiment.name, kind=kind, name=name, tags=tags, identity=identity) as run:
        if kind == "train":
            write_page(prepared.experiment, tracker)
        if prepared.has_folds:
            return _train_folds(run, prepared, work, recorded={})
        return _Training(run, prepared, work).begin(recorded={})


@dataclass(frozen=True)
class _Work:
    """What is asked of a run, whether it begins or is taken up; see `train_run`."""

    tracker: Tracker
    kind: Kind
    name: str
    images: ImageRecord
    prune: Callable[[EpochResult], bool]
    pause_at: int
    prune_folds: Callable[[Sequence[EpochResult]], bool]
    limits: Limits
    outlook: Outlook | None


def _train_folds(run: Run, prepared: Prepared, work: _Work, recorded: Mapping[str, str]) -> Finished:
    """Trains a run in folds; `recorded` are the params that it has already."""

    def train_fold(of_fold: Prepared, number: int) -> Finished:
        of, *values = work.name.split(PARTS)
        name = PARTS.join([f"{of}, fold {number} of {prepared.dataset.num_folds}", *values])
        tags = {Tag.PARENT: run.run_id, Tag.FOLD: str(number)}
        num_folds = work.pause_at or prepared.dataset.num_folds
        outlook = work.outlook and replace(work.outlook, fold=number, num_folds=num_folds)
        limits = work.limits.of_fold(number, of_fold.experiment.train.last_epoch)
        return train_run(of_fold, work.tracker, kind="fold", name=name, tags=tags, limits=limits, outlook=outlook)

    RecordWriter(run, prepared, work.images).start(recorded)
    if work.kind == "train":
        work.images.write_near_duplicates(run)
    finished = FoldsTraining(
        run, prepared, work.tracker, work.images, train_fold, work.prune_folds, work.pause_at, work.limits
    ).train()
    return _drawn(run, prepared.as_scored(work.tracker.get(run.run_id)), work, finished)


def _drawn(run: Run, prepared: Prepared, work: _Work, finished: Finished) -> Finished:
    """Draws the pictures of a run that is complete, if it is to have some."""
    if finished.outcome == "completed" and has_figures(work.kind, prepared.experiment):
        with pictures_of(run.run_id):
            write_val_figures(run, prepared, work.tracker)
    return finished


def _as_begun(prepared: Prepared, tracker: Tracker, earlier: RunRecord) -> Prepared:
    """The experiment with the threads, precision and squares that the run began with: others would change its bits.

    Raises:
        InputError: it was begun on another kind of device, or by another number of processes.
    """
    check_num_processes(earlier, prepared.device.ranks)
    if not tracker.has_artifact(earlier.run_id, Artifact.CONFIG):  # it was killed before there was anything to keep
        threads = earlier.params.get("train.threads")
        return prepared.with_threads(int(threads)) if threads else with_threads(prepared)
    begun = recorded_experiment(earlier.run_id, tracker).train
    kind_of_device = begun.device.split(":")[0]
    if kind_of_device != prepared.device.torch_device.type:
        raise InputError(
            f"run {earlier.run_id} was begun on {begun.device} and can go on only there; this is "
            f"{prepared.device.torch_device}: set train.device, or begin a new run (imgcls train --fresh)"
        )
    train = prepared.experiment.train.model_copy(update={"threads": begun.threads, "precision": begun.precision})
    squares = recorded_squares(earlier) if Tag.SQUARES in earlier.tags else prepared.dataset.squares
    if train == prepared.experiment.train and squares == prepared.dataset.squares:
        return prepared
    log.info("going on with %d threads in %s, as the run began", begun.threads, begun.precision)
    resolved = prepared.experiment.model_copy(update={"train": train})
    return prepare(resolved, prepared.project, squares)


def _last_snapshot(tracker: Tracker, earlier: RunRecord, device: Device, num_recorded: int) -> dict[str, Any] | None:
    if not tracker.has_artifact(earlier.run_id, Artifact.LAST):
        if num_recorded >= int(earlier.params.get("train.checkpoint_epochs", 1)):
            raise DamagedError(f"run {earlier.run_id} has completed epochs and no {Artifact.LAST}")
        log.info("going on with run %s, which stopped before its first checkpoint", earlier.run_id)
        return None
    with tracker.fetch(earlier.run_id, Artifact.LAST) as path:
        try:
            snapshot: dict[str, Any] = load_checkpoint(path, device.torch_device)["state"]
        except (InputError, KeyError) as error:
            raise DamagedError(f"run {earlier.run_id} cannot go on: {error}") from error
    if earlier.outcome != "paused":  # a sweep says itself that a paused trial goes on
        log.info("going on with run %s after epoch %d, step %d", earlier.run_id, snapshot["epoch"], snapshot["step"])
    return snapshot


def _remove_leftovers(run: Run) -> None:
    """Removes what a killed process left of a checkpoint that it was writing."""
    if run.folder is not None:
        for path in leftovers(run.folder / Path(Artifact.LAST).parent):
            path.unlink(missing_ok=True)


class _Training:
    """A run as it trains; `num_recorded` is the number of epochs that the record has of it.

    They may be more than its last checkpoint has, which is not written after each (`train.checkpoint_epochs`). Then
    some are trained again, with the same weights and scores, and neither recorded nor judged again.
    """

    def __init__(self, run: Run, prepared: Prepared, work: _Work, num_recorded: int = 0) -> None:
        self._num_recorded, self._num_restored = num_recorded, 0
        self._run = run
        self._prepared = prepared
        self._work = work
        self._record = RecordWriter(run, prepared, work.images)
        self._best_logits: Tensor | None = None

    def begin(self, recorded: Mapping[str, str]) -> Finished:
        """Trains from the first step; `recorded` are the params that the run has already."""
        self._record.start(recorded)
        if self._work.kind == "train":
            self._work.images.write_near_duplicates(self._run)
        return self._train(self._start(with_weights=True))

    def go_on(self, snapshot: dict[str, Any]) -> Finished:
        """Trains from the step after a snapshot.

        Raises:
            DamagedError: the snapshot does not fit.
        """
        self._run.set_tags(caution_tags(self._work.images.tags))
        state = self._start(with_weights=False)
        try:
            state.restore(snapshot)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if (told := explain(error)) is not None:  # such as want of memory, which says nothing against the state
                raise told from error
            raise DamagedError(
                f"run {self._run.run_id} cannot go on: its last checkpoint does not fit: {error}"
            ) from error
        self._num_restored = state.epoch
        return self._train(state)

    def _start(self, *, with_weights: bool) -> TrainState:
        self._task, state = self._prepared.begin(with_weights=with_weights)
        return state

    def _train(self, state: TrainState) -> Finished:
        if outcome := self._loop(state):
            self._run.outcome = outcome
            if outcome == "paused":
                kept = state.kept(self._task.config, self._task.metric)
                return self._record.pause(kept, state.epoch, f"epoch {state.epoch}", self._best_logits)
        elif cut := self._work.limits.cut(self._task, state):
            self._record.save_last(state)
            raise cut
        best = (self._best_logits.numpy(),) if self._best_logits is not None else self._predict_with_best()
        finished = self._record.end(state.history, state.kept(self._task.config, self._task.metric), *best)
        return _drawn(self._run, self._prepared, self._work, finished)

    def _loop(self, state: TrainState) -> Outcome | None:
        """Trains until the last epoch, a stop, a pause or the pruner ends it; gives what `_after_epoch` gives."""
        task, steps, val = self._task, self._task.train.steps_per_epoch, self._prepared.dataset.val
        done = state.epoch + state.step / steps
        of_sweep = self._work.outlook, self._work.pause_at
        about = self._work.name, task.config.last_epoch, steps, task.metric, done, *of_sweep
        with closing(RunProgress(*about)) as progress:
            # A process that was killed after it wrote its checkpoint may not have done the rest.
            if state.history and not state.step and (outcome := self._after_epoch(state)):
                return outcome
            limits = self._work.limits
            if limits.ends_early and state.history and state.epoch >= self._num_recorded:
                return "completed"
            lead(self._prepared, state)
            for result in fit(task, state, lambda: limits.are_reached(state), progress.on_step):
                is_best = state.kept(task.config, task.metric) is result
                assert state.val_logits is not None
                hits = state.val_logits.numpy().argmax(axis=1) == val.labels
                progress.on_epoch(result, is_best, hits_interval(hits, val.groups) or NO_INTERVAL)
                if is_best:
                    self._best_logits = state.val_logits
                if is_due := self._is_due(state):
                    self._record.save_last(state)
                ends_here = limits.ends_early and 0 < self._num_recorded <= state.epoch
                outcome = self._after_epoch(state) or ("completed" if ends_here else None)
                if outcome and not is_due:
                    self._record.save_last(state)
                if self._prepared.device.ranks.from_first(outcome):
                    return outcome
        return None

    def _is_due(self, state: TrainState) -> bool:
        """Whether the last checkpoint is written after the epoch that was just completed."""
        is_at_interval = state.epoch % self._task.config.checkpoint_epochs == 0
        return is_at_interval or state.epoch == self._work.pause_at or is_over(self._task, state)

    def _after_epoch(self, state: TrainState) -> Outcome | None:
        """All that follows from a completed epoch, once it is in the last checkpoint if that is due; twice is as good.

        Returns:
            The outcome of a run that is pruned or paused; None of any other.
        """
        config, result = self._task.config, state.history[-1]
        tags: dict[str, str] = {}
        if state.kept(config, self._task.metric) is result:
            tags[Tag.BEST_SHA256] = self._record.save_scored(Artifact.BEST, state, self._val_logits(state))
        if 0 < config.save_from_epoch <= state.epoch:
            self._record.save_scored(Artifact.EPOCH.format(state.epoch), state, self._val_logits(state))
        is_repeated = self._num_restored < result.epoch <= self._num_recorded
        metrics = {} if is_repeated else result.metrics()
        self._run.log_metrics(metrics, step=result.epoch, tags=tags, at=result.ended)
        was_judged = result.epoch < self._num_recorded
        if result.epoch < config.last_epoch and not was_judged and self._work.prune(result):
            return "pruned"
        return "paused" if result.epoch == self._work.pause_at and not is_over(self._task, state) else None

    def _val_logits(self, state: TrainState) -> NDArray[np.float32]:
        """Val's logits of the state's last epoch; computed again where an earlier sitting had computed them."""
        if state.val_logits is None:
            state.val_logits = predict_val(self._task, state.scored_model)
        logits: NDArray[np.float32] = state.val_logits.numpy()
        return logits

    def _predict_with_best(self) -> tuple[NDArray[np.float32], TemperatureFit | None]:
        """Val's logits of the best checkpoint, which an earlier sitting wrote, and the temperature that is in it."""
        device = self._prepared.device
        model = device.place(self._prepared.to_train(with_weights=False))
        with self._work.tracker.fetch(self._run.run_id, Artifact.BEST) as path:
            content = load_checkpoint(path, device.torch_device)
        whole_network(model).load_state_dict(content["model"])
        return predict_val(self._task, model).numpy(), kept_fit(content)
