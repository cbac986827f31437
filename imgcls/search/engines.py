"""Who trains the runs of a sweep: this process, several on this machine, or the machines of a cluster.

The driver asks the sampler and tells the results, always alone; an engine only trains. A trial reports its epochs to
the study's journal, where the pruner reads them, and its record to MLflow.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any, Generic, Protocol

from imgcls.errors import Interrupted, TrainingError
from imgcls.runs.record_writer import Finished
from imgcls.search.local_worker import LocalWorker
from imgcls.search.outcome import J, Outcome, answer
from imgcls.signals import stop_requested

log = logging.getLogger(__name__)

SECONDS_TO_LEAVE = 8.0
"""Seconds that workers get to finish their step, save and exit."""

MAX_LOSSES = 2
"""Number of lost workers after which a job fails: what killed them is likely to be the job itself."""


class Engine(Protocol[J]):
    """The engine of a sweep: trains jobs, up to `capacity` side by side."""

    @property
    def capacity(self) -> int:
        """The most jobs that may be open; it changes with the machines of a cluster, and is never below 1."""

    def submit(self, job: J) -> None:
        """Takes a job; fewer than `capacity` are open."""

    def wait(self) -> list[Outcome[J]]:
        """Waits for open jobs until at least one has ended, or until `capacity` has grown."""

    def close(self) -> None:
        """Ends what is still open."""


class Cluster(Protocol):
    """Machines that train the jobs of a sweep where a scheduler places them."""

    @property
    def name(self) -> str:
        """Of the scheduler, as the record has it."""

    @property
    def threads(self) -> int:
        """CPU threads of each job."""

    @property
    def capacity(self) -> int:
        """The number of jobs that the machines can train side by side now."""

    def engine(self) -> Engine[Any]:
        """A new engine, which trains on these machines."""


class ThisProcess(Generic[J]):
    """The engine that runs the jobs of a sweep in this process, one at a time."""

    capacity = 1

    def __init__(self) -> None:
        self._job: J | None = None

    def submit(self, job: J) -> None:
        """Keeps the job for `wait`."""
        self._job = job

    def wait(self) -> list[Outcome[J]]:
        """Runs the job."""
        assert self._job is not None
        return [answer(self._job)]

    def close(self) -> None:
        """Nothing is left running."""


class LocalProcesses(Generic[J]):
    """The engine that runs the jobs of a sweep side by side on this machine, `capacity` at most.

    Each process has its own GPU where there are some.

    Args:
        num_workers: jobs side by side.
        num_processes: that train each job together.
    """

    def __init__(self, num_workers: int, num_processes: int = 1) -> None:
        self.capacity = num_workers
        self._num_processes = num_processes
        self._workers: list[LocalWorker[J]] = [self._start(index) for index in range(num_workers)]

    def submit(self, job: J) -> None:
        """Hands the job to an idle worker, of which there has to be one."""
        worker = next(worker for worker in self._workers if worker.job is None)
        if worker.has_left:
            worker.end(by=time.monotonic() + SECONDS_TO_LEAVE)
            worker = self._workers[worker.index] = self._start(worker.index)
        worker.submit(job)

    def wait(self) -> list[Outcome[J]]:
        """Waits until at least one worker has answered or died."""
        while True:
            busy = [worker for worker in self._workers if worker.job is not None]
            wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=0.2)
            if stop_requested():
                for worker in busy:
                    worker.ask_to_stop()
            if outcomes := [outcome for worker in busy if (outcome := worker.outcome())]:
                return outcomes

    def close(self) -> None:
        """Tells idle workers to leave and ends the others."""
        for worker in self._workers:
            if worker.job is None:
                worker.dismiss()
            else:
                worker.ask_to_stop()
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        for worker in self._workers:
            worker.end(by=deadline)

    def _start(self, index: int) -> LocalWorker[J]:
        return LocalWorker(index, self.capacity, self._num_processes)


def local_engine(num_workers: int, num_processes: int = 1) -> Engine[J]:
    """An engine of this machine, with so many workers; a single one of one process is this process itself."""
    return ThisProcess() if num_workers == num_processes == 1 else LocalProcesses(num_workers, num_processes)


def trained(
    jobs: Iterator[J], num_workers: int, cluster: Cluster | None = None, num_processes: int = 1
) -> Iterator[tuple[J, Finished]]:
    """Trains jobs that do not depend on one another side by side, and yields each when it has ended.

    Args:
        jobs: the next one is asked for when a worker has nothing to do.
        num_workers: of this machine; with 1, the jobs are trained in this process.
        cluster: trains them instead of this machine.
        num_processes: of this machine that train each job together.

    Raises:
        Interrupted: a stop was requested.
        ImgclsError: what a job failed of; a lost worker is replaced once for each job.
    """
    if cluster is None and num_workers <= 1 and num_processes == 1:
        yield from ((job, job.run()) for job in jobs)
        return
    engine: Engine[J] = cluster.engine() if cluster else LocalProcesses(num_workers, num_processes)
    num_open, left, losses = 0, deque[J](), Counter[J]()
    try:
        while True:
            while num_open < engine.capacity and not stop_requested():
                if (job := left.popleft() if left else next(jobs, None)) is None:
                    break
                engine.submit(job)
                num_open += 1
            if not num_open:
                break
            for outcome in engine.wait():
                num_open -= 1
                if outcome.finished is not None:
                    yield outcome.job, outcome.finished
                    continue
                if outcome.interrupted and stop_requested():
                    continue
                losses[outcome.job] += 1
                if not outcome.interrupted or losses[outcome.job] >= MAX_LOSSES:
                    raise TrainingError(f"{outcome.job.name}: {outcome.error}")
                log.warning("%s: %s; it is taken up again", outcome.job.name, outcome.error)
                left.append(outcome.job)
    finally:
        engine.close()
    if by := stop_requested():
        raise Interrupted(f"stopped by {by}")
