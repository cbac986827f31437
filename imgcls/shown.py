"""Text as it may be shown: whatever a name or a message holds, a terminal only ever draws it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, colours, breaks lines or turns the direction of text, and half characters; not \\n and \\t."""


def printable(text: str) -> str:
    r"""The text with its control characters spelt out, as Python spells them: ESC becomes `\x1b`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def listed(items: Sequence[str], num: int | None = None, most: int | None = None) -> list[str]:
    """Indented lines, one an item; where there are more than are shown, a last line says how many.

    Args:
        items: what to list, or its beginning.
        num: how many there are in all, where that is not all of `items`.
        most: how many to show; all by default.
    """
    shown = [f"  {item}" for item in items[:most]]
    left = (len(items) if num is None else num) - len(shown)
    return [*shown, f"  and {left} more"] if left > 0 else shown


def nfc(text: str) -> str:
    """The text in Unicode's Normalization Form C, in which names that look alike because of accents are equal."""
    return unicodedata.normalize("NFC", text)


def spelt(name: str) -> str:
    """A name and the code points of what is not ASCII in it, for names that look alike."""
    points = " ".join(f"U+{ord(letter):04X}" for letter in name if not letter.isascii())
    return f"{name!r} ({points})" if points else repr(name)
