"""What the figures were taken on and with; nothing that names the machine or a place on it."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from imgcls.training.device import device_name

PACKAGES = (
    "torch", "torchvision", "lightning", "timm", "mlflow", "optuna", "numpy", "pillow", "scikit-learn", "elpv-dataset",
)  # fmt: skip


def describe_machine() -> dict[str, object]:
    """Plain values for the record."""
    cuda = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "gpu": torch.cuda.get_device_name() if cuda else "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
