"""Text as it may be shown: whatever a name or a message holds, a terminal only ever draws it."""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, colours, breaks lines or turns the direction of text, and half characters; not \\n and \\t."""


def printable(text: str) -> str:
    r"""The text with its control characters spelt out, as Python spells them: ESC becomes `\x1b`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
