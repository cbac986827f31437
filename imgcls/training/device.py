"""The one place that picks a device, its precision and its threads."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from imgcls.allocator import keep_freed_memory
from imgcls.config.train_keys import TrainConfig
from imgcls.errors import InputError
from imgcls.machine import usable_cores
from imgcls.processes import Place, own_place
from imgcls.training import weight_gradients
from imgcls.training.parallel import ALONE, Ranks, own_ranks

_threads = torch.get_num_threads()
"""Number of threads that torch has where nobody asks for another: at first the one that it chose itself."""

UNKNOWN_MODEL = "unknown model"
"""Stands in the name of a processor that does not tell its model, as many ARM processors; two of them may differ."""


@dataclass(frozen=True)
class Device:
    """The device on which a run computes, with its precision and its threads.

    Attributes:
        torch_device: for tensors and modules.
        autocast: run the forward pass in bfloat16.
        threads: CPU threads of torch.
        name: for people, such as `NVIDIA H100 80GB HBM3` or the processor's name.
        ranks: the processes that train together, each of which has such a device.
    """

    torch_device: torch.device
    autocast: bool
    threads: int
    name: str
    ranks: Ranks = ALONE

    def __str__(self) -> str:
        """Name in the record; where two are equal, equal versions can be expected to give the same bits."""
        of_each = f"{self.place_name}, {self.threads} threads"
        return of_each if self.ranks.size == 1 else f"{of_each}, {self.ranks.size} processes"

    @property
    def setting(self) -> str:
        """`train.device` with which it is had again; of several processes each has a device of that kind."""
        return str(self.torch_device) if self.ranks.size == 1 else self.torch_device.type

    @property
    def place_name(self) -> str:
        """Name without the threads."""
        return f"{self.setting}: {self.name}"

    def with_threads(self, threads: int) -> "Device":
        """The same device with another number of CPU threads, which torch has from now on."""
        torch.set_num_threads(threads)
        return replace(self, threads=threads)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, channels-last, which oneDNN and cuDNN run faster; see also `weight_gradients`.

        Activations follow: the output of a convolution has the layout of its weights.
        """
        model = model.to(self.torch_device)
        if self.torch_device.type == "cpu" and any(map(_writes_out_of_bounds, model.modules())):
            return model
        model = model.to(memory_format=torch.channels_last)
        if self.torch_device.type == "cpu":
            weight_gradients.speed_up(model)
        return model

    def seed(self, seed: int) -> None:
        """Seeds torch's global generators of the processor and of this device.

        torch.manual_seed does so for all devices, and is slow in every step: without a GPU it keeps the stack of each
        call.
        """
        torch.default_generator.manual_seed(seed)
        if self.torch_device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.torch_device.type == "mps":
            torch.mps.manual_seed(seed)

    def forward_context(self) -> torch.autocast:
        """Context of every forward pass on the device: autocast to bfloat16 where the run asks for it."""
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=self.autocast)


def prepare_device(config: TrainConfig) -> Device:
    """Prepares the device of a run: resolves `device`, `precision` and `threads`, and sets torch's switches to them.

    With `train.threads = "auto"` it has the most threads that `auto` can choose.

    Raises:
        InputError: a device that this machine does not have.
    """
    device = _pick(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.set_num_threads(most_threads() if config.threads == "auto" else config.threads or _threads)
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # warn_only: a layer without a deterministic kernel says so instead of ending the run.
    # Not `use_deterministic_algorithms`, which imports torch's compiler: two to three seconds of each process's start.
    torch.set_deterministic_debug_mode("warn" if config.deterministic else "default")
    # By default torch then fills every new tensor, to show reads of what nobody wrote. That costs 5 to 10 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not config.deterministic
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    return Device(device, bfloat16, torch.get_num_threads(), device_name(device), own_ranks())


def most_threads() -> int:
    """The most threads that all trials together get where nobody asks for a number: torch's own, and one a core.

    torch's own are those of `OMP_NUM_THREADS`, or of a program that set them before it called imgcls. torchrun sets
    that to 1, so the processes that it starts share the cores evenly instead.
    """
    if (place := own_place()).size > 1:
        return max(1, usable_cores() // place.local_size)
    return min(_threads, usable_cores())


@contextmanager
def settings_kept() -> Iterator[None]:
    """Keeps, in a block that trains, the process's settings of every device, and its random state, as they were before.

    `train.threads = 0` then means the threads that torch had before the block. What the allocator keeps stays kept.
    """
    global _threads
    outer, _threads = _threads, torch.get_num_threads()
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    state = torch.default_generator.get_state()
    has_gpus = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    of_gpus = torch.cuda.get_rng_state_all() if has_gpus else []
    try:
        yield
    finally:
        torch.set_num_threads(_threads)
        _threads = outer
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.default_generator.set_state(state)
        if of_gpus:
            torch.cuda.set_rng_state_all(of_gpus)


def _writes_out_of_bounds(module: nn.Module) -> bool:
    """Whether training this layer channels-last on a CPU would corrupt memory.

    oneDNN does so in the weight gradient of a strided 1x1 convolution whose input channels do not fill a vector
    register: 8 numbers with AVX2, 16 with AVX-512 (github.com/uxlfoundation/oneDNN/issues/6035; torch 2.15 aborts).
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < 16
    )


def _pick(name: str) -> torch.device:
    if (place := own_place()).size > 1:
        return _pick_one_each(name, place)
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


def _pick_one_each(name: str, place: Place) -> torch.device:
    """The device of one of several processes: the processor, or a GPU of its own."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise InputError(
            f"train.device = {name!r}, but {place.size} processes train together (torchrun), each on a device of its "
            "own; use --set train.device=cuda or --set train.device=cpu"
        )
    if place.local_size > (num := torch.cuda.device_count()):
        raise InputError(
            f"{place.local_size} processes train together here (torchrun), and torch sees {num} CUDA devices, of which "
            f"each needs one; start {num} processes, or use --set train.device=cpu"
        )
    device = torch.device("cuda", place.local_rank)
    torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The device's name for people; of a processor, the model that Linux tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or f"{UNKNOWN_MODEL} of {platform.machine()}"
