"""A worker of this machine: the process that trains its jobs, and those that train along with it."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from imgcls import terminal
from imgcls.errors import LostProcessError
from imgcls.machine_failures import death, oom_kills
from imgcls.search.outcome import J, Outcome, answer
from imgcls.search.worker_start import hear_sigterm, started
from imgcls.signals import GracefulStop, stop_requested
from imgcls.tracking.credentials import guard_logs
from imgcls.training.parallel import joined

SECONDS_TO_NOTICE = 30.0
"""Seconds that the first process of a worker gets to notice that another one has ended: on a GPU it may never do so."""

LOCALHOST = "127.0.0.1"


class LocalWorker(Generic[J]):
    """A worker: one process, or several that train each of its jobs together, as those of torchrun do.

    The first process runs the job, records it and answers. Where one of them is lost or fails, all of them leave.

    Args:
        index: its number among the workers of this machine, from 0.
        num_workers: of this machine.
        num_processes: that train each job.
    """

    def __init__(self, index: int, num_workers: int = 1, num_processes: int = 1) -> None:
        self.index = index
        self.job: J | None = None
        self._oom_kills = oom_kills()
        self._is_asked = self._leaves = False
        self._lost_at: float | None = None
        self._store = _store_on_loopback() if num_processes > 1 else None
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        for rank in range(num_processes):
            here, there = multiprocessing.Pipe()
            variables = _variables(self._store.port, rank, num_processes, index, num_workers) if self._store else {}
            self._processes.append(started(_work, there, index, variables=variables))
            there.close()
            self._pipes.append(here)

    @property
    def process(self) -> BaseProcess:
        """The first process, which answers."""
        return self._processes[0]

    @property
    def pipe(self) -> Connection:
        """The pipe of the first process."""
        return self._pipes[0]

    @property
    def has_left(self) -> bool:
        """Whether it takes no further job."""
        return self._leaves or not all(process.is_alive() for process in self._processes)

    def submit(self, job: J) -> None:
        """Hands the job to all of its processes."""
        self.job = job
        self._tell(job)

    def dismiss(self) -> None:
        """Tells it to leave, which it does after the job that it may have."""
        self._tell(None)

    def ask_to_stop(self) -> None:
        """Sends SIGTERM, once: a worker takes the first as a request and leaves at the second at once.

        The first process passes it on to the others, so that all of them stop after the same step.
        """
        if not self._is_asked:
            self._is_asked = True
            self.process.terminate()

    def outcome(self) -> Outcome[J] | None:
        """The outcome of its job; None while it trains."""
        job = self.job
        assert job is not None
        outcome = _received(self.pipe)
        if outcome is None and self.process.is_alive():
            self._end_what_notices_nothing()
            return None
        self.job = None
        if outcome is None:
            self.process.join()
            outcome = Outcome(job, error=death(self.process.exitcode, self._oom_kills), interrupted=True)
        self._leaves = outcome.leaves
        return replace(self._with_cause(outcome) if outcome.interrupted else outcome, job=job)  # that was submitted

    def end(self, by: float) -> None:
        """Waits for its processes to leave, and kills those that have not left at a time of `time.monotonic()`."""
        for process in self._processes:
            process.join(timeout=max(0.0, by - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def _tell(self, word: J | None) -> None:
        for pipe in self._pipes:
            with suppress(OSError):  # the process died while it was idle; `outcome` finds out how
                pipe.send(word)

    def _with_cause(self, outcome: Outcome[J]) -> Outcome[J]:
        """The outcome with the reason of the process that ended before the first one: its error or its death."""
        for process, pipe in zip(self._processes[1:], self._pipes[1:], strict=True):
            error: Outcome[J] | None = _received(pipe)
            if error is not None:
                return error
            if process.exitcode:
                return replace(outcome, error=death(process.exitcode, self._oom_kills))
        return outcome

    def _end_what_notices_nothing(self) -> None:
        """Kills the first process if another one ended some time ago, and it still waits for that."""
        if all(process.is_alive() for process in self._processes):
            return
        self._lost_at = self._lost_at or time.monotonic()
        if time.monotonic() - self._lost_at > SECONDS_TO_NOTICE:
            self.process.kill()


def _received(pipe: Connection) -> Any:
    """What a process has sent; None where it has sent nothing, or died."""
    try:
        return pipe.recv() if pipe.poll() else None
    except (EOFError, OSError):
        return None


def _store_on_loopback() -> TCPStore:
    """Where the processes of a worker find one another's addresses; by itself TCPStore listens on every interface."""
    listening = socket.create_server((LOCALHOST, 0))
    port, descriptor = listening.getsockname()[1], listening.detach()  # which is the store's from now on
    return TCPStore(LOCALHOST, port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor)


def _variables(port: int, rank: int, num_processes: int, index: int, num_workers: int) -> dict[str, str]:
    """The environment by which the processes of a worker meet, as torchrun would set it.

    The driver serves the store in which their addresses are. The local rank counts the processes of all workers, so
    that each process has a GPU, or a share of the cores, of its own.
    """
    return {
        "MASTER_ADDR": LOCALHOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_RANK": str(index * num_processes + rank),
        "LOCAL_WORLD_SIZE": str(num_workers * num_processes),
    }


def _work(pipe: Connection, index: int) -> None:
    """A process's life: job after job, until it is asked to stop or a job of several has failed."""
    terminal.guard_streams()
    guard_logs()
    with suppress(LostProcessError), GracefulStop():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        hear_sigterm()
        with joined() as ranks:
            if ranks.rank:
                logging.disable(logging.WARNING)  # the first process says it
            for job in iter(pipe.recv, None):
                outcome = answer(_on_its_gpu(job, index) if ranks.size == 1 else job)
                leaves = bool(stop_requested()) or (ranks.size > 1 and outcome.finished is None)
                if not ranks.rank or (outcome.error and not outcome.interrupted):
                    pipe.send(replace(outcome, leaves=leaves))
                if leaves:
                    return


def _on_its_gpu(job: J, index: int) -> J:
    train = job.experiment.train
    if train.device not in ("auto", "cuda") or torch.cuda.device_count() <= 1:
        return job
    device = f"cuda:{index % torch.cuda.device_count()}"
    return replace(job, experiment=job.experiment.replace({"train.device": device}))
