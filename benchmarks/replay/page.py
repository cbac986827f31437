"""The table of the replay for docs/searching.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
"""Table -> method -> what was found, as RESULTS.json holds it."""


def markdown(found: Results) -> str:
    """A row for each method, and for each table two columns: the ratio of seconds, and the regret after 5 trainings."""
    tables = list(found)
    methods = dict.fromkeys(method for of in found.values() for method in of)
    heads = [f"{table}: {head}" for table in tables for head in ("seconds", "regret")]
    rows = [[method, *(cell for table in tables for cell in _cells(found[table].get(method)))] for method in methods]
    lines = [["search", *heads], ["---"] * (1 + len(heads)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TRAININGS_OF_REGRET = 5
"""After the seconds of so many whole trainings, the table gives the regret."""


def _cells(of: Mapping[str, Any] | None) -> tuple[str, str]:
    """Such as `0.34 (0.29 to 0.53)` and `0.98`."""
    if of is None:
        return "", ""
    low, high = ("never" if end is None else f"{end:.2f}" for end in of["interval"])
    ratio = f"{of['ratio']:.2f} ({low} to {high})" if of["ratio"] is not None else "never"
    return ratio, f"{100 * regret_after(of, TRAININGS_OF_REGRET):.2f}"


def regret_after(of: Mapping[str, Any], trainings: float) -> float:
    """The mean regret after the seconds of so many whole trainings."""
    at = max(place for place, seconds in enumerate(of["seconds"]) if seconds <= trainings * of["training_seconds"])
    return float(of["regret"][at])
