"""One held-out evaluation of one run: checks the run, writes the look down, opens the test split, scores, records."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from imgcls.config import Experiment, load_experiment
from imgcls.data.held_out import HeldOut, Look
from imgcls.data.labelled import LabelledImages
from imgcls.data.loader import Loader
from imgcls.errors import DataError, InputError
from imgcls.reporting import figures
from imgcls.reporting.report import EvaluationFacts, evaluation_markdown
from imgcls.reporting.statistics import Scores, confusion, per_class, reliability, score_logits
from imgcls.run import BEST, CONFIG, TEST_PREDICTIONS, Prepared, prediction_table, prepare
from imgcls.tracking import Run, RunRecord, Tracker, versions
from imgcls.training.checkpoint import load_checkpoint
from imgcls.training.loop import loss_and_accuracy, predict

log = logging.getLogger(__name__)

IMAGES_PER_DIFFERENCE = 500
"""Elsewhere than where the run was trained, at most one val image in so many may be judged differently."""


@dataclass(frozen=True)
class Evaluation:
    """What a held-out evaluation gave.

    Attributes:
        run_id: of the evaluation.
        evaluated_run_id: of the run that it judges.
        look: the how-manieth opening of this test split.
        val: scores on val of the same checkpoint.
        test: scores on test.
        per_class: table of precision, recall, F1 and number of images.
        report: as Markdown.
    """

    run_id: str
    evaluated_run_id: str
    look: int
    val: Scores
    test: Scores
    per_class: pd.DataFrame
    report: str

    def flat(self) -> dict[str, float | str | int]:
        """Under the record's names, for programs."""
        return {
            "run_id": self.run_id,
            "imgcls.evaluated_run_id": self.evaluated_run_id,
            "imgcls.test_look": self.look,
            "best/val/accuracy": self.val.accuracy,
            **self.test.metrics("test"),
            "val_test_gap": self.val.accuracy - self.test.accuracy,
        }


@dataclass(frozen=True)
class _Candidate:
    """A run that may be judged: checked, rebuilt, and its val score confirmed."""

    record: RunRecord
    prepared: Prepared
    model: nn.Module
    test: HeldOut
    val_logits: NDArray[np.float32]
    epoch: int


def evaluate(run_id: str, tracker: Tracker, root: Path) -> Evaluation:
    """Judges a run on its test split. This is a look, and it is written down before an image is read.

    Args:
        run_id: of a completed run, or of a sweep, which stands for its winner.
        tracker: where the run is and the evaluation goes.
        root: the project's root, for relative data paths.

    Raises:
        InputError: whatever keeps this run from being judged; nothing is logged then.
    """
    candidate = _admit(run_id, tracker, root)
    look = 1 + len(_earlier_looks(tracker, candidate.test))
    tags = {
        "imgcls.evaluated_run_id": candidate.record.run_id,
        "imgcls.test_look": str(look),
        "imgcls.test_fingerprint": candidate.test.fingerprint(),
        "imgcls.data_fingerprint": candidate.prepared.dataset.fingerprint,
        "imgcls.device": str(candidate.prepared.device),
    }
    with tracker.start_run(
        candidate.record.experiment,
        kind="evaluation",
        name=f"evaluation of {candidate.record.name}",
        parent=candidate.record.run_id,
        tags=tags,
    ) as run:
        log.info("look %d at this test split of %d images", look, len(candidate.test))
        images = candidate.test.open(Look(run.run_id, look))
        return _judge(run, candidate, images, look)


def _judge(run: Run, candidate: _Candidate, images: LabelledImages, look: int) -> Evaluation:
    prepared = candidate.prepared
    names = prepared.dataset.class_names
    logits = _logits(candidate.model, prepared, images)
    test, val = score_logits(logits, images.labels), score_logits(candidate.val_logits, prepared.dataset.val.labels)
    predictions = logits.argmax(axis=1)
    classes = per_class(images.labels, predictions, names)
    model = prepared.experiment.model
    report = evaluation_markdown(
        EvaluationFacts(
            run_id=candidate.record.run_id,
            evaluation_run_id=run.run_id,
            experiment=candidate.record.experiment,
            model=f"{model.name}" + (f", {model.depth} layers, width {model.width}" if model.depth else ""),
            class_names=names,
            num_train=len(prepared.dataset.train),
            num_val=len(prepared.dataset.val),
            num_test=len(images),
            look=look,
            val=val,
            test=test,
            best_epoch=candidate.epoch,
            per_class=classes,
            test_fingerprint=candidate.test.fingerprint(),
        )
    )
    evaluation = Evaluation(run.run_id, candidate.record.run_id, look, val, test, classes, report)
    run.log_metrics(test.metrics("test") | {"val_test_gap": val.accuracy - test.accuracy})
    run.log_text(TEST_PREDICTIONS, prediction_table(images, logits, names).to_csv(index=False))
    run.log_text("report/per_class.csv", classes.to_csv(index=False))
    run.log_text("report/report.md", report)
    _log_figures(run, images, logits, names, test.ece)
    run.describe(report)
    return evaluation


def _log_figures(
    run: Run, images: LabelledImages, logits: NDArray[np.float32], names: tuple[str, ...], ece: float
) -> None:
    probs = softmax(logits.astype(np.float64), axis=1)
    pictures = {
        "confusion_matrix": figures.confusion_matrix(confusion(images.labels, probs.argmax(axis=1), len(names)), names),
        "reliability": figures.reliability_diagram(reliability(probs, images.labels), ece),
        "worst_mistakes": figures.worst_mistakes(images.pixels, images.labels, probs, images.keys, names),
    }
    for name, figure in pictures.items():
        run.log_bytes(f"figures/{name}.png", figures.save_png(figure))


# --- before the split is opened ---------------------------------------------------------------------------------


def _admit(run_id: str, tracker: Tracker, root: Path) -> _Candidate:
    """Everything that can be refused is refused here, while the test split is still sealed."""
    record = _judged_record(run_id, tracker)
    with tracker.fetch(record.run_id, CONFIG) as path:
        experiment = load_experiment(path)
    prepared = prepare(_on_this_machine(experiment), root)
    _same_data(record, prepared)
    test = prepared.dataset.test
    if test is None:
        raise DataError(
            f"{experiment.data.source} has no test split, so there is nothing to evaluate on; val is never used instead"
        )
    with tracker.fetch(record.run_id, BEST) as path:
        checkpoint = load_checkpoint(path)
    model = prepared.model(with_weights=False)
    try:
        model.load_state_dict(checkpoint["model"])
    except (KeyError, RuntimeError) as error:
        raise InputError(f"the checkpoint of run {record.run_id} does not fit its config: {error}") from error
    model = prepared.device.place(model)
    val_logits = _logits(model, prepared, prepared.dataset.val)
    _confirm_val_score(record, prepared, val_logits)
    return _Candidate(record, prepared, model, test, val_logits, int(checkpoint["epoch"]))


def _judged_record(run_id: str, tracker: Tracker) -> RunRecord:
    record = tracker.get(run_id)
    if record.kind == "sweep":
        winner = record.tags.get("imgcls.best_run_id")
        if not winner:
            raise InputError(f"sweep {run_id} has no winner yet ({record.outcome}); let it end first")
        log.info("sweep %s: evaluating its winner %s", run_id, winner)
        record = tracker.get(winner)
    if record.kind == "evaluation":
        judged = record.tags.get("imgcls.evaluated_run_id", "")
        raise InputError(f"run {run_id} is itself an evaluation, of run {judged}; name the run to judge")
    if not record.kind:
        raise InputError(f"run {run_id} was not written by imgcls")
    if record.outcome != "completed":
        reason = f": {record.tags['imgcls.reason']}" if record.tags.get("imgcls.reason") else ""
        raise InputError(f"run {record.run_id} is not finished ({record.outcome}{reason}); evaluate a completed run")
    return record


def _on_this_machine(experiment: Experiment) -> Experiment:
    """The recorded device and threads where they exist here, else whatever there is."""
    device = experiment.train.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "auto"
    if device == "mps" and not torch.backends.mps.is_available():
        device = "auto"
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"device": device})})


def _same_data(record: RunRecord, prepared: Prepared) -> None:
    trained_on = record.tags.get("imgcls.data_fingerprint", "")
    if prepared.dataset.fingerprint != trained_on:
        raise DataError(
            f"the data changed since run {record.run_id}: train and val have fingerprint "
            f"{prepared.dataset.fingerprint}, the run was trained on {trained_on}; restore the images, or train again"
        )
    sealed = record.tags.get("imgcls.test_fingerprint")
    if sealed and prepared.dataset.test is not None and prepared.dataset.test.fingerprint() != sealed:
        raise DataError(
            f"the test split changed since run {record.run_id}: its fingerprint was {sealed} and is "
            f"{prepared.dataset.test.fingerprint()}; restore the images, or train again"
        )


def _confirm_val_score(record: RunRecord, prepared: Prepared, logits: NDArray[np.float32]) -> None:
    """The checkpoint must earn the val score that the tracker holds, or it is not the run's."""
    labels = prepared.dataset.val.labels
    loss, accuracy = loss_and_accuracy(torch.from_numpy(logits), torch.from_numpy(labels))
    tracked_loss, tracked = record.metrics["best/val/loss"], record.metrics["best/val/accuracy"]
    if _same_place(record, prepared):
        if (loss, accuracy) != (tracked_loss, tracked):
            raise InputError(
                f"run {record.run_id} was tracked with val/accuracy {tracked!r} and val/loss {tracked_loss!r}, but its "
                f"checkpoint gives {accuracy!r} and {loss!r} on the same device, threads and versions; "
                "the checkpoint or the code is not the one that was tracked"
            )
        return
    allowed = -(-len(labels) // IMAGES_PER_DIFFERENCE)
    differing = round(abs(accuracy - tracked) * len(labels))
    if differing > allowed:
        raise InputError(
            f"run {record.run_id} was tracked with val/accuracy {tracked:.4f}, but its checkpoint gives {accuracy:.4f} "
            f"here: {differing} of {len(labels)} images differ, where {allowed} may between machines"
        )
    log.info(
        "val/accuracy recomputed: %.4f (tracked %.4f, on another device or with other versions)", accuracy, tracked
    )


def _same_place(record: RunRecord, prepared: Prepared) -> bool:
    then = json.loads(record.tags.get("imgcls.versions", "{}"))
    now = versions()
    same_versions = all(then.get(name) == now[name] for name in ("torch", "torchvision", "numpy", "pillow"))
    return same_versions and record.tags.get("imgcls.device") == str(prepared.device)


def _earlier_looks(tracker: Tracker, test: HeldOut) -> list[RunRecord]:
    """Every opening of this test split so far, crashed ones and deleted runs included."""
    tags = {"imgcls.kind": "evaluation", "imgcls.test_fingerprint": test.fingerprint()}
    return tracker.find(tags, with_deleted=True)


def _logits(model: nn.Module, prepared: Prepared, images: LabelledImages) -> NDArray[np.float32]:
    loader = Loader(images, prepared.experiment.train.eval_batch_size, prepared.device.torch_device)
    logits: NDArray[np.float32] = predict(model, loader, prepared.normalise(), prepared.device).numpy()
    return logits
