"""Pictures of a completed run: its training images, and what it gets wrong on val, drawn from its record."""

import logging
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from imgcls.config.keys import Experiment
from imgcls.data.image_set import DecodedImages
from imgcls.models.grad_cam import NoMapError, grad_cam
from imgcls.record import Artifact, Kind, Tag
from imgcls.reporting import image_figures, prediction_figures
from imgcls.reporting.drawing import save_png
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import Prepared
from imgcls.runs.val_predictions import as_logits, recorded_fit, recorded_predictions
from imgcls.statistics.label_errors import label_errors
from imgcls.statistics.temperature import probabilities
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker
from imgcls.training.checkpoint import load_checkpoint

log = logging.getLogger(__name__)

NUM_MAPS = 12
"""Mistakes whose maps are drawn."""

NUM_TRAINING_IMAGES, NUM_TRAINING_EPOCHS = 24, 3
"""Training images that are drawn, and the first epochs from whose first batches they are taken."""

LAST_FIGURE = Artifact.VAL_CONFUSION_MATRIX
"""Written after all others: a run that has it has them all."""


def has_figures(kind: Kind, experiment: Experiment) -> bool:
    """Whether a run leaves its pictures when it ends; a sweep draws its winner's if they are not there."""
    figures = experiment.report.figures
    return figures == "all" or (figures == "winner" and kind == "train")


def write_val_figures(run: Run, prepared: Prepared, tracker: Tracker) -> None:
    """Draws a run's pictures from its kept weights and its predictions on val, and writes them into its record.

    Args:
        run: completed, or about to end as such.
        prepared: its experiment, with the images that it saw.
        tracker: where its record is.

    Raises:
        InputError: it left no weights or no predictions, or the weights are not those that it recorded.
    """
    log.info("drawing what run %s gets wrong on val", run.run_id)
    record = tracker.get(run.run_id)
    logits, temperature = as_logits(recorded_predictions(record, tracker)), recorded_fit(record, tracker).temperature
    val, names = prepared.dataset.val, prepared.dataset.class_names
    probs = probabilities(logits.logits, temperature)
    _write_training_sample(run, prepared)
    _write_maps(run, record, prepared, tracker, probs)
    pixels = _Rows(val)
    drawn = {
        Artifact.VAL_LABEL_ERRORS: partial(
            image_figures.likely_label_errors, pixels, val.labels, val.keys, names, label_errors(val.labels, probs)
        ),
        Artifact.VAL_MISTAKES: partial(image_figures.worst_mistakes, pixels, val.labels, probs, val.keys, names),
        Artifact.VAL_RELIABILITY: partial(prediction_figures.reliability_diagram, logits, temperature),
        LAST_FIGURE: partial(prediction_figures.confusion_matrix, logits.confusion(), names),
    }
    for name, draw in drawn.items():
        run.log_bytes(name, save_png(draw(), cut=False))


def _write_training_sample(run: Run, prepared: Prepared) -> None:
    task, data = prepared.task_of_seen_images(), prepared.experiment.data
    epochs = min(NUM_TRAINING_EPOCHS, task.config.epochs)
    images, targets = [], []
    for epoch in range(epochs):
        views, labels = task.augmented(next(task.train.shuffled(task.config.seed, epoch)), epoch, 0)
        num = NUM_TRAINING_IMAGES // epochs
        images.append(views[:num].float().cpu())
        one_hot = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels, task.num_classes)
        targets.append(one_hot[:num].float().cpu())
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    levels = ((torch.cat(images) * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    figure = image_figures.training_sample(levels.numpy(), torch.cat(targets).numpy(), prepared.dataset.class_names)
    run.log_bytes(Artifact.TRAINING_SAMPLE, save_png(figure, cut=False))


def _write_maps(run: Run, record: RunRecord, prepared: Prepared, tracker: Tracker, probs: NDArray[np.float64]) -> None:
    val = prepared.dataset.val
    rows = image_figures.surest_mistakes(val.labels, probs)[:NUM_MAPS]
    if not len(rows):
        run.set_tags({Tag.NO_GRAD_CAM: "no val image was predicted wrong"})
        return
    try:
        maps = _maps(record, prepared, tracker, rows, probs[rows].argmax(axis=1))
    except NoMapError as error:
        run.set_tags({Tag.NO_GRAD_CAM: str(error)})
        log.info("%s", error)
        return
    figure = image_figures.worst_mistakes(
        _Rows(val), val.labels, probs, val.keys, prepared.dataset.class_names, maps=maps
    )
    run.log_bytes(Artifact.VAL_GRAD_CAM, save_png(figure, cut=False))


def _maps(
    record: RunRecord, prepared: Prepared, tracker: Tracker, rows: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Grad-CAM of val images for the classes that they are taken for: float32 (M, h, w)."""
    device, val = prepared.device, prepared.dataset.val
    if prepared.has_folds:
        raise NoMapError("Grad-CAM has nothing to show: the models of several folds have no map together")
    network = device.place(prepared.model(with_weights=False)).eval()
    with tracker.fetch(record.run_id, Artifact.BEST) as path:
        checkpoint = load_checkpoint(path, device.torch_device, recorded_digest=record.tags.get(Tag.BEST_SHA256))
    network.load_state_dict(checkpoint["model"])
    images = torch.from_numpy(val.stored[val.at[rows]]).to(device.torch_device)
    with device.forward_context():
        normalised = prepared.normalise()(images)
        cams = grad_cam(prepared.with_views(network), normalised, torch.from_numpy(classes).to(device.torch_device))
    maps: NDArray[np.float32] = cams.maps.cpu().numpy()
    return maps


class _Rows:
    """The pixels of val, of which only the rows that are asked for are read."""

    def __init__(self, images: DecodedImages) -> None:
        self._images = images

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]:
        square: NDArray[np.uint8] = self._images.stored[self._images.at[[row]]][0]
        return square
