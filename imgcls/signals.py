"""Ctrl-C, SIGTERM and SIGHUP become a request that the loop can grant between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from imgcls.errors import Interrupted


class GracefulStop:
    """While entered, the first SIGINT, SIGTERM or SIGHUP sets `requested`; a second one interrupts at once.

    Then a KeyboardInterrupt leaves the block, also where native code has made another error of it, as torch.save does.
    SIGHUP says that the terminal has gone. Where it is ignored, as `nohup` has it, it stays ignored. The shell and the
    kernel both send it, so a SIGHUP never counts as the second signal.
    Off the main thread, where Python allows no handlers, it only answers False.
    """

    def __init__(self) -> None:
        self.requested = ""
        self.insisted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return bool(self.requested)

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            heard = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                heard.append(signal.SIGHUP)
            for number in heard:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.insisted and isinstance(error, Exception) and not isinstance(error, Interrupted):
            raise KeyboardInterrupt from error

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = signal.Signals(number).name
        elif number != signal.SIGHUP:
            self.insisted = True
            raise KeyboardInterrupt


def stop_requested() -> str:
    """The signal by which the GracefulStop in force was asked to stop; "" without one."""
    stop = _in_force()
    return stop.requested if stop else ""


def interruption(error: BaseException) -> BaseException | None:
    """The request to stop behind an exception; None where it is a failure.

    After a second signal nothing is a failure: whatever ends a block then is what became of the KeyboardInterrupt.
    """
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return error
    stop = _in_force()
    return KeyboardInterrupt() if stop and stop.insisted else None


def _in_force() -> GracefulStop | None:
    stop = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return stop if isinstance(stop, GracefulStop) else None
