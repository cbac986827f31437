"""Errors meant for the user: each names the value, the limit and the remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from .text import counted


class ImgclsError(Exception):
    """Base of every error that the command line prints as one message, without a traceback."""

    exit_code = 1


class InputError(ImgclsError, ValueError):
    """Error for what cannot be done as it was asked; nothing was started, nothing was logged."""

    exit_code = 2


class ConfigError(InputError):
    """Error in an experiment file or an override.

    Attributes:
        remedy: dotted key -> value that mends it, where one is known.
    """

    def __init__(self, message: str, remedy: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.remedy = dict(remedy or {})


class DataError(InputError):
    """Error of images that cannot be used as they are."""


class SealedError(ImgclsError):
    """Error of opening the test split without a recorded look."""


class SealedImagesError(InputError):
    """Error of test images among those to predict, without leave to look at them."""


class NoReadableImageError(ImgclsError):
    """Error of images to predict none of which can be decoded."""


class UnreadableImageError(Exception):
    """Error of one image that cannot be decoded; callers collect these into an `UnreadableImagesError`."""


class UnreadableImagesError(DataError):
    """Error of images that cannot be decoded; `offenders` names each with its reason."""

    def __init__(self, offenders: list[str]) -> None:
        self.offenders = offenders
        super().__init__(
            "\n".join([
                unreadable_in_words(offenders),
                *(f"  {offender}" for offender in offenders),
                "repair or remove them, or leave them out with data.skip_unreadable = true",
            ])
        )  # fmt: skip


def unreadable_in_words(offenders: list[str]) -> str:
    """The error of unreadable images in a few words: `41 unreadable images: 40 .HEIC, 1 .jpg`."""
    endings = Counter(PurePath(offender.split(": ")[0]).suffix or "without an ending" for offender in offenders)
    by_ending = ", ".join(f"{num} {suffix}" for suffix, num in endings.most_common())
    return f"{counted(len(offenders), 'unreadable image')}: {by_ending}"


class TrainingError(ImgclsError):
    """Error of a run that had started and cannot go on."""


class DamagedError(TrainingError):
    """Error of a run whose training cannot go on, because its last checkpoint cannot be read."""


class Interrupted(ImgclsError):
    """Error of a run that stopped on purpose, after whole steps, for Ctrl-C, SIGTERM or SIGHUP."""


class LostProcessError(Interrupted):
    """Error of a run that several processes train, one of which has ended; the same command goes on."""


class OneProcessError(ImgclsError):
    """Error that only this one of several processes has, so that it has to say it itself."""

    exit_code = 2


class OutOfTime(Interrupted):
    """Error of a run that stopped after whole steps because its time was over; it is paused."""


class LeaseLost(Interrupted):
    """Error of a process that was silent for so long that others go on with its work; it writes nothing more."""


class ResourceError(ImgclsError):
    """Error of a machine that ran out of disk, memory or files, or does not let us write."""
