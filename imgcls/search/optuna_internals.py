"""The only place that reaches Optuna's private parts: ids, storages, and the values that a trial was enqueued with."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

PLANNED = "fixed_params"
"""System attribute of a trial: the values that `Study.enqueue_trial` was given."""


def attach(study: Study, number: int) -> Trial:
    """By Optuna's internals, a trial that has begun; the public interface gives one only to whoever asked for it."""
    return Trial(study, _id(study, number))


def as_attached(trial: Trial) -> FrozenTrial:
    """By Optuna's internals, a trial as it was when `attach` gave it, which has read it."""
    return trial._cached_frozen_trial


def read(study: Study, number: int) -> FrozenTrial:
    """By Optuna's internals, one trial as it is now; to read all of them takes a server several times as long."""
    return study._storage.get_trial(_id(study, number))


def set_user_attrs(study: Study, number: int, attrs: Mapping[str, Any]) -> None:
    """By Optuna's internals, sets attributes of a trial without reading it first, which `attach` does."""
    trial_id = _id(study, number)
    for key, value in attrs.items():
        study._storage.set_trial_user_attr(trial_id, key, value)


def _id(study: Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def storage_of(study: Study) -> BaseStorage:
    """By Optuna's internals, the storage of a study."""
    return study._storage


def study_id_of(study: Study) -> int:
    """In Optuna's internals: the id by which the storage knows a study."""
    return study._study_id


def id_of(trial: FrozenTrial) -> int:
    """In Optuna's internals: the id by which the storage knows a trial."""
    return trial._trial_id


def begin(study: Study, number: int, trials: Sequence[FrozenTrial]) -> None:
    """By Optuna's internals, begins the trial of a number: one that was enqueued, or a new one without values.

    The caller sees to it that no other process begins one at the same time, and passes the study's trials.
    """
    storage = study._storage
    if enqueued := [trial._trial_id for trial in trials if trial.number == number]:
        storage.set_trial_state_values(enqueued[0], TrialState.RUNNING)
    else:
        storage.create_new_trial(study._study_id)


def is_planned(trial: FrozenTrial) -> bool:
    """By Optuna's internals, whether a trial was given its values; it was not if its process died after it began."""
    return PLANNED in trial.system_attrs


def planned_values(trial: FrozenTrial) -> dict[str, Any]:
    """From Optuna's internals: the values a trial was enqueued with, dotted key -> value; empty where it was not."""
    return dict(trial.system_attrs.get(PLANNED, {}))


def plan_otherwise(study: Study, number: int, values: Mapping[str, Any]) -> None:
    """In Optuna's internals: replaces the values a trial was enqueued with, as far as it has not taken them yet."""
    study._storage.set_trial_system_attr(_id(study, number), PLANNED, dict(values))
