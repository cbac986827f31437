"""Where a run comes from: who runs it, on what, with which versions."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from imgcls.record import UNKNOWN, Tag

HEARTBEAT_SECONDS = 30.0
"""How often the process of a run says that it is alive."""

SILENT_SECONDS = 600.0
"""Seconds without a heartbeat after which the process of a run on another machine counts as gone."""


def versions() -> dict[str, str]:
    """Versions of what a result depends on; `unknown` where a package does not tell its own."""
    names = ("imgcls", "torch", "torchvision", "numpy", "pillow", "mlflow", "optuna")
    return {"python": ".".join(map(str, sys.version_info[:3]))} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name) or UNKNOWN  # None where the metadata are damaged, whatever the types say
    except PackageNotFoundError:  # run from its sources, without an installation
        return UNKNOWN


def heartbeat() -> dict[str, str]:
    """The tag that says that a run's process was alive now, in seconds since 1970."""
    return {Tag.HEARTBEAT: f"{time.time():.0f}"}


def is_beating(tags: Mapping[str, str]) -> bool:
    """Whether the process that writes a run has said lately that it is alive."""
    return seconds_to_silence(tags) > 0


def seconds_to_silence(tags: Mapping[str, str]) -> float:
    """Seconds until that process counts as gone if it stays silent; negative once it does."""
    return float(tags.get(Tag.HEARTBEAT, 0)) + SILENT_SECONDS - time.time()


def who_runs() -> dict[str, str]:
    """Tags that say which process of which machine writes a run, and with what."""
    return heartbeat() | {
        Tag.HOST: socket.gethostname(),
        Tag.PID: str(os.getpid()),
        Tag.USER: _user(),
        Tag.SOURCE_NAME: "imgcls",
        Tag.SOURCE_TYPE: "LOCAL",
        Tag.VERSIONS: json.dumps(versions()),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return str(os.getuid())
