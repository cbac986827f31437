"""The values of an experiment that suit a folder of images and this machine, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from imgcls.config.keys import Experiment
from imgcls.init.budget import Plan, arithmetic
from imgcls.init.look import FRACTIONS, Look
from imgcls.init.recipe import TINY_SIDE, Recipe
from imgcls.init.symmetry import MOST_DIRECTED, MOST_OF_A_CLASS, Directed
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
        reason: a sentence without its full stop.
        is_question: it is proposed in a comment, because only the owner of the images knows.
    """

    key: str
    value: Any
    reason: str
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
    plan = recipe.plan(budget, look.num_train, look.num_val, look.decode_seconds)
    choices = (*_data(look, recipe), *_model(recipe), *_augment(look, recipe), *_train(look, recipe, plan),
               *_search(look, recipe, plan, budget))  # fmt: skip
    return Proposal(name, choices, plan, budget)


def _of(recipe: Recipe, *keys: str) -> Iterator[Choice]:
    """The recipe's own values of these keys, as far as it has them."""
    for key in keys:
        if key in recipe.values:
            yield Choice(key, recipe.values[key], recipe.reasons[key])


def _data(look: Look, recipe: Recipe) -> Iterator[Choice]:
    data = look.data
    yield Choice("data.source", "folder", "images in files, in a folder per class")
    yield Choice("data.path", data.path, "relative to the folder that holds experiments/, or absolute")
    yield from _of(recipe, "data.image_size")
    yield from _fit(look, recipe)
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
            yield Choice("data.test_fraction", data.test_fraction, _why_test(data.test_fraction))
    yield from _not_stopped(look)
    if groups := look.found.groups:
        group, one, other = groups.example
        alone = f". Each image without such a name ({groups.num_alone:,}) would be a group of its own"
        yield Choice(
            "data.groups", groups.expression,
            f"{groups.num_groups:,} groups of up to {groups.largest:,} images share a part of their names: {one!r} and "
            f"{other!r} are both of {group!r}. Is that one patient, one burst, one thing? Then take away the # below: "
            "images of a group stay in one split, and scores do not flatter"
            f"{alone if groups.num_alone else ''}", is_question=True,
        )  # fmt: skip


def _fit(look: Look, recipe: Recipe) -> Iterator[Choice]:
    for choice in _of(recipe, "data.fit"):
        warned = '; a sweep warns of what is cut off, and "pad" keeps all of it' if look.dataset.cut else ""
        yield replace(choice, reason=choice.reason + warned)


def _why_test(fraction: float) -> str:
    if fraction:
        return "the default share"
    return "too few images for a test split; the score on val alone chooses and tells"


def _not_stopped(look: Look) -> Iterator[Choice]:
    """What lets a sweep go on where it would stop at images that cannot be read, or at leaks."""
    num_not_decoded = look.found.num_all - look.num_decoded
    if look.unreadable or look.is_sample:
        seen = f"{counted(len(look.unreadable), 'image')} cannot be read" if look.unreadable else ""
        unseen = f"{num_not_decoded:,} images were not decoded, and may not be readable" if look.is_sample else ""
        why = f"{'; '.join(filter(None, (seen, unseen)))}; each run records which were left out"
        yield Choice("data.skip_unreadable", True, why)
    if summary := look.dataset.leaks.summary:
        yield Choice(
            "data.allow_leaks", True,
            f"{summary}. Better remove them from one of the splits and take this line out: every score will say that "
            "it may flatter",
        )  # fmt: skip
    elif look.may_leak_unseen:
        yield Choice(
            "data.allow_leaks", True,
            f"{num_not_decoded:,} images were not compared, and a sweep stops where the same image is in two splits. "
            "With this line it goes on, and every score says that it may flatter. Take the line out to be stopped",
        )  # fmt: skip


def _model(recipe: Recipe) -> Iterator[Choice]:
    yield from _of(recipe, "model.name", "model.weights", "model.depth", "model.width", "model.stem")


def _augment(look: Look, recipe: Recipe) -> Iterator[Choice]:
    symmetry, is_tiny = look.symmetry, look.found.headers.shorter_side < TINY_SIDE
    yield from _of(recipe, "augment.random_resized_crop")
    flips = (
        ("augment.horizontal_flip", "Horizontal", symmetry.across, symmetry.allows_horizontal_flip),
        ("augment.vertical_flip", "Vertical", symmetry.down, symmetry.allows_vertical_flip),
    )
    for key, words, share, allowed in flips:
        yield Choice(key, allowed, _why_flip(words, share, allowed=allowed))
    if symmetry.allows_quarter_turns and look.found.headers.elongation < 1.05:
        yield Choice("augment.quarter_turns", True, "and the same holds for turns by 90 degrees")
    if not is_tiny:
        yield Choice("augment.brightness", 0.2, "light differs from picture to picture")
        yield Choice("augment.contrast", 0.2, "so do haze, shade and cameras")


def _why_flip(words: str, share: Directed | None, *, allowed: bool) -> str:
    if share is None:
        return f"too few images to see whether {words.lower()} flips are safe. Set true if no class changes under it"
    flipped = "its mirror image" if words == "Horizontal" else "the image upside down"
    common = f"{_percent(share.overall)} of the difference between an image and {flipped} is common to its class"
    if allowed:
        return f"{words} flips are safe: {common} (limit {_percent(MOST_DIRECTED)})"
    return (
        f"{words} flips are not safe: {common} (limit {_percent(MOST_DIRECTED)}), and {_percent(share.largest)} in the "
        f"class where it is most (limit {_percent(MOST_OF_A_CLASS)}). Set true if the class does not change under it"
    )


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g} %"


def _train(look: Look, recipe: Recipe, plan: Plan) -> Iterator[Choice]:
    words = arithmetic(plan, recipe.pace, look.num_train, look.num_val, look.decode_seconds)
    yield Choice("train.epochs", plan.epochs, words)
    yield from _of(recipe, "train.batch_size", "train.lr")
    if is_uneven(look):
        counts, about = look.train_counts, "about " if look.is_sample else ""
        names = look.dataset.class_names
        yield Choice(
            "train.class_weights", "auto",
            f"uneven classes: {names[int(counts.argmax())]} has {about}{counts.max():,} train images, "
            f"{names[int(counts.argmin())]} {about}{counts.min():,}; an image of a rare class gets a larger weight",
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
                "Accuracy would favour the large classes; macro-F1 weighs every class equally",
            )  # fmt: skip
        else:
            yield Choice("search.metric", ACCURACY.on_val, "val lacks some class, so no score of classes is sound")
    low, high = recipe.lr
    yield Choice("search.space.train.lr", {"low": low, "high": high, "log": True}, "the key that matters most")
    if plan.epochs >= LEAST_EPOCHS_TO_WARM_UP:
        yield Choice("search.space.train.warmup_epochs", {"low": 0, "high": MOST_WARM_UP},
                     "how long it rises, which depends on the learning rate")  # fmt: skip
    if plan.epochs >= LEAST_EPOCHS_TO_REGULARISE:
        yield Choice("search.space.augment.mixup", [0.0, 0.2], "mixed images help where epochs are many")


def is_uneven(look: Look) -> bool:
    """Whether the largest class has several times the train images of the smallest, sampled or not."""
    return bool(look.train_counts.max() >= UNEVEN * look.train_counts.min())


def metric_has_classes(look: Look) -> bool:
    """Whether val has images of every class."""
    return bool(np.bincount(look.dataset.val.labels, minlength=len(look.dataset.class_names)).all())
