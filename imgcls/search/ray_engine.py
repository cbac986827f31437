"""The engine that trains the trials of a sweep on a Ray cluster: Ray chooses the machine of each, and nothing more.

The driver asks and tells as it does everywhere, and a trial reports itself to the study and to MLflow. Ray Tune has no
part in it. Only this file imports Ray.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic

# Ray reads these when it is imported: lines of several trials that look alike are not printed as one, nor in colours.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_COLOR_PREFIX", "0")

import ray
from ray.exceptions import (
    AuthenticationError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)

from imgcls.config.keys import Experiment
from imgcls.errors import ImgclsError, InputError, TrainingError
from imgcls.files import mark_of_this_process
from imgcls.machine import usable_cores
from imgcls.project import MLRUNS
from imgcls.search.engines import SECONDS_TO_LEAVE
from imgcls.search.outcome import J, Outcome
from imgcls.search.ray_request import Need, RayRequest
from imgcls.search.ray_task import Home, Task, settings_of_the_driver, train
from imgcls.search.storage import shared_address
from imgcls.signals import stop_requested
from imgcls.terminal import waiting
from imgcls.text import counted
from imgcls.tracking.store import Tracker
from imgcls.tracking.store_address import database_behind

OBJECT_STORE_BYTES = 100 * 2**20
"""Bytes of shared memory for Ray's objects on this machine: jobs and their results are small."""

SECONDS_BETWEEN_COUNTS = 2.0
"""Seconds after which the machines of the cluster are counted again."""


@contextmanager
def ray_cluster(request: RayRequest, experiment: Experiment, tracker: Tracker) -> Iterator[RayCluster]:
    """The machines of a Ray cluster, for the length of the block.

    Args:
        request: which cluster, and what each trial gets.
        experiment: whose trials they train; a number in `search.workers` is the most of them side by side.
        tracker: where the trials are recorded.

    Raises:
        InputError: no cluster answers, or no machine of it has what a trial needs.
    """
    need, workers = request.need(experiment), experiment.search.workers
    with _connected(request.address), _home(experiment, tracker) as home:
        cluster = RayCluster(need, None if workers == "auto" else workers, home)
        cluster.check()
        yield cluster


@contextmanager
def _home(experiment: Experiment, tracker: Tracker) -> Iterator[Home]:
    """The project's folder, with a sign in it where its machines have to share it for their record or their study."""
    if shared_address(experiment.search.storage) and database_behind(tracker.uri) is None:
        yield Home(tracker.root, None)
        return
    sign = tracker.root / MLRUNS / f".ray{mark_of_this_process()}"
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.touch()
    try:
        yield Home(tracker.root, sign)
    finally:
        sign.unlink(missing_ok=True)


class RayCluster:
    """The machines of the Ray cluster that this process has joined.

    Args:
        need: what each trial needs.
        most: trials side by side; None: as many as fit.
        home: the project's folder.
    """

    name = "ray"

    def __init__(self, need: Need, most: int | None, home: Home) -> None:
        self.need, self.home = need, home
        self.threads = need.cpus
        self._most = most
        self._counted_at, self._num_fitting = -math.inf, 0

    @property
    def capacity(self) -> int:
        """The number of trials that the machines train side by side; 1 where none is left, since one may join."""
        if time.monotonic() - self._counted_at > SECONDS_BETWEEN_COUNTS:
            self._counted_at, self._num_fitting = time.monotonic(), sum(map(self.need.fitting, _machines().values()))
        return max(1, min(self._num_fitting, self._most or self._num_fitting))

    def check(self) -> None:
        """Refuses trials that fit on no machine, for which Ray would wait for ever.

        Raises:
            InputError: naming what the machines have.
        """
        machines = _machines()
        if any(map(self.need.fitting, machines.values())):
            return
        have = "; ".join(f"{name} has {_in_words(resources)}" for name, resources in sorted(machines.items()))
        options = "--cpus-per-trial or --gpus-per-trial" if self.need.gpus else "--cpus-per-trial"
        raise InputError(
            f"no machine of the Ray cluster has {self.need} for a trial; ask for less with {options} ({have})"
        )

    def engine(self) -> RayEngine[Any]:
        """An engine that trains on these machines."""
        return RayEngine(self)


class RayEngine(Generic[J]):
    """The engine that hands jobs to Ray, each as one task.

    Args:
        cluster: whose machines train them.
    """

    def __init__(self, cluster: RayCluster) -> None:
        self._cluster = cluster
        self._settings = settings_of_the_driver()
        self._open: dict[Any, J] = {}
        self._is_asked = False
        need = cluster.need
        # Without max_retries = 0 Ray trains a lost trial again by itself, and nobody counts how often.
        self._train: Any = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, max_retries=0)(train)

    @property
    def capacity(self) -> int:
        """The number of jobs that the machines train side by side now."""
        return self._cluster.capacity

    def submit(self, job: J) -> None:
        """Hands the job to Ray."""
        gpus = self._cluster.need.gpus
        task = Task(_on_a_gpu(job) if gpus else job, self._cluster.home, self._settings, sees_gpus=bool(gpus))
        self._open[self._train.remote(task)] = job

    def wait(self) -> list[Outcome[J]]:
        """Waits until a job has ended, or until machines have joined."""
        capacity = self.capacity
        while True:
            ended, _ = ray.wait([*self._open], timeout=0.2)
            if ended:
                return [self._outcome(ref) for ref in ended]
            if stop_requested():
                self._ask_to_stop()
            elif self.capacity > capacity:
                return []

    def close(self) -> None:
        """Asks open jobs to stop, and kills them after a while; at once those that were asked before."""
        if self._open and not self._is_asked:
            self._ask_to_stop()
            self._wait_for_all()
        for ref in self._open:
            ray.cancel(ref, force=True)
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        if self._open:
            ray.wait([*self._open], num_returns=len(self._open), timeout=SECONDS_TO_LEAVE)

    def _ask_to_stop(self) -> None:
        """Sends each open job a SIGINT, once: it takes the first as a request, and leaves at the second at once."""
        if not self._is_asked:
            self._is_asked = True
            for ref in self._open:
                ray.cancel(ref, force=False)

    def _outcome(self, ref: Any) -> Outcome[J]:
        """What came of a job that has ended.

        Raises:
            ImgclsError: its machine cannot train trials at all.
        """
        job = self._open.pop(ref)
        try:
            return replace(ray.get(ref), job=job)  # the one that was submitted
        except TaskCancelledError:
            return Outcome(job, error="it was stopped before it began", interrupted=True)
        except RayTaskError as error:  # not of the job itself, whose errors `train` answers with
            raise _unusable(error) from error
        except RayError as error:
            return Outcome(job, error=_loss_in_words(error), interrupted=True)


def _on_a_gpu(job: J) -> J:
    """The job, which fails where torch sees no GPU; with `auto` it would train on a CPU and hold the GPU."""
    return replace(job, experiment=job.experiment.replace({"train.device": "cuda"}))


def _unusable(error: RayTaskError) -> ImgclsError:
    cause = error.cause
    if isinstance(cause, ImgclsError):
        return cause
    return TrainingError(
        f"a machine of the Ray cluster cannot train trials ({type(cause).__name__}: {cause}); it needs the same Python "
        "and the same packages as this one"
    )


def _loss_in_words(error: RayError) -> str:
    """How a job was lost that is not to blame for it."""
    if isinstance(error, NodeDiedError):
        return "its machine left the Ray cluster"
    if isinstance(error, OutOfMemoryError):
        return "its machine had no memory left, so Ray killed its process"
    return f"its process was lost (Ray's {type(error).__name__})"


def _machines() -> dict[str, Mapping[str, float]]:
    """Name of each machine that lives, with the beginning of its id in Ray -> its resources."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {
        f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})": node["Resources"] for node in nodes if node["Alive"]
    }


def _in_words(resources: Mapping[str, float]) -> str:
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A block in which this process belongs to a Ray cluster; where its program has joined one already, to that one.

    Raises:
        InputError: no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    try:
        with _handler_of_sigterm_kept():
            _join(address)
    except Exception as error:  # Ray raises plain ones too
        if _is_about_the_token(error):
            raise InputError(
                f"the Ray cluster at {address or 'this machine'} asks for a token: set RAY_AUTH_MODE=token here, and "
                "put the cluster's token into ~/.ray/auth_token, as on its machines"
            ) from error
        reason = str(error).strip().partition("\n")[0]
        where = f"no Ray cluster answers at --address {address}" if address else "Ray does not start on this machine"
        remedy = "; `ray start --head` starts one" if address else ""
        raise InputError(f"{where}: {reason}{remedy}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _is_about_the_token(error: BaseException | None) -> bool:
    """Whether a cluster did not let us in; Ray says so only in what its error was raised from."""
    return error is not None and (isinstance(error, AuthenticationError) or _is_about_the_token(error.__cause__))


def _join(address: str) -> None:
    with waiting(f"joining the Ray cluster at {address}" if address else "starting Ray", after=0.0):
        if address:
            ray.init(address, logging_level=logging.ERROR)
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
        ray.init(
            "local", num_cpus=usable_cores(), object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False,
            logging_level=logging.ERROR,
        )  # fmt: skip


@contextmanager
def _handler_of_sigterm_kept() -> Iterator[None]:
    """Keeps the handler of SIGTERM, which Ray replaces by one of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
