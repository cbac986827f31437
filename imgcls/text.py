"""Text for people: without control characters, lists and counts in words, and what a misspelt word may have meant."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters: they move the cursor, colour, break lines or turn the direction of text; not \\n and \\t."""


def printable(text: str) -> str:
    r"""The text with its control characters spelt out, as Python spells them: ESC becomes `\x1b`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def listed(items: Sequence[str], num: int | None = None, most: int | None = None) -> list[str]:
    """Text of a list: indented lines, one an item; where there are more than are shown, a last line says how many.

    Args:
        items: what to list, or its beginning.
        num: how many there are in all, where that is not all of `items`.
        most: how many to show; all by default.
    """
    shown = [f"  {item}" for item in items[:most]]
    left = (len(items) if num is None else num) - len(shown)
    return [*shown, f"  and {left} more"] if left > 0 else shown


def counted(number: int, noun: str) -> str:
    """Text of a number and its noun, such as `1 trial`, `2 trials` or `3,000 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


PARTS = " · "
"""What stands between the parts of a trial's name."""


def short(value: object) -> str:
    """Text of a value where there is little room: floats with three digits, small ones as `1.6e-3`; `true` for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def nfc(text: str) -> str:
    """The text in Unicode's Normalization Form C, in which names that look alike because of accents are equal."""
    return unicodedata.normalize("NFC", text)


def spelt(name: str) -> str:
    """The text with the code points of what is not ASCII in it, for names that look alike."""
    points = " ".join(f"U+{ord(letter):04X}" for letter in name if not letter.isascii())
    return f"{name!r} ({points})" if points else repr(name)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The text most like `word` among known words, first of all one that differs in case only; empty if none is alike.

    The cutoff is a ratio of difflib, from 0 (any will do) to 1 (the same word).
    """
    known = list(known)
    if same := [other for other in known if other.casefold() == word.casefold()]:
        return same[0]
    return next(iter(get_close_matches(word, known, n=1, cutoff=cutoff)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Text to end a message about an unknown word: `; did you mean 'X'?`, or nothing where no known word is like it."""
    return suggestion(nearest(word, known))


def suggestion(*words: str) -> str:
    """Text to end a message with a suggestion, `; did you mean 'X' or 'Y'?`; "" without a word that is not empty."""
    meant = [repr(word) for word in words if word]
    return f"; did you mean {either(meant)}?" if meant else ""


def either(words: Sequence[str]) -> str:
    """Text of a choice: `A, B or C`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def duration(seconds: float) -> str:
    """Text of a duration, such as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
