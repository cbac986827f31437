"""The search space of an experiment, in Optuna's terms."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import optuna

from imgcls.config import Experiment, Range, Scalar
from imgcls.errors import ConfigError

Space = Mapping[str, Range | tuple[Scalar, ...]]
Values = dict[str, Any]


def suggest(trial: optuna.Trial, space: Space) -> Values:
    """Lets the trial's sampler choose a value for every key."""
    return {key: _suggest_one(trial, key, options) for key, options in space.items()}


def _suggest_one(trial: optuna.Trial, key: str, options: Range | tuple[Scalar, ...]) -> Scalar:
    if not isinstance(options, Range):
        value = trial.suggest_categorical(key, options)
        assert value is not None
        return value
    if options.whole:
        return trial.suggest_int(key, int(options.low), int(options.high), step=int(options.step or 1), log=options.log)
    return trial.suggest_float(key, float(options.low), float(options.high), step=options.step, log=options.log)


def own_values(resolved: Experiment, space: Space) -> Values:
    """The experiment's own values of the searched keys, which trial 0 runs.

    Raises:
        ConfigError: a value that lies outside its own search space.
    """
    own: Values = {}
    for key, options in space.items():
        section, _, field = key.partition(".")
        value = getattr(getattr(resolved, section), field)
        inside = options.low <= value <= options.high if isinstance(options, Range) else value in options
        if not inside:
            what = f"{options.low} to {options.high}" if isinstance(options, Range) else f"{list(options)}"
            raise ConfigError(
                f"{key} = {value!r} lies outside its search.space ({what}); "
                "trial 0 runs the experiment's own values, so change one of the two"
            )
        own[key] = value
    return own


def grid(space: Space) -> list[Values]:
    """Every combination, the last key changing fastest.

    Raises:
        ConfigError: a continuous range, which has no grid.
    """
    columns = []
    for key, options in space.items():
        if not isinstance(options, Range):
            columns.append(options)
        elif options.whole and not options.log:
            columns.append(tuple(range(int(options.low), int(options.high) + 1, int(options.step or 1))))
        elif options.step is not None:
            count = int((options.high - options.low) / options.step + 1e-9) + 1
            columns.append(tuple(options.low + i * options.step for i in range(count)))
        else:
            raise ConfigError(
                f'search.space: {key} is a continuous range, which search.sampler = "grid" cannot walk; '
                "list its values, or give it a step"
            )
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]


def extremes(options: Range | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """The values between which, or among which, every trial's lies."""
    return (options.low, options.high) if isinstance(options, Range) else options


def longest_warmup(resolved: Experiment) -> int:
    """The most warm-up epochs that any trial can have."""
    options = resolved.search.space.get("train.warmup_epochs")
    if isinstance(options, Range):
        return int(options.high)
    if options is not None:
        return max(int(value) for value in options)
    return resolved.train.warmup_epochs


def describe(options: Range | tuple[Scalar, ...]) -> str:
    """For people: `1e-4 to 1e-2, log` or `10, 18, 34`."""
    if not isinstance(options, Range):
        return ", ".join(map(str, options))
    extras = (", log" if options.log else "") + (f", step {options.step:g}" if options.step else "")
    return f"{options.low:g} to {options.high:g}{extras}"
