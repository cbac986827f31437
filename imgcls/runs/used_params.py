"""Which params of an experiment its network and its augmentation use: those that MLflow shows of a run."""

import json
from collections.abc import Mapping

from imgcls.data.augment import unused_augment_keys
from imgcls.errors import ConfigError
from imgcls.models.registry import unused_model_keys


def used_params(params: Mapping[str, str]) -> dict[str, str]:
    """The params in use: all but those that the network or the augmentation ignores, whatever they say.

    What a sweep searches counts as used. The artifact `config.toml` has every key.

    Args:
        params: of a resolved experiment, as `Experiment.params` gives them, or of a run as recorded.
    """
    unused = {*_unused_of_model(params), *_unused_of_augment(params)}
    searched = {key for key in unused if f"search.space.{key}" in params}
    return {key: value for key, value in params.items() if key not in unused - searched}


def _unused_of_model(params: Mapping[str, str]) -> list[str]:
    try:
        return [f"model.{key}" for key in unused_model_keys(params.get("model.name", ""))]
    except ConfigError:  # a network that this version does not know
        return []


def _unused_of_augment(params: Mapping[str, str]) -> list[str]:
    low, high = json.loads(params.get("augment.random_resized_crop", "[0, 1]"))
    keys = unused_augment_keys(has_crop=(low, high) != (1, 1), is_grey=params.get("data.channels") == "1")
    return [f"augment.{key}" for key in keys]
