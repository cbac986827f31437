"""Waiting for a tracking server: how often it is tried, for how long, and what is said meanwhile."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from imgcls.errors import InputError, Interrupted
from imgcls.signals import stop_requested
from imgcls.tracking.outbox import Outbox
from imgcls.tracking.server_errors import Away, Denied, Unsent, classify

T = TypeVar("T")
log = logging.getLogger(__name__)

STOP_GRACE = 3.0
"""Seconds that a wait goes on after Ctrl-C or SIGTERM."""
NO_PROGRESS = 120.0
"""Seconds after which a wait ends for entries that the server does not take although it answers."""
SILENCE = 10.0
"""Seconds without an answer after which a warning says that something waits."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts; the last repeats."""


def answer(server: str, what: str, call: Callable[[], T], limit: float | None = None) -> T:
    """Waits for a server's answer to a call, which is tried until there is one, or for `limit` seconds.

    Raises:
        InputError: none came in time, or the server does not let us in.
        Interrupted: a stop was requested meanwhile.
        MlflowException: the server refused.
    """
    attempts = _Attempts(call)
    patience = Patience(server, what, limit)
    try:
        while not wait([attempts.answer], timeout=0.2).done:
            patience.spend(attempts.trouble, attempts.num_failures)
    finally:
        attempts.abandoned.set()
    patience.end()
    try:
        return attempts.answer.result()
    except Denied as error:
        raise InputError(
            f"the tracking server {server} {error}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        ) from None


class _Attempts(Generic[T]):
    """A call that is tried on a thread of its own, so that whoever waits for it may leave at any moment."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.answer: Future[T] = Future()
        self.abandoned = threading.Event()
        self.trouble: Unsent | None = None
        self.num_failures = 0
        self._call = call
        threading.Thread(target=self._try, name="asking the tracking server", daemon=True).start()

    def _try(self) -> None:
        while not self.abandoned.is_set():
            try:
                self.answer.set_result(self._call())
                return
            except Exception as error:
                known = classify(error)
                if not isinstance(known, Unsent) or isinstance(known, Denied):
                    self.answer.set_exception(known if isinstance(known, Denied) else error)
                    return
                self.trouble = known
            self.num_failures += 1
            self.abandoned.wait(PAUSES[min(self.num_failures, len(PAUSES)) - 1])


class Patience:
    """A wait for the server, which says when it has become long and when it is over."""

    def __init__(self, server: str, what: str, limit: float | None = None) -> None:
        self._server, self._what, self._limit = server, what, limit
        self._started = time.monotonic()
        self._stopped = 0.0
        self._said = False

    def spend(self, trouble: Unsent | None, num_failures: int) -> None:
        """Called a few times a second while the wait lasts.

        Raises:
            InputError: it has lasted for too long.
            Interrupted: a stop was requested.
        """
        now = time.monotonic()
        if self._limit is not None and now - self._started > self._limit:
            raise InputError(
                f"the tracking server {self._server} {trouble or 'does not answer'}; start it or correct "
                "MLFLOW_TRACKING_URI, or unset it to keep the record in mlflow.db here"
            )
        if signal := stop_requested():
            self._stopped = self._stopped or now
            if now - self._stopped > STOP_GRACE:
                raise Interrupted(f"stopped by {signal} while {self._what} waited for the tracking server")
        if not self._said and (num_failures >= 2 or now - self._started > SILENCE):
            self._said = True
            until = (
                f"in case it is starting, it is tried for {self._limit:.0f} s"
                if self._limit is not None
                else "runs that are open train on, and what they write waits on the disk"
            )
            log.warning(
                "%s waits: the tracking server %s %s; %s; Ctrl-C ends the wait",
                self._what, self._server, trouble or "has not answered yet", until,
            )  # fmt: skip

    def end(self) -> None:
        """The server has answered."""
        if self._said:
            log.warning("%s goes on after %.0f s", self._what, time.monotonic() - self._started)


def while_progressing(outbox: Outbox) -> Iterator[None]:
    """Waits for a server to take an outbox, a little at a time; ends when nothing is taken although it answers."""
    outbox.hurry()
    started = moved = rung = now = time.monotonic()
    before = outbox.pending()
    while now - moved <= NO_PROGRESS:
        yield
        time.sleep(0.02 if now - started < 1 else 0.2)
        now = time.monotonic()
        if now - rung > 2:
            rung = now
            outbox.hurry()
        if (pending := outbox.pending()) != before or isinstance(outbox.trouble, Away):
            before, moved = pending, now
