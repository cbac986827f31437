"""How fast predict is beside the run's own validation: `python -m benchmarks.predict RUN PATHS... [--rounds 5]`.

Both decode the same files from the start and predict them: validation into an empty cache and then from it, predict in
one pass. They take turns, after a first round that is not counted. Prints one JSON object; a speed above 1 says that
predict is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine
from imgcls.data import decode_cache
from imgcls.data.augment import Normalise
from imgcls.data.image_set import SourceImages
from imgcls.data.loader import Loader
from imgcls.inference.find_model import find_run_model
from imgcls.inference.inputs import Inputs, given
from imgcls.inference.run_model import RunModel
from imgcls.project import Project
from imgcls.tracking.store import Tracker
from imgcls.training.device import prepare_device
from imgcls.training.loop import predict


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("paths", metavar="PATHS", nargs="+", help="files that are not test images")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = find_run_model(arguments.run, Tracker(Project.around(Path.cwd()).root))
    inputs = given(arguments.paths)
    contestants: dict[str, Callable[[], None]] = {
        "cold validation": lambda: validate(model, inputs),
        "predict": lambda: predict_files(model, arguments.paths),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(arguments.rounds + 1):
        for name, work in contestants.items():
            since = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - since)
        sys.stderr.write(f"round {number} of {arguments.rounds}\n")
    speeds = [cold / own for cold, own in zip(seconds["cold validation"], seconds["predict"], strict=True)]
    result = {
        "images": len(inputs),
        "image_size": model.preprocessing.image_size,
        "network": model.experiment.model.name,
        "images_per_second": {name: round(len(inputs) / statistics.median(of)) for name, of in seconds.items()},
        "speed": round(statistics.median(speeds), 3),
        "speed_of_rounds": [round(speed, 3) for speed in sorted(speeds)],
        "machine": describe_machine(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def validate(model: RunModel, inputs: Inputs) -> None:
    """What a run does with its val images the first time: decode them into an empty cache, then predict from it."""
    preprocessing, train = model.preprocessing, model.experiment.train
    table = SourceImages(inputs.names, np.zeros(len(inputs), np.int64), inputs.read, stamp=str(time.time_ns()))
    device = prepare_device(train)
    with tempfile.TemporaryDirectory() as folder:
        before, os.environ["IMGCLS_CACHE"] = os.environ.get("IMGCLS_CACHE"), folder
        images = decode_cache.decode(
            table, preprocessing.image_size, preprocessing.channels, fit=preprocessing.fit
        ).images
        normalise = Normalise(preprocessing.mean, preprocessing.std, device.torch_device)
        predict(model.network, Loader(images, train.eval_batch_size, device.torch_device), normalise, device)
        os.environ.pop("IMGCLS_CACHE") if before is None else os.environ.update(IMGCLS_CACHE=before)


def predict_files(model: RunModel, paths: list[str]) -> None:
    """What `imgcls predict` does, from the paths to the table."""
    model.predict(paths)


if __name__ == "__main__":
    main()
