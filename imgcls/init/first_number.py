"""A first number before the sweep: the last layer alone is trained, on features of the pretrained network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imgcls.config.keys import Experiment
from imgcls.config.toml import as_options
from imgcls.data.orientations import orientations_to_store
from imgcls.errors import InputError
from imgcls.runs.head_only import check_head_only, kept_off
from imgcls.training.measured_pace import Pace

WANTED_SECONDS = 60.0
"""Seconds that computing the features may take; beyond them fewer views of each image are proposed."""

OF_A_HEAD = {"train.head_only": True, "train.epochs": 30, "train.lr": 1e-2}
"""Values with which a head is trained first; docs/head-only.md shows what they give."""

TURNED_OFF = ("augment.quarter_turns", "augment.vertical_flip", "augment.horizontal_flip")
"""Keys that are turned off in this order until the features take no longer than wanted."""

START_SECONDS = 15.0
"""Seconds of the run beside its features: the start, the epochs on features, the record."""


@dataclass(frozen=True)
class FirstNumber:
    """A run that gives a first number.

    Attributes:
        command: as it is typed.
        seconds: that it takes, about.
    """

    command: str
    seconds: float


def first_number(experiment: Experiment, pace: Pace, num_images: int, channels: int) -> FirstNumber | None:
    """The run of a proposed experiment that trains the head alone; None where that is impossible.

    Args:
        experiment: that is proposed.
        pace: measured with its values.
        num_images: of train and val.
        channels: C of its images.
    """
    values: dict[str, Any] = {**OF_A_HEAD, **kept_off(experiment)}
    try:
        check_head_only(experiment.replace(values), channels)
    except InputError:  # random weights, or a network without such a head
        return None
    for key in TURNED_OFF:
        if (seconds := _seconds(experiment.replace(values), pace, num_images)) <= WANTED_SECONDS:
            break
        if getattr(experiment.augment, key.removeprefix("augment.")):
            values[key] = False
    seconds = _seconds(experiment.replace(values), pace, num_images)
    return FirstNumber(f"imgcls train {experiment.name} {as_options(values)}", START_SECONDS + seconds)


def _seconds(experiment: Experiment, pace: Pace, num_images: int) -> float:
    """Seconds that the features take."""
    views, _ = orientations_to_store(experiment.augment, experiment.data.test_views)
    return len(views) * num_images * pace.val
