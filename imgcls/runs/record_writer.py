"""What a run writes into its record: tags, params, metrics, checkpoints, predictions, figures and its description."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from imgcls.data.image_set import DecodedImages
from imgcls.metrics import ACCURACY, metric_named, reported
from imgcls.models.head import whole_network
from imgcls.record import Artifact, MetricName, Tag, best_name, ends_of
from imgcls.reporting import training_figures
from imgcls.reporting.cautions import caution_tags, cautions, flat_cautions
from imgcls.reporting.drawing import pictures_of, save_png
from imgcls.reporting.methods_section import schedule_words, scored_by_folds, start_words
from imgcls.reporting.rounding import score_text
from imgcls.runs.image_record import ImageRecord
from imgcls.runs.prepare import Prepared
from imgcls.runs.used_params import work_hash
from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.statistics.label_errors import label_errors
from imgcls.statistics.per_class import per_class
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import TemperatureFit, probabilities, temperature_fit
from imgcls.tracking.run import Run
from imgcls.training.checkpoint import checkpoint_digest, save_checkpoint
from imgcls.training.epoch import EpochResult
from imgcls.training.loop import TrainState
from imgcls.training.loss import LOSS_DEFINITION


@dataclass(frozen=True)
class Finished:
    """The record writer's last word on a run: its outcome, best epoch, intervals and cautions.

    Attributes:
        run_id: MLflow's id.
        outcome: `completed`, `pruned` or `paused`.
        best: its best epoch, so far where it is paused.
        num_epochs: completed epochs.
        intervals: 95% intervals of that epoch's val accuracy (`NO_INTERVAL` where there are too few groups) and, where
            one holds, of the metric that selects; by names such as `val/accuracy`. Those of a paused run are left out
            where its predictions are not at hand: with folds, and where an earlier sitting had the best epoch.
        caution_tags: its tags from which `cautions.cautions` makes its sentences.
    """

    run_id: str
    outcome: str
    best: EpochResult
    num_epochs: int
    intervals: Mapping[str, Interval]
    caution_tags: Mapping[str, str] = field(default_factory=dict)

    def flat(self, metric: str) -> dict[str, object]:
        """The record writer's scores of a run under the record's names, for programs; `metric` selects."""
        return {
            "run_id": self.run_id,
            MetricName.BEST_EPOCH: self.best.epoch,
            **{best_name(name): self.best.value(name) for name in reported(metric)},
            **flat_cautions(self.caution_tags),
        }

    def in_words(self, metric: str) -> dict[str, object]:
        """The same for people: scores with their intervals, and no cautions."""
        facts: dict[str, object] = {"run_id": self.run_id, MetricName.BEST_EPOCH: self.best.epoch}
        for name in reported(metric):
            facts[best_name(name)] = self.score_in_words(name)
        return facts

    def score_in_words(self, name: str) -> str:
        """A val score of the best epoch, rounded, with its interval where it has one."""
        of_accuracy = self.intervals.get(ACCURACY.on_val, NO_INTERVAL)
        return score_text(self.best.value(name), self.intervals.get(name), of_accuracy)


class RecordWriter:
    """The record writer of a run: writes what is known at its start, its checkpoints, and its end."""

    def __init__(self, run: Run, prepared: Prepared, images: ImageRecord) -> None:
        self._run, self._prepared, self._images = run, prepared, images

    def start(self, recorded: Mapping[str, str]) -> None:
        """Writes the record of a run before its first step; `recorded` are the params that the run has already."""
        experiment, dataset, run = self._prepared.experiment, self._prepared.dataset, self._run
        run.log_text(Artifact.CONFIG, experiment.to_toml())
        # Of a run that is taken up the device may be another of the same kind, and MLflow lets no param change.
        run.log_params({key: value for key, value in self._prepared.params().items() if key not in recorded})
        further = {Tag.CONFIG_HASH: work_hash(experiment), Tag.DEVICE: str(self._prepared.device)}
        self._images.write(run, {**further, Tag.LOSS: str(LOSS_DEFINITION)})
        for split, of_split in (("train", dataset.train), ("val", dataset.val)):
            counts = np.bincount(of_split.labels, minlength=len(dataset.class_names))
            of_classes = dict(zip(dataset.class_names, counts.tolist(), strict=True))
            profile = {"num_images": len(of_split), "num_images_per_class": of_classes}
            run.log_dataset(
                f"{experiment.name}/{split}",
                context=split,
                digest=dataset.fingerprint,
                source=json.dumps({"source": experiment.data.source, "path": experiment.data.path}),
                profile=profile,
            )
        self._describe()

    def save_last(self, state: TrainState) -> None:
        """Writes the last checkpoint into the record, from which an interrupted run goes on."""
        with self._run.artifact(Artifact.LAST) as path:
            save_checkpoint(path, {"config": self._prepared.experiment.to_toml(), "state": state.snapshot()})

    def save_scored(self, name: str, state: TrainState, val_logits: NDArray[np.float32]) -> str:
        """Writes the weights that val scored into the record, with what is needed to use them anywhere.

        `val_logits`, (N, K), are those that they give on val. Returns the digest of the checkpoint.
        """
        fit = temperature_fit(self._on_val(val_logits))
        return self.save_model(name, whole_network(state.scored_model), state.history[-1], fit)

    def save_model(self, name: str, model: nn.Module, of: EpochResult, fit: TemperatureFit) -> str:
        """Writes a model into the record as it was after an epoch, and returns the digest of the checkpoint."""
        content = {
            "config": self._prepared.experiment.to_toml(),
            "class_names": list(self._prepared.dataset.class_names),
            "preprocessing": self._prepared.preprocessing().to_plain(),
            "temperature": fit.temperature,
            "temperature_gain": fit.gain,
            "epoch": of.epoch,
            "metrics": of.metrics(),
            "model": model.state_dict(),
        }
        with self._run.artifact(name) as path:
            save_checkpoint(path, content)
            return checkpoint_digest(path)

    def end(
        self,
        history: Sequence[EpochResult],
        best: EpochResult,
        best_logits: NDArray[np.float32],
        fit: TemperatureFit | None = None,
    ) -> Finished:
        """Writes the record of a run after its last epoch.

        Args:
            history: its epochs.
            best: that whose weights are kept.
            best_logits: float32 (N, K), of val at that epoch. With folds, each row is of the model of the image's fold;
                rows of folds that have not run are NaN.
            fit: the temperature in the best checkpoint, where an earlier sitting wrote that: another device may give
                other last bits of the logits. By default it is fitted on `best_logits`.
        """
        experiment, dataset, run = self._prepared.experiment, self._prepared.dataset, self._run
        metric, rows = experiment.search.metric, np.flatnonzero(~np.isnan(best_logits).any(axis=1))
        val, folds = dataset.val, dataset.folds
        if is_part := len(rows) < len(val):
            val, best_logits, folds = val.rows(rows), best_logits[rows], None if folds is None else folds[rows]
        predictions = Predictions(best_logits, val.labels, val.groups)
        intervals, fit = _val_intervals(predictions, metric), fit or temperature_fit(predictions)
        scores = {name: best.value(name) for name in reported(metric)}
        scores |= interval_ends(intervals, has_groups=bool(val.groups) or is_part)
        run.log_metrics(
            {
                **{best_name(name): value for name, value in scores.items()},
                MetricName.BEST_EPOCH: best.epoch,
                **temperature_metrics(fit),
                **self._images.metrics,
            },
            step=history[-1].epoch,
            at=history[-1].ended,
        )
        table = prediction_table(val, best_logits, dataset.class_names, fit.temperature, folds)
        run.log_text(Artifact.VAL_PREDICTIONS, table.to_csv(index=False))
        if run.outcome == "completed":
            self._write_numbers(val, predictions, fit.temperature)
        points = [{"epoch": float(result.epoch), **result.metrics()} for result in history]
        with pictures_of(run.run_id):
            curves = training_figures.learning_curves(points, best.epoch, metric_named(metric))
            run.log_bytes(Artifact.CURVES, save_png(curves, cut=False))
        num_folds = 0 if folds is None else len(np.unique(folds))
        self._describe(self._best_in_words(best, intervals, num_folds))
        return Finished(run.run_id, run.outcome, best, history[-1].epoch, intervals, caution_tags(self._images.tags))

    def pause(self, best: EpochResult, num_epochs: int, after: str, best_logits: Tensor | None = None) -> Finished:
        """The record of a run that is paused: what it waits for, and nothing that its end would write again.

        Args:
            best: the epoch that is kept so far.
            num_epochs: completed epochs.
            after: what it was paused after, in words.
            best_logits: (N, K), of val at the kept epoch; None where an earlier sitting had them, and with folds.
        """
        metric = self._prepared.experiment.search.metric
        self._run.set_tags({Tag.REASON: f"paused after {after}, until it is among the best of its sweep"})
        intervals: Mapping[str, Interval] = {}
        if best_logits is not None:
            intervals = _val_intervals(self._on_val(best_logits.numpy()), metric)
        return Finished(self._run.run_id, "paused", best, num_epochs, intervals, caution_tags(self._images.tags))

    def _write_numbers(self, val: DecodedImages, of: Predictions, temperature: float) -> None:
        """Writes per-class scores and likely label errors of val."""
        names = self._prepared.dataset.class_names
        classes = per_class(val.labels, of.classes, names, val.groups)
        self._run.log_text(Artifact.VAL_PER_CLASS, classes.to_csv(index=False))
        errors = label_errors(val.labels, probabilities(of.logits, temperature))
        self._run.log_text(Artifact.LABEL_ERRORS, label_error_table(val, errors, names).to_csv(index=False))

    def _on_val(self, logits: NDArray[np.float32]) -> Predictions:
        val = self._prepared.dataset.val
        return Predictions(logits, val.labels, val.groups)

    def _best_in_words(self, best: EpochResult, intervals: Mapping[str, Interval], num_folds: int) -> str:
        """Such as `val/accuracy **0.87 (0.84 to 0.90)**, val/loss 0.35 at epoch 3`; what selects is first, and bold."""
        chosen = "This epoch was chosen by val, so its val score is not an unbiased one."
        if self._prepared.experiment.train.score_epoch:
            chosen = "This epoch was fixed before the run began."
        if num_folds:
            chosen = f"{chosen} {scored_by_folds(num_folds)}"
        words, metric = [], self._prepared.experiment.search.metric
        for name in dict.fromkeys((metric, *reported(metric))):
            text = score_text(best.value(name), intervals.get(name), intervals[ACCURACY.on_val])
            words.append(f"{name} **{text}**" if name == metric else f"{name} {text}")
        return f"{', '.join(words)} at epoch {best.epoch}. {chosen}"

    def _describe(self, best: str = "") -> None:
        """Writes what MLflow's UI shows on the run's page; `best` are the scores of the kept epoch, in words."""
        experiment, dataset = self._prepared.experiment, self._prepared.dataset
        model, params = experiment.model, experiment.params()
        size = experiment.data.image_size
        layers = f", {model.depth} layers, width {model.width}" if model.depth else ""
        lines = [
            f"**{experiment.name}**: `{model.name}`{layers}, on {self._images_in_words()} "
            f"of {size} x {size} pixels in {len(dataset.class_names)} classes ({experiment.data.source}).",
            f"{start_words(params)}, {schedule_words(params)}, lr {experiment.train.lr:g}, batches of "
            f"{experiment.train.batch_size}, seed {experiment.train.seed}.",
        ]
        if best:  # first, because MLflow's UI cuts a description off after a few lines
            lines.insert(0, best)
        if said := cautions(self._images.tags):
            lines.append(f"**Caution:** {' '.join(said)} These scores may flatter.")
        if dataset.num_skipped:
            were = "image was" if dataset.num_skipped == 1 else "images were"
            lines.append(f"{dataset.num_skipped} unreadable {were} left out.")
        self._run.describe("\n\n".join(lines))

    def _images_in_words(self) -> str:
        dataset = self._prepared.dataset
        if dataset.num_folds:
            return f"{len(dataset.val)} images of train and val in {dataset.num_folds} folds"
        return f"{len(dataset.train)} train and {len(dataset.val)} val images"


def _val_intervals(of: Predictions, metric: str) -> dict[str, Interval]:
    own = metric_named(metric).interval(of)
    return ({} if own is None else {metric: own}) | {ACCURACY.on_val: ACCURACY.interval(of) or NO_INTERVAL}


def kept_fit(checkpoint: Mapping[str, Any]) -> TemperatureFit | None:
    """What the record writer put into a checkpoint of its temperature; None where an earlier version wrote it."""
    if "temperature_gain" not in checkpoint:
        return None
    return TemperatureFit(checkpoint["temperature"], checkpoint["temperature_gain"])


def temperature_metrics(fit: TemperatureFit) -> dict[str, float]:
    """The record writer's metrics of a temperature: by what logits are divided, and how much that gains on val."""
    return {MetricName.BEST_TEMPERATURE: fit.temperature, MetricName.BEST_TEMPERATURE_GAIN: fit.gain}


def interval_ends(intervals: Mapping[str, Interval], *, has_groups: bool) -> dict[str, float]:
    """The record writer's ends of intervals, as far as a record has to hold them, by names such as `val/macro_f1_low`.

    That of the accuracy of images alone is left out, since it follows from their number.
    """
    ends: dict[str, float] = {}
    for name, interval in intervals.items():
        if not math.isnan(interval.low) and (has_groups or name != ACCURACY.on_val):
            ends |= zip(ends_of(name), (interval.low, interval.high), strict=True)
    return ends


def prediction_table(
    images: DecodedImages,
    logits: NDArray[np.float32],
    class_names: tuple[str, ...],
    temperature: float,
    folds: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """The record writer's table of predictions: each image's name, digest, group, label, prediction, probabilities.

    Args:
        images: N images of a split.
        logits: float32 (N, K), in their order.
        class_names: K names.
        temperature: by which logits are divided in the columns `calibrated/CLASS`, and not in `prob/CLASS`.
        folds: int64 (N,), the fold of each image, where there are folds.
    """
    columns: dict[str, object] = {
        "image": images.keys,
        "digest": [row.tobytes().hex()[:16] for row in images.digests],
        **({"group": images.groups} if images.groups else {}),
        **({} if folds is None else {"fold": folds}),
        "label": [class_names[i] for i in images.labels],
        "prediction": [class_names[i] for i in logits.argmax(axis=1)],
    }
    for kind, divisor in (("prob", 1.0), ("calibrated", temperature)):
        probs = probabilities(logits, divisor)
        columns |= {f"{kind}/{name}": probs[:, i] for i, name in enumerate(class_names)}
    return pd.DataFrame(columns)


def label_error_table(images: DecodedImages, errors: pd.DataFrame, class_names: tuple[str, ...]) -> pd.DataFrame:
    """The record writer's table of label errors: what `statistics.label_errors` found, by names.

    Args:
        images: of val.
        errors: as `label_errors` gives them.
        class_names: K names.
    """
    rows = errors["row"].to_numpy()
    return pd.DataFrame({
        "image": [images.keys[row] for row in rows],
        "digest": [images.digests[row].tobytes().hex()[:16] for row in rows],
        "label": [class_names[images.labels[row]] for row in rows],
        "suggested": [class_names[label] for label in errors["suggested"]],
        **{name: errors[name].to_numpy() for name in ("prob_label", "prob_suggested", "is_likely")},
    })  # fmt: skip
