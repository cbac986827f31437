"""imgcls itself: `prepare`, a Task and `fit`, as `train_run` uses them, without the tracker.

Counted are train images over the time of the train steps, from the shuffling of the epoch to its last step
(`EpochResult.images_per_second`). Validation follows each epoch and is not counted, nor is it for anybody else.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from benchmarks.contestant import Epoch
from benchmarks.works import Work
from imgcls.data.cache_folder import cache_folder
from imgcls.project import Project
from imgcls.reporting.run_progress import RunProgress
from imgcls.runs.prepare import cached_dataset, prepare
from imgcls.runs.threads import with_threads
from imgcls.training.epoch import EpochResult
from imgcls.training.loop import fit


class Ours:
    """Trains with the project's own loop; `threads` is `train.threads`, by default torch's own, as for everybody."""

    def __init__(self, work: Work, threads: Literal["auto"] | int = 0) -> None:
        work = replace(work, experiment=work.experiment.replace({"train.threads": threads}))
        os.environ["IMGCLS_CACHE"] = str(work.root / "cache")
        self._work = work
        self._epochs: Iterator[EpochResult] = iter(())
        self._num_train = 0

    def first(self) -> Epoch:
        """From an empty cache: find, decode, hash and search for leaks, then the net and its first epoch."""
        cached_dataset.cache_clear()
        shutil.rmtree(cache_folder(), ignore_errors=True)
        begun = time.perf_counter()
        prepared = with_threads(prepare(self._work.experiment, Project(self._work.root)))
        task, state = prepared.begin()
        progress = RunProgress(self._work.name, task.config.last_epoch, task.train.steps_per_epoch, task.metric)
        self._num_train = task.train.num_images
        self._epochs = fit(task, state, on_step=progress.on_step)
        result = next(self._epochs)
        validation = result.seconds - self._num_train / result.images_per_second
        return Epoch(self._num_train, time.perf_counter() - begun - validation)

    def epoch(self) -> Epoch:
        """The train part of another epoch."""
        return Epoch(self._num_train, self._num_train / next(self._epochs).images_per_second)
