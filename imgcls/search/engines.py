"""Who trains the runs of a sweep: this process, several on this machine, or the machines of a cluster.

The driver asks the sampler and tells the results, always alone; an engine only trains. A trial reports its epochs to
the study's journal, where the pruner reads them, and its record to MLflow.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

import torch

from imgcls import terminal
from imgcls.errors import ImgclsError, Interrupted, TrainingError
from imgcls.machine_failures import death, explain, oom_kills
from imgcls.runs.record_writer import Finished
from imgcls.search.trial import Job
from imgcls.signals import GracefulStop, interruption, stop_requested
from imgcls.tracking.claims import ClaimedError
from imgcls.tracking.credentials import guard_logs, scrubbed

log = logging.getLogger(__name__)

SECONDS_TO_LEAVE = 8.0
"""Seconds that workers get to finish their step, save and exit."""

MAX_LOSSES = 2
"""Number of lost workers after which a job fails: what killed them is likely to be the job itself."""


J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Outcome(Generic[J]):
    """An engine's answer for one job: a result, an error, or an interruption.

    Attributes:
        job: that was run.
        finished: its result.
        error: why the job has no result; empty if it has one.
        interrupted: whether the job was not to blame: a signal, a killed worker, or a time that was over.
        leaves: whether the worker exits after this answer, because it was asked to stop.
    """

    job: J
    finished: Finished | None = None
    error: str = ""
    interrupted: bool = False
    leaves: bool = False


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

    Each worker has its own GPU where there are some.

    Args:
        num_workers: processes.
    """

    def __init__(self, num_workers: int) -> None:
        self.capacity = num_workers
        # spawn: a forked child would inherit CUDA, BLAS threads and open SQLite connections, none of which survive it.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker[J]] = [self._start(index) for index in range(num_workers)]

    def submit(self, job: J) -> None:
        """Hands the job to an idle worker, of which there has to be one."""
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        with suppress(OSError):  # it died while it was idle; `_collect` finds out how
            worker.pipe.send(job)

    def wait(self) -> list[Outcome[J]]:
        """Waits until at least one worker has answered or died."""
        while True:
            busy = [worker for worker in self._workers if worker.job is not None]
            wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=0.2)
            if stop_requested():
                for worker in busy:
                    worker.ask_to_stop()
            if outcomes := [outcome for worker in busy if (outcome := self._collect(worker))]:
                return outcomes

    def close(self) -> None:
        """Tells idle workers to leave and ends the others."""
        for worker in self._workers:
            if worker.job is None:
                with suppress(OSError):
                    worker.pipe.send(None)
            else:
                worker.ask_to_stop()
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        for worker in self._workers:
            worker.process.join(timeout=max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _collect(self, worker: _Worker[J]) -> Outcome[J] | None:
        job = worker.job
        assert job is not None
        try:
            if worker.pipe.poll():
                outcome: Outcome[J] = replace(worker.pipe.recv(), job=job)  # the one that was submitted
                worker.job = None
                if outcome.leaves:
                    self._replace(worker)
                return outcome
        except (EOFError, OSError):  # the worker died; what follows finds out how
            pass
        if worker.process.is_alive():
            return None
        worker.job = None
        worker.process.join()
        why = death(worker.process.exitcode, worker.oom_kills)
        self._replace(worker)
        return Outcome(job, error=why, interrupted=True)

    def _replace(self, worker: _Worker[J]) -> None:
        if not stop_requested():
            worker.process.join()
            self._workers[self._workers.index(worker)] = self._start(worker.index)

    def _start(self, index: int) -> _Worker[J]:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, index), daemon=True)
        with _deaf_to_the_terminal():
            process.start()
        there.close()
        return _Worker(index, process, here)


def local_engine(num_workers: int) -> Engine[J]:
    """An engine of this machine, with so many workers; a single one is this process itself."""
    return ThisProcess() if num_workers == 1 else LocalProcesses(num_workers)


def trained(jobs: Iterator[J], num_workers: int, cluster: Cluster | None = None) -> Iterator[tuple[J, Finished]]:
    """Trains jobs that do not depend on one another side by side, and yields each when it has ended.

    Args:
        jobs: the next one is asked for when a worker has nothing to do.
        num_workers: of this machine; with 1, the jobs are trained in this process.
        cluster: trains them instead of this machine.

    Raises:
        Interrupted: a stop was requested.
        ImgclsError: what a job failed of; a lost worker is replaced once for each job.
    """
    if cluster is None and num_workers <= 1:
        yield from ((job, job.run()) for job in jobs)
        return
    engine: Engine[J] = cluster.engine() if cluster else LocalProcesses(num_workers)
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


@dataclass
class _Worker(Generic[J]):
    index: int
    process: Any
    pipe: Connection
    job: J | None = None
    oom_kills: int | None = field(default_factory=oom_kills)
    is_asked: bool = False

    def ask_to_stop(self) -> None:
        """Sends SIGTERM, once: a worker takes the first as a request and leaves at the second at once."""
        if not self.is_asked:
            self.is_asked = True
            self.process.terminate()


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Processes that are started within this block inherit that SIGINT and SIGHUP are ignored.

    Ctrl-C, and a terminal's end, reach every process of the terminal; the driver hears them, and passes them on as
    SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(pipe: Connection, index: int) -> None:
    """A worker's life: import once, then trial after trial, until it is asked to stop."""
    terminal.guard_streams()
    guard_logs()
    threading.Thread(target=_leave_with_driver, daemon=True).start()
    with GracefulStop():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for job in iter(pipe.recv, None):
            outcome = answer(_on_its_gpu(job, index))
            leaves = bool(stop_requested())
            pipe.send(replace(outcome, leaves=leaves))
            if leaves:
                return


def _leave_with_driver() -> None:
    """A worker that outlived its killed driver would go on with a trial that the next sitting takes up as well."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _on_its_gpu(job: J, index: int) -> J:
    train = job.experiment.train
    if train.device not in ("auto", "cuda") or torch.cuda.device_count() <= 1:
        return job
    device = f"cuda:{index % torch.cuda.device_count()}"
    return replace(job, experiment=job.experiment.replace({"train.device": device}))


def answer(job: J) -> Outcome[J]:
    """Trains a job in this process; an engine's answer, whatever happens but a second request to stop."""
    try:
        return Outcome(job, finished=job.run())
    except (KeyboardInterrupt, ClaimedError) as error:
        return Outcome(job, error=str(error), interrupted=True)
    except Exception as error:
        if (asked := interruption(error)) is not None:
            return Outcome(job, error=str(asked), interrupted=True)
        if isinstance(error, ImgclsError):
            return Outcome(job, error=str(error))
        if (explained := explain(error)) is not None:
            return Outcome(job, error=scrubbed(str(explained)))
        terminal.stderr().write(scrubbed(traceback.format_exc()))
        return Outcome(job, error=scrubbed(f"{type(error).__name__}: {error}"))
