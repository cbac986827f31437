"""The only place that reaches Optuna's private parts: a trial's id, and the values that a trial was enqueued with."""

from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, Trial

PLANNED = "fixed_params"
"""System attribute of a trial: the values that `Study.enqueue_trial` was given."""


def attach(study: Study, number: int) -> Trial:
    """By Optuna's internals, a trial that has begun; the public interface gives one only to whoever asked for it."""
    trial = next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
    return Trial(study, trial._trial_id)


def planned_values(trial: FrozenTrial) -> dict[str, Any]:
    """From Optuna's internals: the values a trial was enqueued with, dotted key -> value; empty where it was not."""
    return dict(trial.system_attrs.get(PLANNED, {}))


def plan_otherwise(study: Study, number: int, values: Mapping[str, Any]) -> None:
    """In Optuna's internals: replaces the values a trial was enqueued with, as far as it has not taken them yet."""
    trial = attach(study, number)
    trial.storage.set_trial_system_attr(trial._trial_id, PLANNED, dict(values))
