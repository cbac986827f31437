"""Errors meant for the user: each names the value, the limit and the remedy."""

from collections import Counter
from pathlib import PurePath

from imgcls.text import counted


class ImgclsError(Exception):
    """Base of every error that the command line prints as one message, without a traceback."""

    exit_code = 1


class InputError(ImgclsError, ValueError):
    """What was asked for cannot be done as asked; nothing was started, nothing was logged."""

    exit_code = 2


class ConfigError(InputError):
    """An experiment file or an override is wrong."""


class DataError(InputError):
    """The images cannot be used as they are."""


class SealedError(ImgclsError):
    """The test split was to be opened without a recorded look."""


class UnreadableImagesError(DataError):
    """Images that cannot be decoded; `offenders` names each with its reason."""

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
    """Counts unreadable images in words: `41 unreadable images: 40 .HEIC, 1 .jpg`."""
    endings = Counter(PurePath(offender.split(": ")[0]).suffix or "without an ending" for offender in offenders)
    by_ending = ", ".join(f"{num} {suffix}" for suffix, num in endings.most_common())
    return f"{counted(len(offenders), 'unreadable image')}: {by_ending}"


class TrainingError(ImgclsError):
    """A run that had started cannot go on."""


class Interrupted(ImgclsError):
    """Ctrl-C, SIGTERM or SIGHUP: the run stopped on purpose, after whole steps."""


class ResourceError(ImgclsError):
    """The machine ran out of disk, memory or files, or does not let us write."""
