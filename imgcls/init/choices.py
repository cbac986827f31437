"""The values of an experiment that suit a folder of images and this machine, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgcls.config.keys import Experiment
from imgcls.init.budget import Plan, arithmetic
from imgcls.init.look import FRACTIONS, Look
from imgcls.init.recipe import TINY_SIDE, Recipe
from imgcls.init.symmetry import Directed
from imgcls.metrics import ACCURACY, metric_named
from imgcls.text import counted, duration

UNEVEN = 3.0
"""Images of the largest class / of the smallest in train, from which on classes are uneven."""

MACRO_F1 = metric_named("val/macro_f1")

LEAST_EPOCHS_TO_WARM_UP, MOST_WARM_UP = 5, 2
"""Epochs from which on the warm-up is searched, and its longest."""

LEAST_EPOCHS_TO_REGULARISE = 10
"""Epochs from which on mixup may pay."""


@dataclass(frozen=True)
class Choice:
    """A value of an experiment that was chosen.

    Attributes:
        key: dotted.
        value: as TOML has it.
        reason: a sentence without its full stop; "" for one that needs none.
        is_question: it is proposed in a comment, because only the owner of the images knows.
    """

    key: str
    value: Any
    reason: str = ""
    is_question: bool = False


@dataclass(frozen=True)
class Proposal:
    """An experiment that is proposed for a folder.

    Attributes:
        choices: in the order of the file.
        plan: its trials and epochs.
        fits: whether they fit into the budget.
    """

    name: str
    choices: tuple[Choice, ...]
    plan: Plan
    budget: float

    @property
    def fits(self) -> bool:
        """Whether the sweep fits into the budget."""
        return self.plan.seconds <= self.budget

    @property
    def experiment(self) -> Experiment:
        """The experiment that the file holds."""
        values = {choice.key: choice.value for choice in self.choices if not choice.is_question}
        return Experiment(name=self.name).replace(values)


def propose(name: str, look: Look, recipe: Recipe, budget: float) -> Proposal:
    """Proposes an experiment for the images that were looked through and a budget in seconds."""
    plan = recipe.plan(budget, look.num_train, look.num_val)
    choices = (*_data(look, recipe), *_model(recipe), *_augment(look, recipe), *_train(look, recipe, plan),
               *_search(look, recipe, plan, budget))  # fmt: skip
    return Proposal(name, choices, plan, budget)


def _of(recipe: Recipe, *keys: str) -> Iterator[Choice]:
    """The recipe's own values of these keys, as far as it has them."""
    for key in keys:
        if key in recipe.values:
            yield Choice(key, recipe.values[key], recipe.reasons.get(key, ""))


def _data(look: Look, recipe: Recipe) -> Iterator[Choice]:
    data = look.data
    yield Choice("data.source", "folder")
    yield Choice("data.path", data.path, "relative to the folder that holds experiments/, or absolute")
    yield from _of(recipe, "data.image_size", "data.fit")
    if "data.channels" in recipe.values:
        yield from _of(recipe, "data.channels")
    elif look.are_grey and not recipe.values.get("model.weights"):
        yield Choice("data.channels", 1, "files are in colour by their mode, but no train image has a colour")
    if data.follow_symlinks:
        yield Choice("data.follow_symlinks", True, "as you asked")
    if (data.val_fraction, data.test_fraction) != FRACTIONS[0]:
        why = "so few images that smaller shares would leave a split empty; scores will say little"
        yield Choice("data.val_fraction", data.val_fraction, why)
        if look.found.source.everything is not None:
            no_test = "too few images for a test split; the score on val alone chooses and tells" * (
                not data.test_fraction
            )
            yield Choice("data.test_fraction", data.test_fraction, no_test)
    if look.unreadable:
        yield Choice(
            "data.skip_unreadable", True,
            f"{counted(len(look.unreadable), 'image')} cannot be read; each run records that they were left out",
        )  # fmt: skip
    if look.dataset.leaks.summary:
        yield Choice(
            "data.allow_leaks", True,
            f"{look.dataset.leaks.summary}. Better remove them from one of the splits and take this line out: every "
            "score will say that it may flatter",
        )  # fmt: skip
    if groups := look.found.groups:
        group, one, other = groups.example
        yield Choice(
            "data.groups", groups.expression,
            f"{groups.num_groups:,} beginnings of names have several images, up to {groups.largest:,}: {one!r} and "
            f"{other!r} are both of {group!r}. Is that one patient, one burst, one thing? Then take away the # below: "
            "images of a group stay in one split, and scores do not flatter", is_question=True,
        )  # fmt: skip


def _model(recipe: Recipe) -> Iterator[Choice]:
    yield from _of(recipe, "model.name", "model.weights", "model.depth", "model.width", "model.stem")


def _augment(look: Look, recipe: Recipe) -> Iterator[Choice]:
    symmetry, is_tiny = look.symmetry, look.found.headers.shorter_side < TINY_SIDE
    yield from _of(recipe, "augment.random_resized_crop")
    flips = (
        ("augment.horizontal_flip", "mirrored left to right", symmetry.across, symmetry.allows_horizontal_flip),
        ("augment.vertical_flip", "upside down", symmetry.down, symmetry.allows_vertical_flip),
    )
    for key, words, share, allowed in flips:
        yield Choice(key, allowed, _why_flip(words, share, allowed=allowed))
    if symmetry.allows_quarter_turns and look.found.headers.elongation < 1.05:
        yield Choice("augment.quarter_turns", True, "and the same holds for turns by 90 degrees")
    if not is_tiny:
        yield Choice("augment.brightness", 0.2, "light differs from picture to picture")
        yield Choice("augment.contrast", 0.2)


def _why_flip(words: str, share: Directed | None, *, allowed: bool) -> str:
    if share is None:
        return f"too few images to see whether every class looks the same {words}; true where it does"
    if allowed:
        return f"{words}, images look like their class: {share.overall:.1%} of what changes is the same in all of them"
    return (
        f"{words}, images look different from their class: {share.overall:.0%} of what changes is the same in all "
        f"of them ({share.largest:.0%} in one class), as with digits. true where they still are of their class"
    )


def _train(look: Look, recipe: Recipe, plan: Plan) -> Iterator[Choice]:
    words = arithmetic(plan, recipe.pace, look.num_train, look.num_val)
    yield Choice("train.epochs", plan.epochs, words)
    yield from _of(recipe, "train.batch_size", "train.lr")
    yield Choice(
        "train.warmup_epochs", min(1, plan.epochs - 1), "the rate rises over the first epoch" * (plan.epochs > 1)
    )
    if is_uneven(look):
        counts = train_counts(look)
        names = look.dataset.class_names
        yield Choice(
            "train.class_weights", "auto",
            f"uneven classes: {names[int(counts.argmax())]} has {counts.max():,} train images, "
            f"{names[int(counts.argmin())]} {counts.min():,}; the rare ones weigh more",
        )  # fmt: skip


def _search(look: Look, recipe: Recipe, plan: Plan, budget: float) -> Iterator[Choice]:
    yield Choice("search.trials", plan.trials, "see train.epochs")
    yield Choice(
        "search.timeout", budget, f"seconds: no trial starts after {duration(budget)}, should the machine be busier"
    )
    if is_uneven(look):
        if metric_has_classes(look):
            yield Choice(
                "search.metric", MACRO_F1.on_val,
                "with uneven classes, accuracy would reward forgetting the rare ones; every class counts alike here",
            )  # fmt: skip
        else:
            yield Choice("search.metric", ACCURACY.on_val, "val lacks some class, so no score of classes is sound")
    low, high = recipe.lr
    yield Choice("search.space.train.lr", {"low": low, "high": high, "log": True}, "the key that matters most")
    if plan.epochs >= LEAST_EPOCHS_TO_WARM_UP:
        yield Choice("search.space.train.warmup_epochs", {"low": 0, "high": MOST_WARM_UP})
    if plan.epochs >= LEAST_EPOCHS_TO_REGULARISE:
        yield Choice("search.space.augment.mixup", [0.0, 0.2], "mixed images help where epochs are many")


def train_counts(look: Look) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64 (K,): train images of each class that were decoded."""
    return np.bincount(look.dataset.train.labels, minlength=len(look.dataset.class_names))


def is_uneven(look: Look) -> bool:
    """Whether the largest class has several times the images of the smallest."""
    counts: Sequence[int] = train_counts(look).tolist()
    return max(counts) >= UNEVEN * min(counts)


def metric_has_classes(look: Look) -> bool:
    """Whether val has images of every class."""
    return bool(np.bincount(look.dataset.val.labels, minlength=len(look.dataset.class_names)).all())
