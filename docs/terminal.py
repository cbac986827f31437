"""Records commands as a terminal shows them, as one small SVG: `python docs/terminal.py OUT.svg 'COMMAND' …`.

The commands run one after the other in the working directory, in a terminal of their own. A line appears in the
picture when it came, but a wait is shown as two seconds at most, and its true length is written beside it. A bar of
progress is shown as it was last. Where motion is not wanted (`prefers-reduced-motion`), all lines are there at once.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from imgcls.text import duration

COLUMNS = 118
"""Characters in a line of the terminal."""

MOST_WAIT = 2.0
"""Seconds that a wait is shown for."""

TOLD_WAIT = 5.0
"""Seconds from which a wait's true length is written beside the line that ended it."""

LINE_HEIGHT, CHARACTER_WIDTH, MARGIN = 17, 7.3, 14
"""In pixels."""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
"""Escape sequences: colours and movements of the cursor."""


@dataclass(frozen=True)
class Line:
    """A line of the terminal.

    Attributes:
        text: without escape sequences.
        at: seconds since the first command began.
        typed: a command, not what it printed.
    """

    text: str
    at: float
    typed: bool = False


def record(command: str, begun: float) -> Iterator[Line]:
    """Runs a command in a terminal: the command itself, then its lines as they were when each of them was left.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    yield Line(f"$ {command}", time.perf_counter() - begun, typed=True)
    screen, terminal = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm"}
    process = subprocess.Popen(command, shell=True, stdout=terminal, stderr=terminal, env=os.environ | size)
    os.close(terminal)
    rest = b""
    while chunk := _read(screen):
        *whole, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in whole:
            if text := shown(line.decode(errors="replace")):
                yield Line(text, time.perf_counter() - begun)
    os.close(screen)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # Linux's way to say that the last writer has left
        return b""


def shown(line: str) -> str:
    """What a line shows in the end: the last that was written over it, without escape sequences."""
    parts = [part.rstrip() for part in CONTROL.sub("", line).split("\r")]
    return next((part for part in reversed(parts) if part), "")


def wrapped(lines: list[Line]) -> Iterator[Line]:
    """Lines no longer than the terminal is wide."""
    for line in lines:
        for start in range(0, max(len(line.text), 1), COLUMNS):
            yield Line(line.text[start : start + COLUMNS], line.at, line.typed)


def svg(lines: list[Line]) -> str:
    """The picture, of text alone: it can be searched and copied, and loads nothing."""
    texts, shown_at, before = [], 0.0, 0.0
    for number, line in enumerate(lines):
        waited = line.at - before
        shown_at, before = shown_at + min(waited, MOST_WAIT), line.at
        y = MARGIN + (number + 1) * LINE_HEIGHT
        kind = ' class="typed"' if line.typed else ""
        delay = f' style="animation-delay:{shown_at:.2f}s"'
        texts.append(f'<text x="{MARGIN}" y="{y}"{kind}{delay} xml:space="preserve">{escape(line.text)}</text>')
        if waited >= TOLD_WAIT:
            right = MARGIN + COLUMNS * CHARACTER_WIDTH
            texts.append(f'<text x="{right:.0f}" y="{y}" class="wait"{delay}>{duration(waited)} later</text>')
    width, height = 2 * MARGIN + COLUMNS * CHARACTER_WIDTH, 2 * MARGIN + (len(lines) + 1) * LINE_HEIGHT
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">
<title>A terminal: {escape("; ".join(line.text[2:] for line in lines if line.typed))}</title>
<style>
rect {{ fill: #16181d }}
text {{ font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d6d9e0 }}
text {{ animation: come 0.1s both }}
.typed {{ fill: #8fd18f; font-weight: bold }}
.wait {{ fill: #8a90a0; text-anchor: end }}
@keyframes come {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }}
@media (prefers-reduced-motion: reduce) {{ text {{ animation: none }} }}
</style>
<rect width="100%" height="100%" rx="8"/>
{chr(10).join(texts)}
</svg>
"""


def main() -> None:
    """Runs the commands and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("commands", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    lines = [line for command in arguments.commands for line in record(command, begun)]
    arguments.picture.write_text(svg(list(wrapped(lines))), encoding="utf-8")


if __name__ == "__main__":
    main()
