"""Output to a terminal, a pipe or a log: a write that fails never ends the work."""

import io
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from imgcls.processes import own_place


def guard_streams() -> None:
    """Guards the terminal's streams: replaces stdout and stderr of this process by ones to which a write never fails.

    What cannot be delivered is lost: where the reader has left (`| head`), the terminal has gone, the stream was closed
    (`>&-`) or the disk is full. `undelivered` tells why. A character that the locale's encoding lacks is spelt out.
    """
    for number in range(3):
        _keep_occupied(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # a notebook's or a test's own stream is left alone
            setattr(sys, name, _guarded(number, stream))


def undelivered(stream: TextIO) -> str:
    """Why text did not reach the terminal, pipe or log behind a guarded stream; "" if it did, as far as is known."""
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.undelivered if isinstance(raw, _Forgiving) else ""


class Unfailing:
    """A terminal's stream to which a write never fails, around one that is not ours to replace.

    Args:
        stream: such as the stderr of a program that uses imgcls; None is what Python has for a closed one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text, or loses it."""
        with suppress(OSError, ValueError):  # ValueError: closed, or a character that the encoding lacks
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or loses what was not written."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person watches."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stderr() -> Unfailing:
    """The terminal's stderr, for progress: a stream to which a write never fails.

    Of several processes that train together the first one alone shows progress.
    """
    return Unfailing(sys.stderr if own_place().rank == 0 else None)


@contextmanager
def waiting(what: str, after: float = 1.0) -> Iterator[None]:
    """Says on the terminal what a wait is for, once the block has lasted `after` seconds."""
    timer = threading.Timer(after, lambda: stderr().write(f"{what} ...\n"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Forgiving(io.FileIO):
    """A file to which a write never fails; it remembers why something was lost."""

    undelivered = ""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self.undelivered = error.strerror or str(error)
            return memoryview(data).nbytes


def _guarded(number: int, stream: TextIO | None) -> TextIO:
    raw, encoding, by_line = _Forgiving(number, "w", closefd=False), "utf-8", False
    if isinstance(stream, io.TextIOWrapper):
        encoding, by_line = stream.encoding, stream.line_buffering or stream.write_through
        with suppress(OSError):
            stream.flush()
    else:
        raw.undelivered = "it was closed"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=by_line)


def _keep_occupied(number: int) -> None:
    """Opens a closed descriptor on /dev/null; else the next file to be opened, perhaps a database, would get it.

    All lower ones are open, so the system gives this one. Processes that are started from here inherit it.
    """
    try:
        os.fstat(number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
