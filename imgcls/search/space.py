"""The search space of an experiment, in Optuna's terms."""

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from imgcls.config.keys import Experiment
from imgcls.config.ranges import Options, Range, Scalar
from imgcls.config.toml import as_options
from imgcls.errors import ConfigError, InputError
from imgcls.models.registry import resolve_model
from imgcls.project import Project
from imgcls.runs.head_only import check_head_only
from imgcls.runs.prepare import check_network
from imgcls.search.halving import Rungs

SPACE = "search.space"
"""Table of an experiment file that holds the search space."""

Space = Mapping[str, Options]
Values = dict[str, Any]


def draw(trial: optuna.Trial, space: Space) -> Values:
    """Draws a value of the search space for every key, in the decimals that the space is written in."""
    return {key: as_written(options, _suggest_one(trial, key, options)) for key, options in space.items()}


def suggest(trial: optuna.Trial, space: Space) -> Values:
    """The search space's values for one trial, which were planned beforehand: takes them from the study."""
    return {key: _suggest_one(trial, key, options) for key, options in space.items()}


def _suggest_one(trial: optuna.Trial, key: str, options: Options) -> Scalar:
    if not isinstance(options, Range):
        return trial.suggest_categorical(key, options)  # type: ignore[return-value]  # no option is None
    if options.whole:
        return trial.suggest_int(key, int(options.low), int(options.high), step=int(options.step or 1), log=options.log)
    return trial.suggest_float(key, float(options.low), float(options.high), step=options.step, log=options.log)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The search space in Optuna's terms, key by key."""
    return {key: _distribution(options) for key, options in space.items()}


def _distribution(options: Options) -> BaseDistribution:
    if not isinstance(options, Range):
        return CategoricalDistribution(options)
    if options.whole:
        return IntDistribution(int(options.low), int(options.high), step=int(options.step or 1), log=options.log)
    return FloatDistribution(float(options.low), float(options.high), step=options.step, log=options.log)


def known(values: Values, space: Space) -> Values:
    """Values as the search space writes them, without those that it does not hold."""
    found: Values = {}
    for key, value in values.items():
        with suppress(ValueError, KeyError):
            found[key] = as_written(space[key], value)
    return found


def value_at(options: Options, share: float) -> Scalar:
    """The search space's value of one key at a share of its range, or list; equal parts of [0, 1] are equally likely.

    Args:
        options: of the key.
        share: in [0, 1].
    """
    if not isinstance(options, Range):
        return options[min(int(share * len(options)), len(options) - 1)]
    if options.num_values is not None:
        return options.value(min(int(share * options.num_values), options.num_values - 1))
    low, high = _ends(options)
    value = low + share * (high - low)
    value = math.exp(value) if options.log else value
    return min(max(round(value) if options.whole else value, options.low), options.high)


def share_of(options: Range, value: float) -> float:
    """The share of its range, in [0, 1], at which the search space has a value; the middle of the share of a step."""
    if options.num_values is not None:
        return (options.nearest_index(value) + 0.5) / options.num_values
    low, high = _ends(options)
    return ((math.log(value) if options.log else value) - low) / (high - low)


def _ends(options: Range) -> tuple[float, float]:
    """Of a range without steps, as evenly as it is drawn: whole numbers have half a step on both sides."""
    low, high = float(options.low), float(options.high)
    if options.whole:
        low, high = low - 0.5, high + 0.5
    return (math.log(low), math.log(high)) if options.log else (low, high)


def as_written(options: Options, value: object) -> Scalar:
    """The search space's value that equals `value` up to floating point's rounding.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(options, Range):
        found = next((option for option in options if _is_same(option, value)), None)
    else:
        found = _in_range(options, value)
    if found is None:
        raise ValueError(f"{value!r} is not in its search.space ({describe(options)})")
    return found


def _is_same(option: Scalar, value: object) -> bool:
    return option == value and isinstance(option, bool) == isinstance(value, bool)  # 1 == True


def _in_range(options: Range, value: object) -> Scalar | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    if options.num_values is None:
        ends = (end for end in (options.low, options.high) if math.isclose(value, end, rel_tol=ROUNDING))
        near: int | float = next(ends, min(max(value, options.low), options.high))
    else:
        near = options.value(min(max(options.nearest_index(value), 0), options.num_values - 1))
    allowed = ROUNDING * max(abs(options.low), abs(options.high))
    return near if abs(near - value) <= allowed and (not options.whole or near == value) else None


ROUNDING = 1e-12
"""Largest error that floating point may add to a value written in decimals, as a share of its range's larger end."""


def own_values(resolved: Experiment, space: Space) -> Values:
    """The search space's keys with the values that the experiment itself gives them, which trial 0 runs.

    Raises:
        ConfigError: every value that lies outside its own search space, or between two of its steps.
    """
    own: Values = {key: value_of(resolved, key) for key in space}
    if outside := {key: value for key, value in own.items() if value not in space[key]}:
        each = (
            f"{key} = {value!r} lies outside its search.space ({describe(space[key])}){_neighbours(space[key], value)}"
            for key, value in outside.items()
        )
        wider = {f"{SPACE}.{key}": _widened(space[key], value) for key, value in outside.items()}
        raise ConfigError(
            f"{'; '.join(each)}; trial 0 runs the experiment's own values, so change one of the two, such as with "
            f"{as_options(wider)}"
        )
    return own


def value_of(experiment: Experiment, key: str) -> Any:
    """The value that an experiment itself has for a key of a search space."""
    section, _, field = key.partition(".")
    return getattr(getattr(experiment, section), field)


def _widened(options: Options, value: Any) -> Options:
    """The search space of a key, with one more value."""
    if not isinstance(options, Range):
        return (*options, value)
    if options.step is not None or (options.log and value <= 0):
        return (options.low, value, options.high)
    return Range(low=min(options.low, value), high=max(options.high, value), log=options.log)


def _neighbours(options: Options, value: Any) -> str:
    """The two steps between which a value lies."""
    if not isinstance(options, Range) or options.num_values is None or not options.low < value < options.high:
        return ""
    index = options.nearest_index(value)
    below = index if options.value(index) < value else index - 1
    return f": between {options.value(below)!r} and {options.value(below + 1)!r}"


def grid(space: Space, most: int | None = None) -> list[Values]:
    """The search space as a grid: every combination of its values, the last key changing fastest.

    Args:
        space: lists, and ranges that have steps.
        most: combinations to return at most, since a grid may have billions; None for all.
    """
    size = grid_size(space)
    return [_grid_point(space, number) for number in range(size if most is None else min(size, most))]


def grid_size(space: Space, own: Values | None = None) -> int:
    """The search space's size as a grid: the number of combinations of its values.

    Args:
        space: lists, and ranges that have steps.
        own: the experiment's own values, which the remedy of an error proposes to keep.

    Raises:
        ConfigError: a continuous or a logarithmic range, which has no grid.
    """
    if endless := {key: of for key, of in space.items() if isinstance(of, Range) and of.num_values is None}:
        kinds = (f"{key} is a {'logarithmic' if of.whole else 'continuous'} range" for key, of in endless.items())
        lists = {f"{SPACE}.{key}": _few_values(of, (own or {}).get(key, of.low)) for key, of in endless.items()}
        raise ConfigError(
            f'{SPACE}: {", ".join(kinds)}, which search.sampler = "grid" cannot walk; give it a step, or list its '
            f"values, such as with {as_options(lists)}"
        )
    return math.prod(_length(options) for options in space.values())


def _few_values(options: Range, own: Scalar) -> tuple[Scalar, ...]:
    return tuple(sorted({options.low, own, options.high}))


def _grid_point(space: Space, number: int) -> Values:
    point: Values = {}
    for key, options in reversed(list(space.items())):
        number, index = divmod(number, _length(options))
        point[key] = options.value(index) if isinstance(options, Range) else options[index]
    return {key: point[key] for key in space}


def _length(options: Options) -> int:
    if not isinstance(options, Range):
        return len(options)
    assert options.num_values is not None  # `grid_size` refuses ranges without steps
    return options.num_values


def extremes(options: Options) -> tuple[Scalar, ...]:
    """The search space's extremes for one key: the ends of its range, or every listed value."""
    return (options.low, options.high) if isinstance(options, Range) else options


def to_be_checked(key: str, options: Options) -> tuple[Scalar, ...]:
    """The search space's values of one key from which it can be told whether all of them are possible.

    For most keys these are the least and the greatest. A network may be possible with both and impossible in between.
    """
    is_of_network = key.startswith(("model.", "data."))
    if isinstance(options, Range):
        if is_of_network and (options.num_values or math.inf) <= MOST_CHECKED:
            return tuple(options.value(index) for index in range(options.num_values or 0))
        return extremes(options)
    if is_of_network or not all(type(option) in (int, float) for option in options):
        return options
    return tuple(dict.fromkeys((min(options), max(options))))


MOST_CHECKED = 256
"""Most values of one range that are tried before a sweep begins; of a range with more, only its ends are."""


def describe(options: Options) -> str:
    """The search space of one key in words: `1e-4 to 1e-2, log` or `10, 18, 34`."""
    if not isinstance(options, Range):
        return ", ".join(map(str, options))
    extras = (", log" if options.log else "") + (f", step {_short(options.step)}" if options.step else "")
    return f"{_short(options.low)} to {_short(options.high)}{extras}"


def _short(number: float) -> str:
    return repr(number).removesuffix(".0")


# --- before a sweep begins: is every value possible? ---

MOST_PAIRS = 4_000
"""Most pairs of values of two keys that are tried before a sweep begins; of ranges with more, only the ends are."""


def check_space(experiment: Experiment, project: Project) -> None:
    """Refuses a search space with impossible values, or pairs of values, before a trial fails in the night."""
    channels = 1 if experiment.data.channels == 1 else 3
    for key in FIRST_EPOCHS:
        _check_first_epochs(experiment, key)
    _check_heads(experiment, channels)
    checked = set()
    for values in (*single_values(experiment), *_pairs_of_values(experiment)):
        changed = experiment.replace(values, origin=SPACE)
        network = changed.model, changed.data.image_size
        if network not in checked:
            checked.add(network)
            is_listed = len(values) == 1 and not isinstance(experiment.search.space[min(values)], Range)
            try:
                resolve_model(changed.model, channels, changed.data.image_size)
                project.weights(changed.model)
                if is_listed:  # a range may have hundreds of values, and building takes time
                    check_network(changed, project)
            except InputError as error:
                remedy = error.remedy if isinstance(error, ConfigError) else {}
                if len(values) == 1 and not remedy.keys() & values.keys():
                    raise
                raise _impossible(values, error) from error


def _impossible(values: Values, error: InputError) -> ConfigError:
    """The error of values of the search space, which no override of a single key mends."""
    is_remedy_apart = isinstance(error, ConfigError) and error.remedy and "\n" in str(error)
    why = str(error).rpartition("\n")[0] if is_remedy_apart else str(error)
    given = " with ".join(f"{key} = {value!r}" for key, value in values.items())
    return ConfigError(f"{SPACE}: {given} is impossible: {why}; take it out of the search space")


HEAD_ONLY = "train.head_only"


def _check_heads(experiment: Experiment, channels: int) -> None:
    """Refuses what cannot be where trials train the head of a network alone."""
    may_be = {HEAD_ONLY: True} if True in extremes(experiment.search.space.get(HEAD_ONLY, (False,))) else {}
    for values in ({}, *single_values(experiment)):
        given = {**may_be, **values}
        changed = experiment.replace(given, origin=SPACE)
        try:
            check_head_only(changed, channels)
        except InputError as error:
            if not given:
                raise
            raise _impossible(given, error) from error


FIRST_EPOCHS = ("train.warmup_epochs", "train.freeze_epochs")
"""Keys whose values are epochs at the start of a trial, which must end within its epochs."""


def _check_first_epochs(experiment: Experiment, key: str) -> None:
    """Refuses warm-ups, or frozen epochs, that do not end within the epochs of every trial."""
    options, epochs = experiment.search.space.get(key), experiment.train.epochs
    if options is None or "train.epochs" in experiment.search.space or (longest := _longest(options)) < epochs:
        return
    shorter = as_options({f"{SPACE}.{key}": _below(options, epochs, value_of(experiment, key))})
    raise ConfigError(
        f"{SPACE}: {key} = {longest}: does not end within train.epochs = {epochs}; train for longer, or add {shorter}"
    )


def _below(options: Options, limit: int, own: int) -> Options:
    """The search space of a key of whole numbers, without what is not below a limit, and with the own value."""
    if isinstance(options, Range) and options.step is None and options.low <= own and options.low < limit - 1:
        return Range(low=options.low, high=limit - 1, log=options.log)
    return tuple(value for value in range(limit) if value == own or value in options)


def _longest(options: Options) -> int:
    return max(int(epochs) for epochs in extremes(options))


def single_values(experiment: Experiment) -> Iterator[Values]:
    """The search space's values that have to be checked, each by itself."""
    for key, options in experiment.search.space.items():
        yield from ({key: value} for value in to_be_checked(key, options))


def _pairs_of_values(experiment: Experiment) -> Iterator[Values]:
    """Only keys of one table, the network and its image size, and WEIGHTS_AND_FREEZE can rule each other out."""
    for (one, of_one), (other, of_other) in itertools.combinations(experiment.search.space.items(), 2):
        if _table(one) == _table(other) or {one, other} == WEIGHTS_AND_FREEZE:
            firsts, seconds = to_be_checked(one, of_one), to_be_checked(other, of_other)
            if len(firsts) * len(seconds) > MOST_PAIRS:
                firsts, seconds = extremes(of_one), extremes(of_other)
            yield from ({one: first, other: second} for first, second in itertools.product(firsts, seconds))


WEIGHTS_AND_FREEZE = {"model.weights", "train.freeze_epochs"}
"""Keys of two tables that can rule each other out, since random weights are never frozen."""


def _table(key: str) -> str:
    return "model" if key == "data.image_size" else key.partition(".")[0]


def pruner_warmup_of(resolved: Experiment) -> int:
    """The epochs of every trial that the pruner does not judge: the search space's longest warm-up or freeze, or more.

    Pause and promote takes a third of the epochs by default, and may judge before they are over: no trial ends by it.
    """
    longest = max(_longest(resolved.search.space.get(key, (value_of(resolved, key),))) for key in FIRST_EPOCHS)
    asked, pauses = resolved.search.pruner_warmup_epochs, resolved.search.pruner == "halving"
    if asked == "auto":
        return Rungs.latest_first(resolved.train.last_epoch) if pauses else longest + 1
    if asked < longest and not pauses:
        raise ConfigError(
            f"search.pruner_warmup_epochs = {asked} would judge trials whose warm-up of up to {longest} epochs, "
            f'or frozen start, is not over; give at least {longest}, or "auto"'
        )
    return asked
