"""Checkpoints: tensors and plain values only, written aside and renamed, checked and loaded without unpickling code."""

import hashlib
import os
import re
import stat
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from imgcls.errors import InputError
from imgcls.files import written_aside
from imgcls.machine_failures import explain
from imgcls.record import Artifact

RECORD = re.compile(r"[^/\\.][^/\\]*/(data\.pkl|data/\d+|byteorder|version|\.\w+(/\w+)*)", re.ASCII)
"""Pattern of the names that `torch.save` gives the members of its archive."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes a checkpoint of tensors and plain values; the file at `path` is whole at any instant, the old or the new.

    After the return it is on the disk, also if the power fails.

    Raises:
        TypeError: an object of any other kind, which `load_checkpoint` would refuse.
    """
    _check_plain(content, "checkpoint")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, aside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def checkpoint_digest(path: Path) -> str:
    """The SHA-256 of a checkpoint's file, in hexadecimal, recorded so that a changed file is detected."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(
    path: Path, device: torch.device | str = "cpu", *, recorded_digest: str | None = None
) -> dict[str, Any]:
    """Reads a checkpoint that `save_checkpoint` wrote, and compares every byte of it with the file's checksums.

    Args:
        path: of the checkpoint.
        device: where its tensors go.
        recorded_digest: its `checkpoint_digest` by the record; None where an earlier version recorded none.

    Raises:
        InputError: a missing, truncated, damaged or foreign file, or one that would run code on loading.
        ResourceError: the machine does not let us read it, for want of permission, memory or a working disk.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            raise InputError(f"{path} cannot be read: it is a folder or a device, not a file; name a checkpoint")
        with path.open("rb") as file:
            _check_archive(file)
            if recorded_digest is not None:
                _check_digest(path, recorded_digest)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickles that it doubts and then refuses
                content = torch.load(file, map_location=device, weights_only=True)
    except (InputError, torch.OutOfMemoryError):  # the device's memory says nothing against the file
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint {path}; name one that is there, or train the run again") from error
    except OSError as error:  # nor does a failure of the machine
        raise explain(error) or InputError(
            f"{path} cannot be read: {error.strerror or error}; mend that, or name another checkpoint"
        ) from error
    except Exception as error:  # neither zipfile nor torch names its errors for bytes that are not its own
        why = f" ({error})" if isinstance(error, _DamagedError) else ""
        raise InputError(
            f"{path} is not a checkpoint of tensors and plain values, or not all of it is there{why}; "
            "none of its code, if it has any, was run. Put a sound copy in its place, or train the run again"
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is not a checkpoint of imgcls: it holds a {type(content).__name__}; "
            f"name one that imgcls wrote, such as {Artifact.BEST}"
        )
    return content


class _DamagedError(Exception):
    """What is wrong with an archive, in words."""


def _check_digest(path: Path, recorded: str) -> None:
    if (found := checkpoint_digest(path)) != recorded:
        raise InputError(
            f"{path} is not the one that was tracked: its SHA-256 begins with {found[:16]}, the recorded one with "
            f"{recorded[:16]}. Put the original back, or train the run again"
        )


def _check_archive(file: IO[bytes]) -> None:
    """Checks what torch does not: sizes, names, and the CRC-32 of each member; raises various errors."""
    if file.read(4) != b"PK\x03\x04":  # torch would take any other beginning for a bare pickle
        raise _DamagedError("it does not begin as one")
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    names = Counter(member.orig_filename for member in members)
    if odd := [name for name, count in names.items() if count > 1 or not RECORD.fullmatch(name)]:
        raise _DamagedError(f"its member {odd[0][:100]!r} does not belong to a checkpoint, or occurs twice")
    if len({name.partition("/")[0] for name in names}) != 1:
        raise _DamagedError("its members do not lie in one folder")
    packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size]
    if packed or sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
        raise _DamagedError("its members claim to be larger than the file")
    if (damaged := archive.testzip()) is not None:
        raise _DamagedError(f"the checksum of {damaged!r} is not that of its bytes")


def _sync_folder(folder: Path) -> None:
    """Writes a folder to the disk, and with it the names of its files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_plain(value: object, name: str) -> None:
    # Exact types: numpy.float64 is a float too, but is pickled as an object of NumPy.
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str):
        return
    if type(value) is dict or type(value) is OrderedDict:
        for key, item in value.items():
            _check_plain(key, f"key {key!r} of {name}")
            _check_plain(item, f"{name}[{key!r}]")
    elif type(value) is list or type(value) is tuple:
        for index, item in enumerate(value):
            _check_plain(item, f"{name}[{index}]")
    else:
        raise TypeError(f"{name} is a {type(value).__name__}; a checkpoint holds tensors and plain values")
