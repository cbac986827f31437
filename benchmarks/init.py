"""How long `imgcls init` takes: `python -m benchmarks.init [FOLDER] [--rounds 3] [--only NAMES]`.

Each round is a new process in a new project with an empty cache, from the shell's point of view. The folders are

- `photographs`: 600 JPEG of 500 x 375, made from those in FOLDER (a folder per class), else cut out of the two
  photographs that scikit-learn ships;
- `tiny`: 100,000 PNG of 28 x 28 in 10 classes, all different;
- `classes`: 200 classes of 10 JPEG of 128 x 96.

The medians and the limits go to benchmarks/INIT.json and, as one line of JSON, to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.arena import BenchmarkError
from benchmarks.machine import describe_machine
from imgcls.data.image_formats import is_image_name

RESULTS = Path(__file__).with_name("INIT.json")
REPOSITORY = Path(__file__).parents[1]

LIMITS = {"photographs": 15.0, "tiny": 60.0, "classes": None}
"""Seconds that the median may take; None where nothing was promised."""

NUM_PHOTOGRAPHS, PHOTOGRAPH = 600, (500, 375)
"""How many photographs, and their width and height in pixels."""


def main() -> None:
    """Measures, and writes what was found."""
    arguments = _arguments()
    names = arguments.only.split(",") if arguments.only else list(LIMITS)
    if unknown := set(names) - set(LIMITS):
        sys.exit(f"no folder {', '.join(sorted(unknown))}; there are {', '.join(LIMITS)}")
    found: dict[str, Any] = {"command": "python -m benchmarks.init [FOLDER]", "machine": describe_machine()}
    with tempfile.TemporaryDirectory(prefix="imgcls-benchmarks-init-") as place:
        for name, write in _folders(arguments.folder).items():
            if name in names:
                found[name] = _measure(name, write, Path(place), arguments.rounds)
    if set(names) == set(LIMITS):
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps({name: found[name] for name in names}) + "\n")


def _folders(photographs: Path | None) -> dict[str, Callable[[Path], None]]:
    return {
        "photographs": lambda folder: write_photographs(folder, photographs),
        "tiny": lambda folder: write_tiny(folder, 100_000, 10),
        "classes": lambda folder: write_tiny(folder, 2_000, 200, size=(128, 96), ending=".jpg"),
    }


def _measure(name: str, write: Callable[[Path], None], place: Path, rounds: int) -> dict[str, Any]:
    images = place / name / "images"
    _tell(f"{name}: writing its images")
    write(images)
    taken, of_processor = [], []
    for number in range(rounds):
        before = _processor_seconds()
        taken.append(_seconds_of_init(images, place / name / f"project {number}"))
        of_processor.append(_processor_seconds() - before)
        _tell(f"{name}: {taken[-1]:.1f} s in round {number + 1} of {rounds}, {of_processor[-1]:.1f} s of processor")
    limit, middle = LIMITS[name], median(taken)
    return {
        "seconds": [round(one, 1) for one in taken],
        "processor_seconds": [round(one, 1) for one in of_processor],
        "median": round(middle, 1),
        "limit": limit,
        "is_within_limit": None if limit is None else middle <= limit,
    }


def _processor_seconds() -> float:
    """Seconds of processor that ended child processes took; other programs on the machine hardly move them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _seconds_of_init(images: Path, project: Path) -> float:
    """Seconds of a new process that makes a new project, with a cache of its own."""
    project.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "IMGCLS_CACHE": str(project / "cache")}
    for name in ("MLFLOW_TRACKING_URI", "OMP_NUM_THREADS"):  # a store and a number of threads that a user has not set
        environment.pop(name, None)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "imgcls", "init", "measured", str(images)], cwd=project, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise BenchmarkError(f"imgcls init ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds


def write_photographs(folder: Path, photographs: Path | None) -> None:
    """Writes JPEG of 500 x 375 pixels into class folders.

    Args:
        folder: gets them.
        photographs: a folder per class, of which every nth image is resized and cut; None cuts each image out of one of
            scikit-learn's two photographs by its own draw.
    """
    if photographs is None:
        _cut_from_two(folder)
        return
    paths = sorted(path for path in photographs.glob("*/*") if is_image_name(path.name))
    if len(paths) < NUM_PHOTOGRAPHS:
        raise BenchmarkError(f"{photographs} has {len(paths)} images in class folders; {NUM_PHOTOGRAPHS} are needed")
    for at in np.linspace(0, len(paths) - 1, NUM_PHOTOGRAPHS).astype(int):
        with Image.open(paths[at]) as image:
            _save(ImageOps.fit(image.convert("RGB"), PHOTOGRAPH), folder / paths[at].parent.name / f"{at:05d}.jpg")


def _cut_from_two(folder: Path) -> None:
    from sklearn.datasets import load_sample_images

    draws = np.random.default_rng(0)
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(NUM_PHOTOGRAPHS):
        picture = pictures[number % 2]
        width = int(draws.integers(320, min(picture.width, picture.height * 4 // 3)))
        height = width * 3 // 4
        left, top = draws.integers(picture.width - width + 1), draws.integers(picture.height - height + 1)
        cut = picture.resize(PHOTOGRAPH, box=(left, top, left + width, top + height))
        _save(cut, folder / ("china", "flower")[number % 2] / f"{number:05d}.jpg")


def write_tiny(
    folder: Path, num: int, num_classes: int, size: tuple[int, int] = (28, 28), ending: str = ".png"
) -> None:
    """Writes images of smooth noise, no two alike, into class folders; each class has a colour of its own."""
    draws = np.random.default_rng(0)
    colours = draws.integers(0, 256, (num_classes, 1, 1, 3))
    for number in range(num):
        label = number % num_classes
        coarse = (draws.integers(0, 256, (6, 6, 3)) + colours[label]) // 2
        image = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        _save(image, folder / f"class {label:03d}" / f"{number:06d}{ending}")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compress_level": 1} if path.suffix == ".png" else {"quality": 90}
    image.save(path, **options)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.init", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="photographs, in a folder per class")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="new processes for each folder of images")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"some of {','.join(LIMITS)}; nothing is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
