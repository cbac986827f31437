"""The model of a run, from its record: weights, classes, preprocessing and temperature of the epoch that is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imgcls.config.keys import Experiment
from imgcls.data.augment import Normalise
from imgcls.data.preprocessing import Preprocessing
from imgcls.data.sources import native_side
from imgcls.data.train_side import decode_side
from imgcls.errors import InputError
from imgcls.inference.classifier import Classifier
from imgcls.inference.sealed_images import sealed_images
from imgcls.models.ensemble import Ensemble
from imgcls.models.registry import build_models
from imgcls.models.views import with_views
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import recorded_squares
from imgcls.runs.rebuild import best_checkpoint, on_this_machine, recorded_experiment
from imgcls.runs.val_predictions import recorded_fit
from imgcls.statistics.temperature import probabilities
from imgcls.tracking.store import Tracker
from imgcls.training.device import Device, prepare_device

log = logging.getLogger(__name__)


class RunModel(Classifier):
    """A run's model under torch, in the precision in which the run was scored.

    Args:
        record: of a completed run.
        experiment: the resolved one that it recorded.
        checkpoint: content of its `best.pt`.
        preprocessing: of its val images.
        temperature: fitted on val.
        device: where to compute.
        tracker: where the run is.

    Attributes:
        record: of the run.
        experiment: the resolved one.
        network: the trained network in evaluation mode, on the device: float32 (B, C, S, S) -> logits (B, K), the mean
            over `data.test_views`. Of a run in folds, the `Ensemble` of the networks of all folds.

    Raises:
        InputError: weights that do not fit the recorded network.
    """

    def __init__(
        self,
        record: RunRecord,
        experiment: Experiment,
        checkpoint: Mapping[str, Any],
        preprocessing: Preprocessing,
        temperature: float,
        device: Device,
        tracker: Tracker,
    ) -> None:
        self.record, self.experiment = record, experiment
        self.seal = partial(sealed_images, record, tracker)
        self.run_id, self.class_names = record.run_id, tuple(checkpoint["class_names"])
        self.preprocessing, self.temperature = preprocessing, temperature
        network = build_models(
            record.num_folds,
            experiment.model,
            num_classes=len(self.class_names),
            channels=preprocessing.channels,
            image_size=preprocessing.image_size,
            seed=0,
            with_weights=False,
        )
        try:
            network.load_state_dict(checkpoint["model"])
        except (KeyError, RuntimeError) as error:
            raise InputError(f"the checkpoint of run {record.run_id} does not fit its config: {error}") from error
        self.network = device.place(with_views(network, experiment.data.test_views)).eval()
        self._device = device
        self._normalise = Normalise(preprocessing.mean, preprocessing.std, device.torch_device)

    def members(self) -> list[RunModel]:
        """The models of the single folds, of a run in folds; the first is that of fold 1."""
        networks = self.network.members if isinstance(self.network, Ensemble) else ()
        models = []
        for network in networks:
            model = copy.copy(self)
            model.network = network
            models.append(model)
        return models

    def logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (B, K) of squares uint8 (B, C, S, S)."""
        images = torch.from_numpy(squares).to(self._device.torch_device)
        with torch.inference_mode(), self._device.forward_context():
            logits: NDArray[np.float32] = self.network(self._normalise(images)).float().cpu().numpy()
        return logits

    def probs(self, squares: NDArray[np.uint8], *, raw: bool = False) -> NDArray[np.float64]:
        """See `Classifier.probs`."""
        return probabilities(self.logits(squares), 1.0 if raw else self.temperature)


def load_run_model(record: RunRecord, tracker: Tracker) -> RunModel:
    """Loads the model of a completed run; what an earlier version did not record is derived, and said.

    Raises:
        InputError: a run without checkpoint or config, or one whose preprocessing cannot be derived.
    """
    experiment = on_this_machine(recorded_experiment(record.run_id, tracker))
    checkpoint = best_checkpoint(record, tracker)
    if "preprocessing" in checkpoint:
        preprocessing, temperature = Preprocessing.from_plain(checkpoint["preprocessing"]), checkpoint["temperature"]
    else:
        preprocessing = _derived_preprocessing(record, experiment, tracker)
        temperature = recorded_fit(record, tracker).temperature
        log.info(
            "the checkpoint of run %s was written by an earlier version: its squares (format %d, side %d) follow from "
            "its config, and its temperature, %.3g, %s",
            record.run_id, preprocessing.squares, preprocessing.decode_side, temperature,
            "from its record" if record.temperature else "is fitted now on its recorded val predictions",
        )  # fmt: skip
    device = prepare_device(experiment.train)
    return RunModel(record, experiment, checkpoint, preprocessing, temperature, device, tracker)


def _derived_preprocessing(record: RunRecord, experiment: Experiment, tracker: Tracker) -> Preprocessing:
    data, squares = experiment.data, recorded_squares(record)
    if data.channels == "auto" or data.mean == "auto" or data.std == "auto":
        raise InputError(f"run {record.run_id} does not record its channels, mean and deviation; train it again")
    side = data.image_size
    if squares < 2:
        side = decode_side(side, experiment.augment, native_side(data, tracker.project.images(data)))
    return Preprocessing(data.channels, data.image_size, data.fit, data.mean, data.std, squares, side)
