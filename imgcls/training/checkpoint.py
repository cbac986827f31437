"""Checkpoints: tensors and plain values only, written aside and renamed, loaded without unpickling code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from imgcls.errors import InputError


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors and plain values so that the file at `path` is at any instant whole: the old or the new one."""
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
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is not a whole checkpoint of tensors and plain values: {first_line}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a checkpoint of imgcls: it holds a {type(content).__name__}")
    return content
