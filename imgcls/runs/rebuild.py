"""A run made again from its record alone: its config, its data (checked by fingerprint), its device."""

import logging
from typing import Any

import torch

from imgcls.config.keys import Experiment
from imgcls.config.load import load_experiment
from imgcls.errors import DataError, InputError
from imgcls.record import UNKNOWN, Artifact, MetricName, Tag
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import recorded_squares
from imgcls.runs.prepare import Prepared, prepare
from imgcls.tracking.provenance import versions
from imgcls.tracking.store import Tracker
from imgcls.training.checkpoint import load_checkpoint
from imgcls.training.device import UNKNOWN_MODEL
from imgcls.training.epoch import EPOCH_METRICS, EpochResult

log = logging.getLogger(__name__)

WHAT_MAKES_BITS = ("torch", "torchvision", "numpy", "pillow")
"""Packages whose other version may give other bits."""


def rebuild(record: RunRecord, tracker: Tracker) -> Prepared:
    """Rebuilds a run from its record, with the pixels that it saw, on its device where this machine has it.

    Raises:
        DataError: the images are not those that the run was trained on.
        InputError: it left no config, or the config is impossible here.
    """
    experiment = recorded_experiment(record.run_id, tracker)
    prepared = prepare(on_this_machine(experiment), tracker.project, recorded_squares(record))
    _same_data(record, prepared)
    return prepared


def recorded_experiment(run_id: str, tracker: Tracker) -> Experiment:
    """Rebuilds the experiment of a run: the resolved one that it recorded.

    Raises:
        InputError: it left no config.
    """
    with tracker.fetch(run_id, Artifact.CONFIG) as path:
        return load_experiment(path)


def recorded_epochs(record: RunRecord, tracker: Tracker) -> list[EpochResult]:
    """The epochs of a run as it recorded them, from which what came of it is rebuilt; those of a fold, too."""
    points = {name: dict(tracker.history(record.run_id, name)) for name in EPOCH_METRICS if name in record.metrics}
    epochs = sorted(points.get(MetricName.TRAIN_LOSS, ()))
    return [
        EpochResult.recorded(epoch, {name: of[epoch] for name, of in points.items() if epoch in of}) for epoch in epochs
    ]


def best_checkpoint(record: RunRecord, tracker: Tracker) -> dict[str, Any]:
    """The checkpoint with which a completed run is rebuilt to be used: that of its kept epoch, on the CPU.

    Raises:
        InputError: it is not there any more, is damaged, or is not the one that the run recorded.
    """
    with tracker.fetch(record.run_id, Artifact.CONFIG):
        pass  # where all of the run's files are missing, that is the message
    if not tracker.has_artifact(record.run_id, Artifact.BEST):
        raise InputError(
            f"run {record.run_id} has no artifact {Artifact.BEST}; `imgcls clean` removes the checkpoints of trials "
            f"that were not chosen. To make it again: imgcls rerun {record.run_id}"
        )
    with tracker.fetch(record.run_id, Artifact.BEST) as path:
        return load_checkpoint(path, recorded_digest=record.tags.get(Tag.BEST_SHA256))


def same_place(record: RunRecord, prepared: Prepared) -> bool:
    """Whether a rebuilt run must give its exact bits again here: same processor, threads and versions."""
    device = str(prepared.device)
    return not other_versions(record) and record.device == device and UNKNOWN_MODEL not in device


def other_versions(record: RunRecord) -> list[str]:
    """A rebuilt run's packages that are another version here, or an unknown one, each as `torch 2.14.1 -> 2.15.0`."""
    then, now = record.versions, versions()
    pairs = {name: (then.get(name, UNKNOWN), now[name]) for name in WHAT_MAKES_BITS}
    return [
        f"{name} {before} -> {after}" for name, (before, after) in pairs.items() if before != after or after == UNKNOWN
    ]


def on_this_machine(experiment: Experiment) -> Experiment:
    """The rebuilt run's device as recorded where it exists here, else whatever there is."""
    device = experiment.train.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "auto"
    if device == "mps" and not torch.backends.mps.is_available():
        device = "auto"
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"device": device})})


def _same_data(record: RunRecord, prepared: Prepared) -> None:
    trained_on = record.fingerprint
    if prepared.dataset.fingerprint != trained_on:
        raise DataError(
            f"the data changed since run {record.run_id}: train and val have fingerprint "
            f"{prepared.dataset.fingerprint}, the run was trained on {trained_on}; restore the images, or train again"
            f"{_read_otherwise(record)}"
        )
    sealed = record.test_fingerprint
    if sealed and prepared.dataset.test is not None and prepared.dataset.test.fingerprint() != sealed:
        raise DataError(
            f"the test split changed since run {record.run_id}: its fingerprint was {sealed} and is "
            f"{prepared.dataset.test.fingerprint()}; restore the images, or train again{_read_otherwise(record)}"
        )


def _read_otherwise(record: RunRecord) -> str:
    """What else may be the cause where an earlier version recorded a run on a folder of images."""
    if Tag.NUM_IGNORED in record.tags:
        return ""
    return (
        ". The run was recorded by an earlier version, which left out GIF, AVIF and files without an ending, took "
        "folders such as Train/ for classes, and scaled 12- and 16-bit grey otherwise: the images may be the same"
    )
