"""Part d: what the record of a run costs: the time inside the tracker's methods, over the wall time of `train_run`.

Writing the checkpoints, as any trainer does, is shown beside it. Import and the opening of the store are not counted,
nor are reading and decoding the images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.arena import in_fresh_process
from benchmarks.forms import Form
from benchmarks.throughput import Tell
from benchmarks.works import Work, make_solar_cells

CALLS = ("log_params", "log_metrics", "set_tags", "describe", "log_dataset", "log_text", "log_bytes")
"""Methods of Run that write."""


@dataclass(frozen=True)
class Tracked:
    """Seconds of one run.

    Attributes:
        wall: of `train_run`.
        calls: in the tracker's methods.
        checkpoints: between the opening and the closing of an artifact that the run writes itself.
        by_name: of each method; what one calls of another counts for the outer one.
    """

    wall: float
    calls: float
    checkpoints: float
    by_name: dict[str, float]


def measure_tracker(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """The share of the tracker in a solar_cells run."""
    work = make_solar_cells(form.tracker_images, into)
    work = replace(work, experiment=work.experiment.replace({"train.epochs": form.tracker_epochs}))
    runs = []
    for number in range(form.tracker_rounds):
        tell(number / form.tracker_rounds, f"run {number + 1} of {form.tracker_rounds}")
        root = into / f"run {number}"
        root.mkdir()
        runs.append(in_fresh_process(run_tracked, replace(work, root=root)))
    return {
        "what": f"{form.tracker_epochs} epochs; {work.describe()}",
        "rounds": [asdict(run) for run in runs],
        "tracker_share": median(run.calls / run.wall for run in runs),
        "checkpoints_share": median(run.checkpoints / run.wall for run in runs),
    }


def run_tracked(work: Work) -> Tracked:
    """One run with a stop-watch on its record."""
    from imgcls.project import Project
    from imgcls.runs.prepare import prepare
    from imgcls.runs.train import train_run
    from imgcls.tracking.run import Run
    from imgcls.tracking.store import Tracker

    os.environ["IMGCLS_CACHE"] = str(work.root / "cache")
    prepared, tracker = prepare(work.experiment, Project(work.root)), Tracker(work.root)
    watch = _StopWatch()
    for name in CALLS:
        setattr(Run, name, watch.on_call(name, getattr(Run, name)))
    Run.artifact = watch.on_block("artifact", Run.artifact, with_body=True)  # type: ignore[method-assign]
    Tracker.start_run = watch.on_block("start_run", Tracker.start_run, with_body=False)  # type: ignore[method-assign]
    begun = time.perf_counter()
    train_run(prepared, tracker, kind="train", name="tracked")
    wall = time.perf_counter() - begun
    checkpoints = watch.seconds.pop("artifact", 0.0)
    return Tracked(wall, sum(watch.seconds.values()), checkpoints, watch.seconds)


class _StopWatch:
    """Adds up the time of the outermost calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._depth = 0

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self._depth += 1
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def on_call(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, timed."""

        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._timed(name):
                return method(*args, **kwargs)

        return timed

    def on_block(
        self, name: str, method: Callable[..., AbstractContextManager[Any]], *, with_body: bool
    ) -> Callable[..., Any]:
        """The context manager, timed with or without what happens inside its block."""

        @contextmanager
        def whole(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with self._timed(name), method(*args, **kwargs) as value:
                yield value

        @contextmanager
        def ends(*args: Any, **kwargs: Any) -> Iterator[Any]:
            block = method(*args, **kwargs)
            with self._timed(name):
                value = block.__enter__()
            try:
                yield value
            except BaseException as error:
                block.__exit__(type(error), error, error.__traceback__)
                raise
            with self._timed(name):
                block.__exit__(None, None, None)

        return whole if with_body else ends
