"""Which params of an experiment its network, augmentation and training use, and which of them say what a run trains."""

import functools
import json
from collections.abc import Iterable, Mapping

from imgcls.config.key_names import ADDED, NOT_COUNTED
from imgcls.config.keys import Experiment
from imgcls.data.augment import unused_augment_keys
from imgcls.errors import ConfigError
from imgcls.models.registry import added_model_keys, unused_model_keys


def used_params(params: Mapping[str, str]) -> dict[str, str]:
    """The params in use: all but those that the network, augmentation, optimizer or loss ignores, whatever they say.

    What a sweep searches counts as used. The artifact `config.toml` has every key.

    Args:
        params: of a resolved experiment, as `Experiment.params` gives them, or of a run as recorded.
    """
    unused = {*_unused_of_model(params), *_unused_of_augment(params), *_unused_of_train(params)}
    searched = {key for key in unused if f"search.space.{key}" in params}
    return {key: value for key, value in params.items() if key not in unused - searched}


def with_added(params: Mapping[str, str]) -> dict[str, str]:
    """Params as a run recorded them, and the defaults of keys that came later: what earlier versions did."""
    return {**_added_defaults(), **params}


@functools.cache
def _added_defaults() -> Mapping[str, str]:
    unset = Experiment(name="any").params()
    return {key: unset[key] for key in ADDED}


def keys_without_effect(params: Iterable[str]) -> list[str]:
    """The keys that change no score of a single run: those only reported, and of `[search]` all but the metric."""
    return [key for key in params if key in NOT_COUNTED or (key.startswith("search.") and key != "search.metric")]


def work_hash(experiment: Experiment) -> str:
    """The digest of what a run trains: equal on every machine and in every sweep."""
    params = experiment.params()
    return experiment.config_hash(without=[*(params.keys() - described_work(params).keys())])


SHARE_OF_THE_MACHINE = ("train.device", "train.threads")
"""Keys that say which part of a machine a run has: a trial's are those that its worker gets."""


def described_work(params: Mapping[str, str]) -> dict[str, str]:
    """The params that describe what a run trains, which are equal wherever it is trained, and in whichever sweep.

    Args:
        params: of a resolved experiment, as `Experiment.params` gives them, or of a run as recorded.
    """
    left_out = {*keys_without_effect(with_added(params)), *SHARE_OF_THE_MACHINE}
    return {key: value for key, value in with_added(params).items() if key not in left_out}


def _unused_of_model(params: Mapping[str, str]) -> list[str]:
    name = params.get("model.name", "")
    try:
        unused, added = unused_model_keys(name), added_model_keys(name)
    except ConfigError:  # a network that this version does not know
        return []
    unset = [key for key, default in added.items() if params.get(f"model.{key}") == str(default)]
    return [f"model.{key}" for key in (*unused, *unset)]


def _unused_of_augment(params: Mapping[str, str]) -> list[str]:
    low, high = json.loads(params.get("augment.random_resized_crop", "[0, 1]"))
    keys = unused_augment_keys(has_crop=(low, high) != (1, 1), is_grey=params.get("data.channels") == "1")
    return [f"augment.{key}" for key in keys]


USED_WITH = {
    "train.momentum": ("train.optimizer", "sgd"),
    "train.focal_gamma": ("train.loss", "focal"),
    "train.logit_adjustment": ("train.loss", "logit_adjusted"),
}
"""Keys of [train] that are used only where another key has a value -> that key and the value."""


def _unused_of_train(params: Mapping[str, str]) -> list[str]:
    """A sweep that searches the other key may use them in some of its trials."""
    return [
        key
        for key, (other, value) in USED_WITH.items()
        if params.get(other) != value and f"search.space.{other}" not in params
    ]
