"""Streams for people: nothing that is written to a terminal, a pipe or a log ever ends the work that it tells of."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO


def guard_streams() -> None:
    """Replaces stdout and stderr of this process by streams that take whatever is written to them.

    Also where the reader has left (`| head`), the terminal has gone, the stream was closed (`>&-`), the disk is full
    or the locale's encoding lacks a character, which is then spelt out. `undelivered` tells what became of it.
    """
    for number in range(3):
        _keep_occupied(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # a notebook's or a test's own stream is left alone
            setattr(sys, name, _guarded(number, stream))


def undelivered(stream: TextIO) -> str:
    """Why something that was written to a guarded stream did not arrive; "" where all did, as far as can be known."""
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.undelivered if isinstance(raw, _Forgiving) else ""


class Unfailing:
    """Somebody else's stream, such as the stderr of a program that uses imgcls, for progress that may get lost.

    Args:
        stream: None is what Python has for a closed one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, or does without."""
        with suppress(OSError, ValueError):  # ValueError: closed, or a character that the encoding lacks
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does without."""
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
    """Where progress goes."""
    return Unfailing(sys.stderr)


class _Forgiving(io.FileIO):
    """A file descriptor that takes everything, and remembers why something did not arrive."""

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
    raw = _Forgiving(number, "w", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        raw.undelivered = "it was closed"
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _keep_occupied(number: int) -> None:
    """Has a closed descriptor lead nowhere; else the next file that is opened, a database perhaps, would get it."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        if nowhere != number:
            os.close(nowhere)
