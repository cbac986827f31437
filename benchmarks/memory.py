"""Part d: private memory of the training process over a large set, beside that over a hundredth of it.

Private_Clean + Private_Dirty of /proc/self/smaps_rollup, looked at every few steps of an epoch; the decoded images are
mapped from a file and shared with the kernel's cache, so they do not belong to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arena import in_fresh_process, memory_of_this_process, private_bytes
from benchmarks.forms import Form
from benchmarks.pictures import write_noise
from benchmarks.throughput import Tell
from benchmarks.works import REPOSITORY, Work

SIDE = 64
STEPS_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class Seen:
    """Megabytes, in one process.

    Attributes:
        images: train images.
        before: private memory before the first step.
        training: the most private memory in an epoch.
        peak_resident: of the whole process, decoding and mapped files included.
    """

    images: int
    before: float
    training: float
    peak_resident: float


def measure_memory(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """Both sizes, each in a process of its own."""
    seen = []
    sizes = (max(64, form.memory_images // 100), form.memory_images)
    for number, size in enumerate(sizes):
        tell(number / len(sizes), f"{size:,} images of {SIDE} px")
        work = _work(size, into / str(size))
        seen.append(in_fresh_process(train_and_look, work))
    return {
        "what": f"images of {SIDE} px, ResNet of depth 18 and width 16, batches of 64, decoded beforehand or not",
        "sizes": [vars(one) for one in seen],
        "growth_mb": seen[1].training - seen[0].training,
    }


def _work(num_images: int, into: Path) -> Work:
    from imgcls.config.load import load_experiment

    write_noise(into / "images", num_images, SIDE, val_share=0.01)
    experiment = load_experiment(REPOSITORY / "experiments" / "my_folder.toml").replace({
        "name": "memory", "data.path": str(into / "images"), "data.image_size": SIDE, "data.channels": 3,
        "data.allow_leaks": True, "model.depth": 18, "model.width": 16, "augment.random_resized_crop": [1.0, 1.0],
        "train.epochs": 1, "train.warmup_epochs": 0, "train.device": "cpu",
    })  # fmt: skip
    return Work("memory", into / "images", experiment, into)


def train_and_look(work: Work) -> Seen:
    """Decodes, trains one epoch, and looks."""
    from imgcls.project import Project
    from imgcls.runs.prepare import prepare
    from imgcls.training.loop import TrainState, fit

    os.environ["IMGCLS_CACHE"] = str(work.root / "cache")
    prepared = prepare(work.experiment, Project(work.root))
    task, state = prepared.begin()
    before, most = private_bytes(), 0

    def look(state: TrainState) -> None:
        nonlocal most
        if state.step % STEPS_BETWEEN_LOOKS == 1:
            most = max(most, private_bytes())

    list(fit(task, state, on_step=look))
    return Seen(task.train.num_images, before / 1e6, most / 1e6, memory_of_this_process()["peak_resident"])
