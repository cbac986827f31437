"""Decoding ahead of its use by processes or threads, results in order.

Processes for small images: threads would wait for one another, because each of Pillow's short calls gives up the
interpreter's lock and asks for it again.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from imgcls.allocator import keep_freed_memory
from imgcls.errors import DataError

In = TypeVar("In")
Out = TypeVar("Out")

CAN_FORK = "fork" in multiprocessing.get_all_start_methods()
"""Whether processes can decode: images are read through closures, which no other start method carries over."""


def cores() -> int:
    """The number of decode workers that can be at work at once: the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(work: Callable[[In], Out], items: Sequence[In], num_processes: int) -> Iterator[Out]:
    """Decode workers that are processes: `map(work, items)`, a few items each ahead of the reader of the results.

    Args:
        work: done in a fork of this process, so that what it changes there is lost; its result is pickled.
        items: the arguments of `work`.
        num_processes: 0 does the work in this process.

    Raises:
        DataError: that `work` raised, with its own words alone.
    """
    loader: DataLoader[Any] = DataLoader(
        _Items(work, items),
        batch_size=None,
        collate_fn=lambda result: result,
        num_workers=num_processes if CAN_FORK else 0,
        multiprocessing_context="fork" if CAN_FORK and num_processes else None,
        worker_init_fn=_begin,
    )
    for result in loader:
        if isinstance(result, DataError):
            raise result
        yield result


def in_threads(work: Callable[[In], Out], pieces: Iterable[In]) -> Iterator[Out]:
    """Decode workers that are threads: `map(work, pieces)`, a few pieces ahead of the reader of the results."""
    # Threads: Pillow's decoders and filters and hashlib all release the GIL.
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > 2 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Items(Dataset[Any], Generic[In, Out]):
    """An error is handed over as it is: raised in a worker, it would arrive as a traceback."""

    def __init__(self, work: Callable[[In], Out], items: Sequence[In]) -> None:
        self._work = work
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Out | DataError:
        try:
            return self._work(self._items[index])
        except DataError as error:
            return error


def _begin(_: int) -> None:
    """Ctrl-C and a terminal's end reach all its processes; the parent alone decides, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
