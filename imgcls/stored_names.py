"""How the record's names are spelled in MLflow, now and by earlier versions; the rest of imgcls knows one spelling.

In MLflow's UI the scores at the kept epoch stand beside their curves: `best/val/accuracy`, as `--json` and the library
call it, is stored as `val/accuracy_best`, and `best/epoch` as `best_epoch`. Earlier versions stored what `--json` says.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

BEST = "best/"
"""How the names of scores at the kept epoch begin."""

PROCESS = "imgcls.process"
"""The tag about the process that writes a run, as JSON; see `process_of`."""

EARLIER_PROCESS = {
    "versions": "imgcls.versions",
    "claims": "imgcls.claims",
    "heartbeat": "imgcls.heartbeat",
    "opening": "imgcls.opening",
    "identity": "imgcls.identity",
}
"""Key of that JSON -> the tag of its own that earlier versions gave it."""

_SCORE = re.compile(r"(?P<score>.+/.+?)(?P<end>_low|_high)?")
_STORED_SCORE = re.compile(r"(?P<score>.+/.+)_best(?P<end>_low|_high)?")
_STORED = re.compile(r"best_(?P<name>[^/]+)")


def stored_name(metric: str) -> str:
    """The stored name of a metric: `val/accuracy_best_low` for `best/val/accuracy_low`, most as they are."""
    if not metric.startswith(BEST):
        return metric
    name = metric.removeprefix(BEST)
    if found := _SCORE.fullmatch(name):
        return f"{found['score']}_best{found['end'] or ''}"
    return f"best_{name}"


def name_of_stored(stored: str) -> str:
    """The name of a stored metric, also of one that an earlier version stored; `stored_name` is its inverse."""
    if found := _STORED_SCORE.fullmatch(stored):
        return f"{BEST}{found['score']}{found['end'] or ''}"
    if found := _STORED.fullmatch(stored):
        return BEST + found["name"]
    return stored


def metrics_of_stored(stored: Mapping[str, float]) -> dict[str, float]:
    """Stored metrics by their names; where a run has both spellings, the newer one was written later and holds."""
    named = {name: value for name, value in stored.items() if name_of_stored(name) == name}
    return named | {name_of_stored(name): value for name, value in stored.items() if name not in named}


def process_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """The stored facts about the process that writes a run, also of a run that an earlier version wrote.

    Returns:
        `versions`, package -> version; `claims`, digest of the folder of locks that says whether a process writes the
        run; `heartbeat`, when the process last said that it was alive, in seconds since 1970; `opening`, drawn at
        random for a run on a tracking server; `identity`, digest that two runs share if they do the same work. What is
        not recorded is left out.
    """
    earlier: dict[str, Any] = {key: tags[tag] for key, tag in EARLIER_PROCESS.items() if tag in tags}
    if "versions" in earlier:
        earlier["versions"] = json.loads(earlier["versions"])
    if "heartbeat" in earlier:
        earlier["heartbeat"] = float(earlier["heartbeat"])
    recorded: dict[str, Any] = json.loads(tags.get(PROCESS, "{}"))
    return earlier | recorded


def process_tag(facts: Mapping[str, Any]) -> dict[str, str]:
    """The stored tag of such facts. It is written whole, and only by the process that holds the run's claim."""
    return {PROCESS: json.dumps(dict(facts))}


def process_filter(key: str, value: str) -> str:
    """MLflow's filter for stored runs of which the process says this; both are letters and digits."""
    return f'tags.`{PROCESS}` LIKE \'%"{key}": "{value}"%\''
