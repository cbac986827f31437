"""A run in folds: a model for each fold, below it in the record, and what these models are together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from torch import nn

from imgcls.errors import DamagedError, OutOfTime
from imgcls.metrics import val_scores
from imgcls.models.ensemble import Ensemble
from imgcls.record import Artifact, Outcome, Tag
from imgcls.run_record import RunRecord
from imgcls.runs.image_record import ImageRecord
from imgcls.runs.limits import NO_LIMITS, Limits
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import recorded_epochs
from imgcls.runs.record_writer import Finished, RecordWriter
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import TemperatureFit
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker
from imgcls.training.checkpoint import load_checkpoint
from imgcls.training.epoch import EpochResult
from imgcls.training.loop import predict_val

log = logging.getLogger(__name__)

NOT_FITTED = TemperatureFit(1.0, 0.0)
"""Temperature of the models of all folds together: none can be fitted, since they were not scored on val together."""


@dataclass(frozen=True)
class FoldsTraining:
    """A run in folds as it trains: one fold after the other, then all of them together.

    Attributes:
        run: that stands for all folds.
        prepared: its experiment.
        tracker: where the record goes.
        images: what the record says of them.
        train_fold: trains the model of one fold, or goes on with it: (prepared for the fold, its number) -> result.
        prune: asked after each fold, with the kept epochs of all folds that have run, and once more when a run is taken
            up; True ends the run as pruned.
        pause_at: the fold after which the run pauses; 0: it does not.
        limits: of this sitting.
    """

    run: Run
    prepared: Prepared
    tracker: Tracker
    images: ImageRecord
    train_fold: Callable[[Prepared, int], Finished]
    prune: Callable[[Sequence[EpochResult]], bool]
    pause_at: int = 0
    limits: Limits = NO_LIMITS

    def train(self) -> Finished:
        """Trains every fold that has not run yet, and writes what they are together.

        Raises:
            Interrupted: a stop was requested, or its time was over (`OutOfTime`); the same call goes on with the fold
                that was under way.
            TrainingError: a fold cannot go on.
        """
        recorded, ends_early = self._recorded(), self.limits.ends_early or self._was_to_end_early()
        done = [recorded[number] for number in takewhile(recorded.__contains__, count(1))]
        outcome = self._after_fold(done) if done else None
        if done and ends_early:
            return self._end_early(done)
        while outcome is None and len(done) < self._num_folds:
            number = len(done) + 1
            if done and self.limits.is_over:
                raise OutOfTime(f"paused after fold {len(done)} of {self._num_folds}, because its time was over")
            done.append(recorded.get(number) or self.train_fold(self.prepared.of_fold(number), number))
            outcome = self._after_fold(done)
            if ends_early:
                return self._end_early(done)
        if outcome is not None:
            self.run.outcome = outcome
        return self._pause(done) if outcome == "paused" else self._end(done)

    def _was_to_end_early(self) -> bool:
        """Whether an earlier sitting was about to end the run with the folds that it has."""
        return Tag.NUM_FOLDS in self.tracker.get(self.run.run_id).tags

    def _end_early(self, done: Sequence[Finished]) -> Finished:
        """Ends the run with the folds that have run; the record says so before it says anything of them together."""
        if len(done) < self._num_folds:
            self.run.set_tags({Tag.NUM_FOLDS: str(len(done))})
        return self._end(done)

    @property
    def _num_folds(self) -> int:
        return self.prepared.dataset.num_folds

    def _recorded(self) -> dict[int, Finished]:
        """The folds that ran in earlier sittings, by their numbers."""
        tags = {Tag.KIND: "fold", Tag.PARENT: self.run.run_id, Tag.OUTCOME: "completed"}
        done = {}
        for record in self.tracker.find(tags):
            result = recorded_epochs(record, self.tracker)[record.best_epoch - 1]
            done[int(record.tags[Tag.FOLD])] = Finished(record.run_id, record.outcome, result, result.epoch, {})
        return done

    def _after_fold(self, done: Sequence[Finished]) -> Outcome | None:
        """The outcome of a run that ends or pauses after so many folds, before the last one; None of any other."""
        is_pruned = self.prune([fold.best for fold in done])
        if len(done) == self._num_folds:
            return None
        return "pruned" if is_pruned else "paused" if len(done) == self.pause_at else None

    def _pause(self, done: Sequence[Finished]) -> Finished:
        """Leaves a run that waits, with the means over its folds so far."""
        mean, after = mean_of([fold.best for fold in done]), f"fold {len(done)} of {self._num_folds}"
        return RecordWriter(self.run, self.prepared, self.images).pause(mean, done[-1].num_epochs, after)

    def _end(self, done: Sequence[Finished]) -> Finished:
        """Writes the record of the run: means over its folds, and the scores of all images at the one epoch."""
        folds = [self.tracker.get(fold.run_id) for fold in done]
        metric, record = self.prepared.experiment.search.metric, RecordWriter(self.run, self.prepared, self.images)
        history = _means([recorded_epochs(fold, self.tracker) for fold in folds], ended=folds[-1].ended or 0)
        has_fixed_epoch = bool(self.prepared.experiment.train.score_epoch)
        kept = history[-1] if has_fixed_epoch else min(history, key=lambda result: result.rank(metric))
        ensemble = self._together(folds, kept.epoch)
        logits = out_of_fold_logits(ensemble, self.prepared, of_trained_part=True)
        best = self._on_all_images(kept, logits)
        tags = {}
        if self.run.outcome != "pruned":
            tags[Tag.BEST_SHA256] = record.save_model(Artifact.BEST, ensemble, best, NOT_FITTED)
        for result in history:
            self.run.log_metrics(result.metrics(), step=result.epoch, tags=tags, at=result.ended)
        finished = record.end(history, best, logits, NOT_FITTED)
        if finished.outcome == "completed":
            self._remove_epochs(folds)
        self._end_those_under_way(folds)
        return finished

    def _together(self, folds: Sequence[RunRecord], epoch: int) -> Ensemble:
        """The models of the folds that have run, after an epoch; of the run's own checkpoint where it is written."""
        ensemble = Ensemble(self.prepared.of_fold(number + 1).model(with_weights=False) for number in range(len(folds)))
        if digest := self.tracker.get(self.run.run_id).tags.get(Tag.BEST_SHA256):  # the folds' may be removed by now
            with self.tracker.fetch(self.run.run_id, Artifact.BEST) as path:
                ensemble.load_state_dict(load_checkpoint(path, recorded_digest=digest)["model"])
            return ensemble
        for fold, member in zip(folds, ensemble.members, strict=True):
            name = Artifact.BEST if fold.best_epoch == epoch else Artifact.EPOCH.format(epoch)
            digest = fold.tags.get(Tag.BEST_SHA256) if name == Artifact.BEST else None
            with self.tracker.fetch(fold.run_id, name) as path:
                member.load_state_dict(load_checkpoint(path, recorded_digest=digest)["model"])
        return ensemble

    def _on_all_images(self, kept: EpochResult, logits: NDArray[np.float32]) -> EpochResult:
        """The epoch that is kept, with its scores on the images of all folds that have run, taken together."""
        has_run = ~np.isnan(logits).any(axis=1)
        of = Predictions(logits[has_run], self.prepared.dataset.val.labels[has_run])
        return replace(kept, val=val_scores(of, self.prepared.experiment.search.metric))

    def _end_those_under_way(self, folds: Sequence[RunRecord]) -> None:
        """Ends the run of a fold that stopped, where the run has ended without it."""
        ended = {fold.run_id for fold in folds}
        for fold in self.tracker.children(self.run.run_id, "fold"):
            if fold.run_id not in ended and fold.outcome in ("paused", "interrupted", "running"):
                self.tracker.close_run(fold.run_id, "pruned", "the run in folds ended without it")

    def _remove_epochs(self, folds: Sequence[RunRecord]) -> None:
        """Weights of epochs that were kept only until the run had its own checkpoint; a store elsewhere keeps them."""
        if not self.prepared.experiment.train.score_epoch and not self.prepared.experiment.train.save_from_epoch:
            for fold in folds:
                for path in (fold.folder / Artifact.BEST).parent.glob("epoch_*.pt") if fold.folder else ():
                    path.unlink(missing_ok=True)


def out_of_fold_logits(ensemble: Ensemble, prepared: Prepared, *, of_trained_part: bool = False) -> NDArray[np.float32]:
    """The logits of a run in folds on val, in batches as each fold had them: of each image by the model of its fold.

    Args:
        ensemble: its models, the first of fold 1; where there are fewer models than folds, the others have not run.
        prepared: its experiment.
        of_trained_part: where the heads alone were trained, ask them with stored features, as training does, and not
            the whole networks with images.

    Returns:
        float32 (N, K); NaN in the rows of folds that have no model.
    """
    dataset, by_features = prepared.dataset, of_trained_part and prepared.experiment.train.head_only
    logits = np.full((len(dataset.val), len(dataset.class_names)), np.nan, np.float32)
    for number, member in enumerate(ensemble.members, 1):
        rows = dataset.rows_of_fold(number)
        if by_features:
            logits[rows] = _by_features(member, prepared.of_fold(number))
        else:  # no task of training, since the other folds may be missing
            logits[rows] = prepared.predict(member, dataset.val.rows(rows))
    return logits


def _by_features(member: nn.Module, of_fold: Prepared) -> NDArray[np.float32]:
    """The logits of a fold's model on its val, float32 (N, K), by its head on stored features."""
    head = of_fold.trained_part(member)
    logits: NDArray[np.float32] = predict_val(of_fold.task(head), of_fold.device.place(head)).numpy()
    return logits


def _means(histories: Sequence[Sequence[EpochResult]], ended: int) -> list[EpochResult]:
    """The mean of each metric over the folds, epoch by epoch; the same `ended` for all, in milliseconds since 1970."""
    if len({len(history) for history in histories}) != 1:
        raise DamagedError(
            f"the folds recorded different numbers of epochs ({', '.join(str(len(of)) for of in histories)})"
        )
    return [replace(mean_of(of_epoch), ended=ended) for of_epoch in zip(*histories, strict=True)]


def mean_of(results: Sequence[EpochResult]) -> EpochResult:
    """The mean of each metric over the folds, at one epoch."""
    metrics = [result.metrics() for result in results]
    return EpochResult.recorded(results[0].epoch, {name: fmean(of[name] for of in metrics) for name in metrics[0]})
