"""Several processes that train one model together, each on its part of every batch: their sums, and what they agree on.

torchrun starts them, or the driver of a sweep. Whatever waits for the other processes here fails as soon as one of them
has ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from imgcls.errors import ImgclsError, InputError, LostProcessError, OneProcessError
from imgcls.processes import Place, own_place

T = TypeVar("T")

ANSWER = timedelta(minutes=10)
"""Longest time that a process waits for the others within a step. A process that hangs ends the run after it."""

PATIENCE = timedelta(days=2)
"""Longest time that a process waits for the first one between steps, while that decodes images, records or draws."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together, seen from one of them. One process alone does nothing here.

    Attributes:
        place: of this process.
        patient: the group of processes for long waits.
    """

    place: Place = Place()  # noqa: RUF009 - it is frozen
    patient: dist.ProcessGroup | None = None

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.place.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.place.size

    def part_of(self, num: int) -> slice:
        """This process's part of so many things; the parts differ by one at most, and may be empty."""
        return slice(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same bits in each. It has no gradient, unless one is alone."""
        if self.size == 1:
            return tensor
        summed = tensor.detach().clone()
        with _waiting(self.size):
            dist.all_reduce(summed)
        return summed

    def each(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, which have one shape, as rows by rank."""
        if self.size == 1:
            return tensor[None]
        rows = [torch.empty_like(tensor) for _ in range(self.size)]
        with _waiting(self.size):
            dist.all_gather(rows, tensor)
        return torch.stack(rows)

    def add_gradients(self, model: nn.Module) -> None:
        """Replaces each gradient of a model by its sum over all processes, which is the gradient of the whole batch."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        summed = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        of_each = torch.split_with_sizes(summed, [gradient.numel() for gradient in gradients])
        for gradient, values in zip(gradients, of_each, strict=True):
            gradient.copy_(values.view(gradient.shape))

    def any(self, is_wanted: object) -> bool:
        """Whether a process wants something, such as to stop: all of them agree on the answer."""
        if self.size == 1:
            return bool(is_wanted)
        # The answer is summed on the CPU, so that nobody waits for an accelerator.
        return bool(self.total(torch.tensor(float(bool(is_wanted)))))

    def interleaved(self, tensors: list[Tensor]) -> list[Tensor]:
        """Tensors that the processes made in turns, in that order, on the CPU: the first of each, then the second."""
        if self.size == 1:
            return tensors
        of_each: list[Any] = [None] * self.size
        with _waiting(self.size):
            dist.all_gather_object(of_each, [tensor.cpu() for tensor in tensors])
        return [tensor for tensor in chain(*zip_longest(*of_each)) if tensor is not None]

    def from_first(self, value: T) -> T:
        """The value of the first process, however long that takes to have it; other processes may pass anything."""
        if self.size == 1:
            return value
        values = [value if self.rank == 0 else None]
        with _waiting(self.size):
            dist.broadcast_object_list(values, group=self.patient)
        return values[0]  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """Makes something on each process: on the first one of each machine first, for the others to find its files.

        Raises:
            OneProcessError: it failed on this process, although it did not on the first of all.
        """
        if self.place.local_rank:
            self.meet()
        try:
            made = make()
        except ImgclsError as error:
            if self.rank == 0:
                raise
            raise OneProcessError(f"process {self.rank} of {self.size}: {error}") from error
        if not self.place.local_rank:
            self.meet()
        self.meet()
        return made

    def meet(self) -> None:
        """Waits until all processes have come here, however long that takes."""
        if self.size > 1:
            with _waiting(self.size):
                dist.barrier(group=self.patient)


ALONE = Ranks()
"""The one process of a run that no other process trains along."""

_own = ALONE


def own_ranks() -> Ranks:
    """The processes that train together with this one: `ALONE` outside a `joined` block."""
    return _own


@contextmanager
def joined() -> Iterator[Ranks]:
    """A block in which the processes that were started together train one run after the other.

    Raises:
        InputError: torchrun did not start them, and no driver of a sweep did.
        LostProcessError: another process has ended, or did not come.
    """
    global _own
    place = own_place()
    if place.size == 1:
        yield ALONE
        return
    try:
        _own = Ranks(place, _met(place))
        yield _own
    finally:
        _own = ALONE
        if dist.is_initialized():
            dist.destroy_process_group()


def _met(place: Place) -> dist.ProcessGroup:
    """Meets the other processes; gives the group for long waits."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _waiting(place.size):
        try:
            store, *_ = next(rendezvous("env://", timeout=ANSWER))
        except ValueError as error:
            raise InputError(
                f"WORLD_SIZE = {place.size} in the environment asks for processes that train together, but: {error}; "
                "start them with torchrun, or unset WORLD_SIZE and RANK"
            ) from error
        if place.local_size == place.size:
            # torchrun keeps its store when it starts the processes again, with the addresses of those that are gone.
            # On several machines the number of starts may differ from one to the other.
            store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, timeout=ANSWER, store=store, rank=place.rank, world_size=place.size)
        return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))


@contextmanager
def _waiting(size: int) -> Iterator[None]:
    """A block that waits for the other processes: the errors of gloo and nccl become one of ours."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError(
            f"another of the {size} processes that train this run together has ended, or does not answer"
        ) from error
