"""Runs as `imgcls runs` lists them: a table for people, flat facts for programs."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from imgcls.config.toml import parse_override
from imgcls.record import Tag
from imgcls.reporting.cautions import flat_cautions
from imgcls.reporting.run_scores import score_of
from imgcls.reporting.tables import shown
from imgcls.run_record import RunRecord
from imgcls.text import duration

SPACE = "search.space."
"""How the parameters begin that say what a sweep searched."""

ALWAYS = (
    "run_id", "experiment", "name", Tag.KIND, Tag.OUTCOME, Tag.PARENT, "start_time", "end_time", "seconds",
)  # fmt: skip
"""Facts that every run has."""

COLUMNS = ("run", "kind", "outcome", "started (UTC)", "start to end", "experiment", "name", "values", "score")


def runs_table(records: Sequence[RunRecord]) -> str:
    """The runs table: a header and a line for each run, in aligned columns."""
    rows = [COLUMNS, *(_row(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def run_facts(record: RunRecord) -> dict[str, object]:
    """The runs table's line for one run as facts for programs: when it ran, what was drawn for it, its metrics.

    Times are ISO 8601 in UTC; `seconds` and `end_time` are None of a run that goes on.
    """
    return {
        "run_id": record.run_id,
        "experiment": record.experiment,
        "name": record.name,
        Tag.KIND: record.kind,
        Tag.OUTCOME: record.outcome,
        Tag.PARENT: record.parent or None,
        "start_time": _moment(record.started).isoformat(),
        "end_time": None if record.ended is None else _moment(record.ended).isoformat(),
        "seconds": None if record.ended is None else (record.ended - record.started) / 1000,
        **searched_values(record),
        **record.metrics,
        **flat_cautions(record.tags),
    }


def runs_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """The runs table as a data frame: a row for each run, columns by the record's names, times in UTC."""
    rows = [run_facts(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(ALWAYS)
    frame = pd.DataFrame(rows, columns=list(names))
    for name in ("start_time", "end_time"):
        frame[name] = pd.to_datetime(frame[name], format="ISO8601", utc=True)
    return frame


def searched_values(record: RunRecord) -> dict[str, object]:
    """The runs table's cells for what a sweep drew for a run, by dotted key; empty for other kinds."""
    if record.kind not in ("trial", "confirm"):
        return {}
    keys = [name.removeprefix(SPACE) for name in record.params if name.startswith(SPACE)]
    return dict(parse_override(f"{key}={record.params[key]}") for key in keys if key in record.params)


def _row(record: RunRecord) -> tuple[str, ...]:
    return (
        record.run_id,
        record.kind or "unknown",
        record.outcome or record.status.lower(),
        f"{_moment(record.started):%Y-%m-%d %H:%M:%S}",
        "goes on" if record.ended is None else duration((record.ended - record.started) / 1000),
        record.experiment,
        record.name,
        ", ".join(f"{key} = {shown(value)}" for key, value in searched_values(record).items()),
        score_of(record),
    )


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
