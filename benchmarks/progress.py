"""What is being measured, how long it has taken and about how long is left; on stderr."""

from __future__ import annotations

import sys
import time

from imgcls.text import duration


class Progress:
    """Tells time left by the parts' expected shares of the whole, corrected by what was seen.

    Args:
        expected: part -> seconds that it took before on some machine.
    """

    def __init__(self, expected: dict[str, float]) -> None:
        self._expected = expected
        self._done = 0.0
        self._part = ""
        self._started = time.monotonic()

    def begin(self, part: str) -> None:
        """The part before is over."""
        self.end()
        self._part = part
        self.at(0.0, "begins")

    def end(self) -> None:
        """The part under way is over."""
        self._done += self._expected.get(self._part, 0.0)
        self._part = ""

    def at(self, share: float, what: str) -> None:
        """Says what is measured now, with this share of the part done."""
        passed = time.monotonic() - self._started
        done = self._done + share * self._expected.get(self._part, 0.0)
        total = sum(self._expected.values())
        # Until a tenth is done, what was seen says less than what was expected.
        pace = passed / done if done > total / 10 else 1.0
        left = duration(max(0.0, (total - done) * pace))
        sys.stderr.write(f"[{duration(passed):>12}, about {left} left] {self._part}: {what}\n")
        sys.stderr.flush()
