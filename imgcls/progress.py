"""Progress of work on a known number of things: a bar on a terminal, elsewhere a line now and then."""

import logging
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from imgcls import terminal
from imgcls.text import duration

SECONDS_BETWEEN_LINES = 30.0
"""Seconds between the lines of progress where nobody watches, such as in a log file."""

log = logging.getLogger(__name__)


class Progress:
    """Progress of one piece of work, which is over at the end of the `with` block.

    Args:
        total: number of things.
        title: what is done, such as `decoding`.
        unit: what the things are, in the plural.
    """

    def __init__(self, total: int, title: str, unit: str = "images") -> None:
        self._title, self._unit, self._total, self._done = title, unit, total, 0
        self._begun = self._told = time.monotonic()
        self._bar = tqdm(
            total=total, desc=title, unit=f" {unit}", file=terminal.stderr(), leave=False, disable=None
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, num: int) -> None:
        """Counts `num` things more as done."""
        self._bar.update(num)
        self._done += num
        now = time.monotonic()
        if self._bar.disable and now - self._told >= SECONDS_BETWEEN_LINES and self._done:
            self._told = now
            left = (now - self._begun) / self._done * (self._total - self._done)
            log.info("%s: %d of %d %s, %s left", self._title, self._done, self._total, self._unit, duration(left))
