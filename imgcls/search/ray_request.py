"""What a sweep asks of Ray: the cluster, and the CPUs and GPUs of each trial; checked before Ray is started."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

from imgcls.config.keys import Experiment
from imgcls.errors import ConfigError, InputError
from imgcls.text import counted, either

ENGINES = ("local", "ray")
"""Engines that train the trials of a sweep: processes of this machine, and a Ray cluster."""


class Need(NamedTuple):
    """What a trial needs of a machine.

    Attributes:
        cpus: which are its CPU threads.
        gpus: 0, 1, or the share of a GPU in (0, 1).
    """

    cpus: int
    gpus: float

    def fitting(self, resources: Mapping[str, float]) -> int:
        """The number of trials that fit on a machine with these resources, as Ray names and counts them."""
        by_cpus = int(resources.get("CPU", 0) / self.cpus)
        if not self.gpus:
            return by_cpus
        on_each_gpu = math.floor(1 / self.gpus + 1e-6)  # no trial has parts of two GPUs
        return min(by_cpus, int(resources.get("GPU", 0)) * on_each_gpu)

    def __str__(self) -> str:
        """Such as `4 CPUs and 0.5 GPU`."""
        return counted(self.cpus, "CPU") + (f" and {self.gpus:g} GPU" if self.gpus else "")


@dataclass(frozen=True)
class RayRequest:
    """What a sweep asks of Ray.

    Attributes:
        address: of a running cluster, as HOST:PORT, or `auto` for the one that this machine belongs to; "" starts Ray
            on this machine, for the length of the sweep.
        cpus_per_trial: CPUs of each trial, which are its CPU threads; None: `train.threads`, or 1 where that is no
            number.
        gpus_per_trial: GPUs of each trial: 0, 1, or the share of a GPU in (0, 1).

    Raises:
        ConfigError: a value that none of them can have.
    """

    address: str = ""
    cpus_per_trial: int | None = None
    gpus_per_trial: float = 0.0

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise ConfigError(
                f"--address {self.address} is that of Ray's client; name the cluster itself, such as --address "
                "HOST:6379, on one of its machines"
            )
        if self.cpus_per_trial is not None and self.cpus_per_trial < 1:
            raise ConfigError(f"--cpus-per-trial {self.cpus_per_trial} is less than 1; a trial has 1 CPU or more")
        if not 0 <= self.gpus_per_trial <= 1:
            raise ConfigError(
                f"--gpus-per-trial {self.gpus_per_trial:g} is outside [0, 1]; a trial trains on one GPU at most, and "
                "with 0.5 two trials share one"
            )

    def need(self, experiment: Experiment) -> Need:
        """What each trial of an experiment needs.

        Raises:
            ConfigError: the experiment has another number of threads, a device that the trials would not have, or
                several processes for each of them.
        """
        self._check_device(experiment.train.device)
        if (num := experiment.search.processes_per_trial) > 1:
            raise ConfigError(
                f"search.processes_per_trial = {num}, but one process trains a trial on Ray; use --set "
                "search.processes_per_trial=1, or the engine of this machine (--engine local)"
            )
        threads = experiment.train.threads
        given = threads if isinstance(threads, int) and threads else None
        if given and self.cpus_per_trial and given != self.cpus_per_trial:
            raise ConfigError(
                f"train.threads = {given}, but --cpus-per-trial is {self.cpus_per_trial}, and on Ray a trial has as "
                'many threads as CPUs; leave one of them out, or --set train.threads="auto"'
            )
        return Need(self.cpus_per_trial or given or 1, self.gpus_per_trial)

    def _check_device(self, device: str) -> None:
        if self.gpus_per_trial and device not in ("auto", "cuda"):
            raise ConfigError(
                f"--gpus-per-trial {self.gpus_per_trial:g} gives each trial a GPU that Ray chooses, but train.device = "
                f'{device!r}; --set train.device="auto"'
            )
        if not self.gpus_per_trial and device not in ("auto", "cpu"):
            raise ConfigError(
                f"train.device = {device!r}, but a trial on Ray sees a GPU only with --gpus-per-trial 1, or a share of "
                "one"
            )


def ray_request(
    engine: str = "local", address: str = "", cpus_per_trial: int | None = None, gpus_per_trial: float | None = None
) -> RayRequest | None:
    """What a sweep with these options asks of Ray; None where it has nothing to do with Ray.

    Raises:
        InputError: an engine that does not exist or is not installed, or options that another one does not have.
    """
    if engine not in ENGINES:
        raise ConfigError(f"--engine {engine!r} does not exist; choose {either(ENGINES)}")
    if engine == "ray":
        if find_spec("ray") is None:
            raise InputError("--engine ray needs Ray; run: pip install 'imgcls[ray]'")
        return RayRequest(address, cpus_per_trial, gpus_per_trial or 0.0)
    options = {"--address": address or None, "--cpus-per-trial": cpus_per_trial, "--gpus-per-trial": gpus_per_trial}
    if given := [option for option, value in options.items() if value is not None]:
        raise ConfigError(f"{given[0]} is an option of --engine ray; add --engine ray, or leave it out")
    return None
