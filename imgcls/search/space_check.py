"""Refuses a search space before it is searched, where some of its values are impossible."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgcls.config.keys import Experiment
from imgcls.errors import ConfigError, InputError
from imgcls.models.registry import resolve_model
from imgcls.search import space as spaces

SPACE = "search.space"

MOST_PAIRS = 4_000
"""Pairs of values of two keys that are tried before a sweep begins, in seconds; of ranges with more, only the ends."""


def check_space(experiment: Experiment, root: Path) -> None:
    """Refuses now what would fail in the middle of the night: impossible values, and pairs of values."""
    channels = 1 if experiment.data.channels == 1 else 3
    checked = set()
    for values in (*single_values(experiment), *_pairs_of_values(experiment)):
        changed = experiment.replace(values, origin=SPACE)
        network = changed.model, changed.data.image_size
        if network not in checked:
            checked.add(network)
            with _naming(values):
                resolve_model(changed.model, channels, changed.data.image_size, root=root)


def single_values(experiment: Experiment) -> Iterator[spaces.Values]:
    """Each value of each searched key that has to be checked, by itself."""
    for key, options in experiment.search.space.items():
        yield from ({key: value} for value in spaces.to_be_checked(key, options))


def _pairs_of_values(experiment: Experiment) -> Iterator[spaces.Values]:
    """Only keys of one table, and the network and its image size, can rule each other out."""
    for (one, of_one), (other, of_other) in itertools.combinations(experiment.search.space.items(), 2):
        if _table(one) == _table(other):
            firsts, seconds = spaces.to_be_checked(one, of_one), spaces.to_be_checked(other, of_other)
            if len(firsts) * len(seconds) > MOST_PAIRS:
                firsts, seconds = spaces.extremes(of_one), spaces.extremes(of_other)
            yield from ({one: first, other: second} for first, second in itertools.product(firsts, seconds))


def _table(key: str) -> str:
    return "model" if key == "data.image_size" else key.partition(".")[0]


@contextmanager
def _naming(values: spaces.Values) -> Iterator[None]:
    """Adds a pair of values of the search space to the error that it causes."""
    try:
        yield
    except InputError as error:
        if len(values) == 1:
            raise
        pair = " with ".join(f"{key} = {value!r}" for key, value in values.items())
        raise ConfigError(f"{SPACE}: {pair} is impossible: {error}") from error


def pruner_warmup_of(resolved: Experiment) -> int:
    """Epochs that the pruner leaves every trial: no fewer than the longest warm-up."""
    longest = spaces.longest_warmup(resolved)
    asked = resolved.search.pruner_warmup_epochs
    if asked == "auto":
        return longest + 1
    if asked < longest:
        raise ConfigError(
            f"search.pruner_warmup_epochs = {asked} would judge trials whose warm-up of up to {longest} epochs "
            f'is not over; give at least {longest}, or "auto"'
        )
    return asked
