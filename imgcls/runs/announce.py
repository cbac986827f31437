"""What a verb says before it begins: the images, the device, the time it will take, and what to be warned of."""

import logging
from statistics import median

from imgcls.data.splits import Dataset
from imgcls.record import MetricName, Tag
from imgcls.reporting.cautions import cautions
from imgcls.reporting.images_overview import overview
from imgcls.reporting.methods_section import device_words
from imgcls.runs.prepare import Prepared
from imgcls.text import duration
from imgcls.tracking.recorded_looks import num_opened_before
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)


def announce(prepared: Prepared, tracker: Tracker, *, runs: str = "") -> None:
    """Announces what images were found and where they are computed, once, at the start of a verb that reads images.

    What is to be warned of is said in full where the record has no run of these images yet, and counted afterwards.
    `runs` is what is about to be trained, such as `20 trials`; earlier runs may tell how long that will take.
    """
    data = prepared.experiment.data
    if runs and prepared.has_folds:
        runs += f" of {prepared.dataset.num_folds} folds" + ("" if runs.startswith("1 ") else " each")
    place = str(prepared.project.images(data)) if data.source == "folder" else data.source
    if runs and (seconds := _seconds_expected(prepared, tracker)):
        each = "" if runs.startswith("1 ") else " each"
        about = duration(seconds) if seconds >= 1 else f"{seconds:.1g} s"
        runs += f", about {about} of training{each}, going by the newest runs of this experiment"
    device = prepared.device.place_name if _is_open(prepared) else device_words(str(prepared.device))
    log.info("%s", overview(prepared.dataset, place, device, work=runs))
    if runs:
        num_opened = num_opened_before(tracker, *prepared.dataset.of_train_and_val)
        for sentence in cautions({Tag.NUM_OPENED_BEFORE: str(num_opened)}):
            log.warning("%s", sentence)
    if prepared.warnings:
        _warn(prepared, tracker)


def _warn(prepared: Prepared, tracker: Tracker) -> None:
    """Gives the warnings of the images in full, or says in which run they were given before."""
    newest = tracker.find(_images_tags(prepared.dataset), newest=NUM_NEWEST)
    fit = prepared.experiment.data.fit
    # Earlier versions had no warning of ends that are cut off.
    told = [record for record in newest if Tag.SQUARES in record.tags and record.params.get("data.fit") == fit]
    if not told:
        for warning in prepared.warnings:
            log.warning("%s", warning)
        return
    given = "1 warning was" if len(prepared.warnings) == 1 else f"{len(prepared.warnings)} warnings were"
    run = told[0].run_id + (", or before" if len(newest) == NUM_NEWEST else "")
    log.info("%s given when these images were first used (in run %s)", given, run)


NUM_NEWEST = 20
"""Runs of the same images that are looked through, the newest, since a store may hold thousands."""


def _images_tags(dataset: Dataset) -> dict[str, str]:
    """Tags that every run of the same images has."""
    test = {} if dataset.test is None else {Tag.TEST_FINGERPRINT: dataset.test.fingerprint()}
    return {Tag.DATA_FINGERPRINT: dataset.fingerprint, **test}


def _is_open(prepared: Prepared) -> bool:
    """Whether the number of threads is measured only when a run begins."""
    return prepared.experiment.train.threads == "auto"


def _seconds_expected(prepared: Prepared, tracker: Tracker) -> float:
    """What an epoch took in the newest runs of the same images and device, times the epochs; 0 where there are none.

    With folds, times the folds as well.
    """
    experiment = prepared.experiment
    tags = {Tag.DATA_FINGERPRINT: prepared.dataset.fingerprint}
    # The store cannot search for every device's name.
    newest = tracker.find(tags, experiment=experiment.name, newest=NUM_NEWEST)
    device = f"{prepared.device.place_name}, " if _is_open(prepared) else str(prepared.device)
    earlier = [record for record in newest if (record.device or "").startswith(device)]
    took = [seconds for record in earlier if (seconds := record.metrics.get(MetricName.EPOCH_SECONDS))]
    return median(took) * experiment.train.last_epoch * experiment.data.num_models if took else 0.0
