"""The output of a verb on stdout: text for readers, or flat JSON objects."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from imgcls.errors import ResourceError
from imgcls.terminal import undelivered
from imgcls.text import printable

if TYPE_CHECKING:
    from imgcls.run_record import RunRecord

Facts = Mapping[str, object]


def answer(facts: Facts | Sequence[Facts], text: str, *, as_json: bool) -> None:
    """Outputs what a verb has to say: JSON for a program, or text for a reader."""
    print_json(facts) if as_json else write(text)


def facts_text(title: str, facts: Facts) -> str:
    """The output of facts as text: a table below a title."""
    from imgcls.reporting.tables import terminal_table

    return f"{title}\n{terminal_table([(key, str(value)) for key, value in facts.items()])}"


def print_json(facts: Facts | Sequence[Facts]) -> None:
    """Outputs one flat object, or a list of them, as JSON that every parser accepts: NaN and infinity become null.

    Raises:
        ResourceError: it did not arrive; text for readers may get lost, the answer to a program may not.
    """
    value = [_finite(row) for row in facts] if isinstance(facts, Sequence) else _finite(facts)
    write_whole(json.dumps(value, allow_nan=False), "JSON")


def write_whole(text: str, what: str) -> None:
    """Outputs to stdout what a program reads; `what` is its format.

    Raises:
        ResourceError: it did not arrive.
    """
    write(text)
    if why := undelivered(sys.stdout):
        raise ResourceError(f"the {what} could not be written to stdout: {why}; what was done is in the record")


def _finite(facts: Facts) -> dict[str, object]:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in facts.items()}


LOADING = "loading PyTorch and MLflow"
"""What a verb waits for first, where it takes more than a second."""

OPENING = "opening the record"
"""What a verb waits for next."""


def write_evaluate(run: RunRecord) -> None:
    """Outputs to stdout how to get the final scores of a run; by its id, which stays its own when others follow."""
    from imgcls.tracking.find_run import short_id

    write(f"Final test scores, when you are done choosing: imgcls evaluate {short_id(run)}")


def write_cautions(tags: Mapping[str, str]) -> None:
    """Outputs to stdout, a line a sentence, what is to be said beside the scores of a run with these tags."""
    from imgcls.reporting.cautions import cautions

    for sentence in cautions(tags):
        write(f"Caution: {sentence}")


def write(text: str) -> None:
    """Outputs one text to stdout, with characters that would move the cursor made visible."""
    sys.stdout.write(printable(text) + "\n")
