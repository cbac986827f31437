"""The one place that picks a device, its precision and its threads."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from imgcls.config import TrainConfig
from imgcls.errors import InputError


@dataclass(frozen=True)
class Device:
    """Where a run computes, as resolved.

    Attributes:
        torch_device: for tensors and modules.
        autocast: run the forward pass in bfloat16.
        threads: CPU threads of torch.
        name: for people, such as `NVIDIA H100 80GB HBM3` or the processor's name.
    """

    torch_device: torch.device
    autocast: bool
    threads: int
    name: str

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, its convolutions channels-last, which oneDNN and cuDNN run faster."""
        return model.to(self.torch_device).to(memory_format=torch.channels_last)

    def forward_context(self) -> torch.autocast:
        """Around every forward pass."""
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=self.autocast)


def prepare_device(config: TrainConfig) -> Device:
    """Resolves `device`, `precision` and `threads`, and sets torch's global switches to them.

    Raises:
        InputError: a device that this machine does not have.
    """
    device = _pick(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # warn_only: a layer without a deterministic kernel says so instead of ending the run.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not config.deterministic
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    return Device(device, bfloat16, torch.get_num_threads(), _name(device))


def _pick(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"train.device = {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here; use auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("train.device = 'mps', but torch has no Metal device here; use auto or cpu")
    return device


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
