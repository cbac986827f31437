"""The names of all tables and keys of an experiment file, found by a walk through the schema."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

ONLY_REPORTED = ("report.figures",)
"""Names of keys that change what is drawn and no score."""

NOT_COUNTED = (*ONLY_REPORTED, "train.checkpoint_epochs")
"""Names of keys that change no weight and no score: no digest of an experiment counts them."""

NOT_RECORDED = ("search.storage", "search.lease")
"""Names of keys that say how processes meet, and change nothing that is trained: no record and no digest has them."""

ADDED = (
    "search.warm_start", "search.processes_per_trial", "data.test_views", "train.average_epochs", "train.sampling",
    "train.loss", "train.focal_gamma", "train.logit_adjustment", "train.head_only", "train.optimizer", "train.momentum",
    "train.freeze_epochs", "train.backbone_lr_scale", "train.layer_decay",
)  # fmt: skip
"""Names of keys that came later. A digest of an experiment counts them only where they are not at their defaults, so
that what a version without them began goes on."""


class Section(BaseModel):
    """Key names are the names of its fields: the base class of every table of an experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Reported:
    """Names a key of [augment] that is on, in a report: after "Train images were augmented by"; `{}` is its value."""

    words: str


def fields_of(section: type[Section], table: str = "") -> Iterator[tuple[str, Any, str]]:
    """The names of a schema's keys and tables, in the order of the file: (dotted name, default, description), each."""
    for name, field in section.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield f"{table}{name}", default, field.description or ""
        if isinstance(default, Section):
            yield from fields_of(type(default), f"{table}{name}.")


@functools.cache
def known_keys(schema: type[Section]) -> tuple[str, ...]:
    """The dotted names of a schema's keys and of its tables, in the order of the file."""
    return tuple(key for key, _, _ in fields_of(schema))


@functools.cache
def value_keys(schema: type[Section]) -> tuple[str, ...]:
    """The dotted names of a schema's keys alone, without its tables, in the order of the file."""
    return tuple(key for key, default, _ in fields_of(schema) if not isinstance(default, Section))


def by_key(tree: Mapping[str, Any], schema: type[Section], table: str = "") -> Iterator[tuple[str, Any]]:
    """The names of the keys in the tables of a tree with their values: (dotted key, value), each.

    The search space is one value, and so is a table of unknown name.
    """
    for name, value in tree.items():
        key = f"{table}{name}"
        if isinstance(value, Mapping) and any(known.startswith(f"{key}.") for known in value_keys(schema)):
            yield from by_key(value, schema, f"{key}.")
        else:
            yield key, value
