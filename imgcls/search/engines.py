"""Who runs the trials: this process, or several on this machine.

The driver asks the sampler and tells the results, always alone; an engine only trains. A trial reports its epochs to
the study's journal, where the pruner reads them, and its record to MLflow.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from imgcls.errors import ImgclsError, Interrupted
from imgcls.failures import death, explain, oom_kills
from imgcls.run import Finished
from imgcls.search.trial import TrialJob, run_trial
from imgcls.signals import GracefulStop
from imgcls.tracking.address import guard_logs, scrubbed


@dataclass(frozen=True)
class TrialOutcome:
    """What came of a job: a result, an error, or an interruption (Ctrl-C, SIGTERM, a killed worker)."""

    job: TrialJob
    finished: Finished | None = None
    error: str = ""
    interrupted: bool = False


class Engine(Protocol):
    """Runs up to `capacity` jobs at a time."""

    capacity: int

    def submit(self, job: TrialJob) -> None:
        """Takes a job; at most `capacity` may be open."""

    def wait(self) -> list[TrialOutcome]:
        """Blocks until at least one job has ended."""

    def close(self) -> None:
        """Ends what is still running."""


class ThisProcess:
    """One trial at a time, here."""

    capacity = 1

    def __init__(self, stop: GracefulStop) -> None:
        self._stop = stop
        self._job: TrialJob | None = None

    def submit(self, job: TrialJob) -> None:
        """Keeps the job for `wait`."""
        self._job = job

    def wait(self) -> list[TrialOutcome]:
        """Runs the job."""
        assert self._job is not None
        return [_run(self._job, self._stop)]

    def close(self) -> None:
        """Nothing is left running."""


class LocalProcesses:
    """Trials side by side on this machine; threads are divided, and each worker has its own GPU where there are some.

    Args:
        num_workers: processes.
        stop: passed on to the workers when it is requested.
    """

    def __init__(self, num_workers: int, stop: GracefulStop) -> None:
        self.capacity = num_workers
        self._stop = stop
        # spawn: a forked child would inherit CUDA, BLAS threads and open SQLite connections, none of which survive it.
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start(index) for index in range(num_workers)]

    def submit(self, job: TrialJob) -> None:
        """Hands the job to an idle worker."""
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        worker.pipe.send(job)

    def wait(self) -> list[TrialOutcome]:
        """Waits for workers to answer or to die."""
        passed_on = False
        while True:
            busy = [worker for worker in self._workers if worker.job is not None]
            wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=0.2)
            if self._stop() and not passed_on:
                passed_on = True
                for worker in busy:
                    worker.process.terminate()  # SIGTERM, which a worker takes as a request
            if outcomes := [outcome for worker in busy if (outcome := self._collect(worker))]:
                return outcomes

    def close(self) -> None:
        """Tells idle workers to leave and ends the others."""
        for worker in self._workers:
            if worker.job is None and worker.process.is_alive():
                worker.pipe.send(None)
            else:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()

    def _collect(self, worker: _Worker) -> TrialOutcome | None:
        job = worker.job
        assert job is not None
        try:
            if worker.pipe.poll():
                outcome: TrialOutcome = worker.pipe.recv()
                worker.job = None
                return outcome
        except (EOFError, ConnectionError):  # the worker died; what follows finds out how
            pass
        if worker.process.is_alive():
            return None
        worker.process.join()
        why = death(worker.process.exitcode, worker.oom_kills)
        self._workers[self._workers.index(worker)] = self._start(worker.index)
        return TrialOutcome(job, error=why, interrupted=True)

    def _start(self, index: int) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, index, self.capacity), daemon=True)
        process.start()
        there.close()
        return _Worker(index, process, here)


@dataclass
class _Worker:
    index: int
    process: Any
    pipe: Connection
    job: TrialJob | None = None
    oom_kills: int | None = field(default_factory=oom_kills)


def _work(pipe: Connection, index: int, num_workers: int) -> None:
    """A worker's life: import once, then trial after trial."""
    guard_logs()
    threading.Thread(target=_leave_with_driver, daemon=True).start()
    with GracefulStop() as stop:
        # Ctrl-C reaches every process of the terminal; the driver hears it, and passes it on as SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for job in iter(pipe.recv, None):
            pipe.send(_run(_on_its_share(job, index, num_workers), stop))


def _leave_with_driver() -> None:
    """A worker that outlived its killed driver would go on with a trial that the next sitting takes up as well."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _on_its_share(job: TrialJob, index: int, num_workers: int) -> TrialJob:
    train = job.experiment.train
    changes: dict[str, object] = {}
    if not train.threads:
        changes["threads"] = max(1, (os.cpu_count() or 1) // num_workers)
    if train.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        changes["device"] = f"cuda:{index % torch.cuda.device_count()}"
    experiment = job.experiment.model_copy(update={"train": train.model_copy(update=changes)})
    return replace(job, experiment=experiment)


def _run(job: TrialJob, stop: GracefulStop) -> TrialOutcome:
    try:
        return TrialOutcome(job, finished=run_trial(job, stop))
    except (Interrupted, KeyboardInterrupt) as error:
        return TrialOutcome(job, error=str(error), interrupted=True)
    except ImgclsError as error:
        return TrialOutcome(job, error=str(error))
    except Exception as error:
        if (explained := explain(error)) is not None:
            return TrialOutcome(job, error=scrubbed(str(explained)))
        sys.stderr.write(scrubbed(traceback.format_exc()))
        return TrialOutcome(job, error=scrubbed(f"{type(error).__name__}: {error}"))


def make_engine(num_workers: int, stop: GracefulStop) -> Engine:
    """The engine for so many workers."""
    return ThisProcess(stop) if num_workers == 1 else LocalProcesses(num_workers, stop)
