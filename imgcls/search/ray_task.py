"""What a machine of a Ray cluster does with a job: checks that it has the project, and trains as the driver would."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from imgcls.errors import InputError
from imgcls.search.outcome import J, Outcome, answer
from imgcls.signals import GracefulStop
from imgcls.tracking.credentials import guarded_logs

OF_THE_DRIVER = ("IMGCLS_", "MLFLOW_", "PGPASSWORD")
"""Beginnings of variables of the environment: a trial has the driver's values of them, wherever Ray places it."""

OF_THE_MACHINE = ("IMGCLS_CACHE", "IMGCLS_CACHE_BYTES")
"""Those of them that a machine of the cluster may have by itself, where the driver has none."""


@dataclass(frozen=True)
class Home:
    """The project's folder, which every machine has to have.

    Attributes:
        root: the project's root.
        sign: a file in it that exists as long as the driver lives, by which the folder is told from another one at the
            same path; None where machines need not share the folder.
    """

    root: Path
    sign: Path | None

    def check(self) -> None:
        """Refuses a machine that does not have the folder.

        Raises:
            InputError: naming the machine.
        """
        machine = f"machine {socket.gethostname()} of the Ray cluster"
        if not self.root.is_dir():
            raise InputError(f"{machine} has no folder {self.root}; each machine needs the project at the same path")
        if self.sign is not None and not self.sign.is_file():
            raise InputError(
                f"{machine} has a folder {self.root} of its own, so its trials would be recorded where nobody sees "
                "them; set MLFLOW_TRACKING_URI to a tracking server and IMGCLS_STUDY_STORAGE to a shared storage of "
                "the study"
            )


@dataclass(frozen=True)
class Task(Generic[J]):
    """A job on its way to a machine of the cluster.

    Attributes:
        job: that is trained there.
        home: that the machine has to have.
        environment: the driver's own settings.
        sees_gpus: whether it may see the GPUs that Ray gives it.
    """

    job: J
    home: Home
    environment: Mapping[str, str]
    sees_gpus: bool


def settings_of_the_driver() -> dict[str, str]:
    """The variables of this process's environment that its trials have everywhere."""
    return {name: value for name, value in os.environ.items() if name.startswith(OF_THE_DRIVER)}


def train(task: Task[J]) -> Outcome[J]:
    """Trains a job on a machine of the cluster, in whatever process Ray has for it.

    A SIGINT, which is what Ray makes of a cancelled task, and a SIGTERM are requests to stop after a step.

    Raises:
        InputError: the machine does not have the project.
    """
    _take_settings(task.environment)
    if not task.sees_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray lets a task without a GPU see all of them
    task.home.check()
    with guarded_logs(), GracefulStop():
        return answer(task.job)


def _take_settings(environment: Mapping[str, str]) -> None:
    """Gives this process the driver's settings, and takes away what only its own machine has."""
    for name in settings_of_the_driver().keys() - environment.keys() - {*OF_THE_MACHINE}:
        del os.environ[name]
    os.environ.update(environment)
