"""Decoding ahead of its use by processes or threads, results in order.

Processes for small images: threads would wait for one another, because each of Pillow's short calls gives up the
interpreter's lock and asks for it again.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from imgcls.allocator import keep_freed_memory
from imgcls.errors import DataError
from imgcls.machine import usable_cores

In = TypeVar("In")
Out = TypeVar("Out")

SECONDS_PER_IMAGE, SECONDS_PER_PIXEL = 0.3e-3, 15e-9
"""Seconds that decoding and hashing take on one core, roughly."""


TYPICAL_PIXELS = 640 * 480
"""Number of pixels of an image of which nothing is known."""


WORTH_PROCESSES = 1.0
"""Seconds of work that are worth one more process, which takes time to start and slows the parent's writing."""


WORTH_THREADS = 1e-3
"""Seconds for one image from which on threads pay; for smaller images they wait for one another."""


PIECE_BYTES, PIECE_IMAGES = 2**22, 256
"""Most bytes of squares, and most images, of one piece of decoding."""


CAN_FORK = "fork" in multiprocessing.get_all_start_methods()
"""Whether processes can decode: images are read through closures, which no other start method carries over."""


def cores() -> int:
    """The number of decode workers that can be at work at once: the processors that this process may use."""
    return usable_cores()


def images_of_a_piece(square_bytes: int) -> int:
    """The number of images of one piece of decoding, each of which makes so many bytes of squares; at least 1."""
    return max(1, min(PIECE_IMAGES, PIECE_BYTES // max(1, square_bytes)))


def ahead(work: Callable[[In], Out], items: Sequence[In], num_processes: int) -> Iterator[Out]:
    """Decode workers that are processes: `map(work, items)`, a few items each ahead of the reader of the results.

    Args:
        work: done in a fork of this process, so that what it changes there is lost; its result is pickled.
        items: the arguments of `work`.
        num_processes: 0 does the work in this process.

    Raises:
        DataError: that `work` raised, with its own words alone.
    """
    from torch.utils.data import DataLoader  # late, since a wrong name of a run is answered before torch is imported

    loader: DataLoader[Any] = DataLoader(
        _Items(work, items),  # type: ignore[arg-type]
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


def spread(
    work: Callable[[range], Out], num_rows: int, most: int, num_pixels: Callable[[Out], int]
) -> Iterator[tuple[range, Out]]:
    """Decode workers of whichever kind pays: the work on consecutive rows, in order, each piece with its rows.

    Processes, threads or neither: as many cores take part as pay for their start if all images are like the first.

    Args:
        work: rows -> what comes of them; done in a fork of this process where processes pay.
        num_rows: of images.
        most: rows that are one piece of work.
        num_pixels: of the images that a piece decoded, all together; 0 where that is not known.

    Raises:
        DataError: that `work` raised, with its own words alone.
    """
    pieces = list(pieces_of(num_rows, most))
    if not pieces:
        return
    first = work(pieces[0])
    yield pieces[0], first
    rest = pieces[1:]
    seconds = SECONDS_PER_IMAGE + SECONDS_PER_PIXEL * (num_pixels(first) or TYPICAL_PIXELS)
    num_paid = int(seconds * num_rows / WORTH_PROCESSES)
    if CAN_FORK and num_paid:
        done = ahead(work, rest, min(cores(), 1 + num_paid))
    elif seconds >= WORTH_THREADS:
        done = in_threads(work, rest)
    else:
        done = map(work, rest)
    yield from zip(rest, done, strict=True)


def pieces_of(num_rows: int, most: int) -> Iterator[range]:
    """Pieces for decode workers: consecutive rows, many together because handing one over costs more than an image.

    The first is one row, from which the others are judged. Towards the end pieces become smaller ("guided
    self-scheduling", Polychronopoulos and Kuck, 1987), so that the cores finish together.
    """
    start = 0
    while start < num_rows:
        share = (num_rows - start) // (8 * cores())
        size = max(1, min(most, share)) if start else 1
        yield range(start, start + size)
        start += size


class _Items(Generic[In, Out]):
    """An error is handed over as it is: raised in a worker of torch's loader, it would arrive as a traceback."""

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
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    keep_freed_memory()


def _leave_with_parent() -> None:
    """Ends this process when its parent was killed, at whatever moment.

    torch's own worker looks every few seconds whether its parent is still the one that it had when it began, and
    would stay for ever where that one was killed before.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
