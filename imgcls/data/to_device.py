"""From the processor's memory to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, without waiting for what the device is doing.

    A copy to CUDA from ordinary memory waits for all work before it; from pinned memory it takes its turn.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
