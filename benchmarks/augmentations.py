"""Our batched augmentation against torchvision's v2, image by image and on the batch, and against kornia's.

    python -m benchmarks.augmentations [--rounds 40] [--threads 2]

All get the same uint8 photographs' worth of noise and give float32; each round times every way once, in an order that
turns, and what is reported is the median over the rounds of their time over ours in the same round, so that a busy
machine disturbs all alike. torchvision's transforms of a batch draw one set of parameters for all of its images, which
is another (and a weaker) augmentation: that column says what independence costs. kornia draws image by image
(`same_on_batch=False`), and is left out where it is not installed (`pip install kornia`).

Seen on one core of an AMD EPYC (2 cores, busy with other work; no GPU), 2026-11-23, batches of 64 RGB images at 64
pixels: kornia 0.9.0 takes 2.6 times as long for crops and flips, 3.7 for colours, 3 to 12 for the rest; torchvision
0.29.2 image by image 4 for crops, 9 for colours, 15 for cutout, 28 to normalise. On the batch torchvision crops, cuts
and pastes in 0.6 of the time and mixes in the same, but with one draw for all images, out of torch's global generator,
which a run does not share.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from imgcls.config.keys import AugmentConfig
from imgcls.data.augment import Augment, Normalise, cutmix, cutout, mixup

BATCH, SOURCE, SIDE, NUM_CLASSES = 64, 96, 64, 10
CROP = (0.3, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIGHT: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
PEERS = ("torchvision, image by image", "torchvision, one draw a batch", "kornia")

Way = Callable[[], object]


@dataclass(frozen=True)
class Inputs:
    """What every way is given.

    Attributes:
        large: uint8 (64, 3, 96, 96), to be cropped.
        small: uint8 (64, 3, 64, 64).
        normalised: float32 (64, 3, 64, 64).
        labels: int64 (64,).
        one_hot: float32 (64, 10).
        draws: the generator that ours draws from; the peers draw from torch's own.
    """

    large: Tensor
    small: Tensor
    normalised: Tensor
    labels: Tensor
    one_hot: Tensor
    draws: torch.Generator

    @classmethod
    def noise(cls) -> Inputs:
        """The same each time."""
        draws = torch.Generator().manual_seed(0)
        large, small = (
            torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=draws) for side in (SOURCE, SIDE)
        )
        labels = torch.randint(NUM_CLASSES, (BATCH,), generator=draws)
        one_hot = torch.nn.functional.one_hot(labels, NUM_CLASSES).float()
        normalised = Normalise(MEAN, STD, torch.device("cpu"))(small)
        return cls(large, small, normalised, labels, one_hot, draws)


def cases(inputs: Inputs, kornia: Any) -> dict[str, list[Way | None]]:
    """Name of what is done -> ours, and each of `PEERS` or None."""
    of_batch = v2.ToDtype(torch.float32, scale=True)
    normalise = Normalise(MEAN, STD, torch.device("cpu"))
    crop = v2.Compose([v2.RandomResizedCrop(SIDE, CROP), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), of_batch])
    jitter = v2.Compose([of_batch, v2.ColorJitter(**LIGHT)])
    # A square hole of half of the side, as near to cutout as both have it: theirs never reaches beyond the border.
    erase = v2.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))
    our_crop = Augment(AugmentConfig(random_resized_crop=CROP, vertical_flip=True), SIDE)
    our_jitter = Augment(AugmentConfig(horizontal_flip=False, **LIGHT), SIDE)
    theirs = v2.Compose([of_batch, v2.Normalize(MEAN, STD)])
    k = _kornias(kornia, inputs) if kornia else {}
    large, small, normalised, draws = inputs.large, inputs.small, inputs.normalised, inputs.draws
    return {
        "crop and both flips, 96 to 64 px": [
            lambda: our_crop(large, draws), _each(crop, large), lambda: crop(large), k.get("crop"),
        ],
        "brightness, contrast, saturation, hue": [
            lambda: our_jitter(small, draws), _each(jitter, small), lambda: jitter(small), k.get("jitter"),
        ],
        "cutout": [
            lambda: cutout(normalised, 0.5, draws), _each(erase, normalised), lambda: erase(normalised), k.get("erase"),
        ],
        "mixup": [
            lambda: mixup(normalised, inputs.one_hot, 0.4, draws), None,
            _mixing(v2.MixUp(alpha=0.4, num_classes=NUM_CLASSES), inputs), k.get("mixup"),
        ],
        "cutmix": [
            lambda: cutmix(normalised, inputs.one_hot, 1.0, draws), None,
            _mixing(v2.CutMix(alpha=1.0, num_classes=NUM_CLASSES), inputs), k.get("cutmix"),
        ],
        "normalise": [lambda: normalise(small), _each(theirs, small), lambda: theirs(small), k.get("normalise")],
    }  # fmt: skip


def _each(transform: Callable[[Tensor], Tensor], images: Tensor) -> Way:
    return lambda: torch.stack([transform(image) for image in images])


def _mixing(transform: Callable[[Tensor, Tensor], object], inputs: Inputs) -> Way:
    return lambda: transform(inputs.normalised, inputs.labels)


def _kornias(kornia: Any, inputs: Inputs) -> dict[str, Way]:
    """In kornia, which takes floats in [0, 1]; "resample" is the one way to crop a batch without a loop over it."""
    crop = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((SIDE, SIDE), CROP, cropping_mode="resample", align_corners=False),
        kornia.RandomHorizontalFlip(),
        kornia.RandomVerticalFlip(),
        same_on_batch=False,
    )
    jitter = kornia.AugmentationSequential(kornia.ColorJitter(**LIGHT, p=1.0), same_on_batch=False)
    erase = kornia.AugmentationSequential(kornia.RandomErasing((0.25, 0.25), (1.0, 1.0), p=1.0), same_on_batch=False)
    # A sequence refuses to mix classes, so these stand alone.
    to_mix = kornia.RandomMixUpV2(data_keys=["input", "class"], same_on_batch=False)
    to_cut = kornia.RandomCutMixV2(data_keys=["input", "class"], same_on_batch=False)
    normalise = kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD))
    return {
        "crop": lambda: crop(inputs.large.float().div_(255)),
        "jitter": lambda: jitter(inputs.small.float().div_(255)),
        "erase": lambda: erase(inputs.normalised),
        "mixup": lambda: to_mix(inputs.normalised, inputs.labels),
        "cutmix": lambda: to_cut(inputs.normalised, inputs.labels),
        "normalise": lambda: normalise(inputs.small.float().div_(255)),
    }


def compare(ways: list[Way | None], rounds: int) -> tuple[float, list[float | None]]:
    """Median milliseconds of the first way, and each other's median ratio to it."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 3):
        for i in range(len(ways)):
            index = (i + turn) % len(ways)
            way = ways[index]
            if way is not None:
                since = time.perf_counter()
                way()
                times[index].append(1000 * (time.perf_counter() - since))
    ours, *others = (taken[3:] for taken in times)  # the first rounds warm up
    ratios = [statistics.median(b / a for a, b in zip(ours, other, strict=True)) if other else None for other in others]
    return statistics.median(ours), ratios


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        kornia = importlib.import_module("kornia.augmentation")
    except ImportError:
        kornia = None
    print(f"Batches of {BATCH} RGB images, {arguments.threads} threads, torch {torch.__version__}.\n")
    print("| | ours, ms | " + " | ".join(PEERS) + " |")
    print("|---|---|" + "---|" * len(PEERS))
    for name, ways in cases(Inputs.noise(), kornia).items():
        milliseconds, ratios = compare(ways, arguments.rounds)
        cells = ["" if ratio is None else f"{ratio:.2g}x" for ratio in ratios]
        print(f"| {name} | {milliseconds:.2f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
