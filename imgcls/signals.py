"""Ctrl-C, SIGTERM and SIGHUP become a request to stop, which training grants between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

from imgcls.errors import Interrupted


class GracefulStop:
    """A block in which the first SIGINT, SIGTERM or SIGHUP is a request to stop; a second one interrupts at once.

    `stop_requested` tells everybody in this process of the request. The second signal leaves the block as a
    KeyboardInterrupt, also where native code has made another error of it, as torch.save does.
    SIGHUP says that the terminal has gone. Where it is ignored, as under `nohup`, it stays ignored. The shell and the
    kernel both send it, so a SIGHUP never counts as the second signal.
    Python allows handlers on the main thread only; entered on another thread, this does nothing.
    """

    _in_force: ClassVar[GracefulStop | None] = None

    def __init__(self) -> None:
        self.insisted = False
        self._requested = ""
        self._outer: GracefulStop | None = None
        self._handlers_before: dict[signal.Signals, Any] = {}

    def requested(self) -> str:
        """The signal by which a stop was requested, such as "SIGTERM"; "" without one."""
        return self._requested

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            heard = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                heard.append(signal.SIGHUP)
            self._handlers_before = {number: signal.signal(number, self._handle) for number in heard}
            self._outer, GracefulStop._in_force = GracefulStop._in_force, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        if GracefulStop._in_force is self:
            GracefulStop._in_force = self._outer
        if self.insisted and isinstance(error, Exception) and not isinstance(error, Interrupted):
            raise KeyboardInterrupt from error

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self._requested:
            self._requested = signal.Signals(number).name
        elif number != signal.SIGHUP:
            self.insisted = True
            raise KeyboardInterrupt


def stop_requested() -> str:
    """The signal by which this process was asked to stop, such as "SIGTERM"; "" without a request."""
    stop = GracefulStop._in_force
    return stop.requested() if stop else ""


def interruption(error: BaseException) -> BaseException | None:
    """The signal's request to stop that is behind an exception; None where the exception is a failure.

    After a second signal every exception counts as its KeyboardInterrupt.
    """
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return error
    stop = GracefulStop._in_force
    return KeyboardInterrupt() if stop and stop.insisted else None
