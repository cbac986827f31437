"""Checkpoints: tensors and plain values only, written aside and renamed, loaded without unpickling code."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgcls.errors import InputError


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors and plain values so that the file at `path` is at any instant whole: the old or the new one.

    Raises:
        TypeError: an object of any other kind, which `load_checkpoint` would refuse.
    """
    _check_plain(content, "checkpoint")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote.

    Raises:
        InputError: a missing, truncated or foreign file, or one that would run code on loading.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch names no set of errors for bytes that are not its own, and raises many
        raise InputError(
            f"{path} is not a checkpoint of tensors and plain values, or not all of it is there; "
            "none of its code, if it has any, was run"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a checkpoint of imgcls: it holds a {type(content).__name__}")
    return content


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
