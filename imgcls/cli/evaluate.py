"""Open the test split for the final scores of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import LOADING, print_json, write, write_cautions
from imgcls.errors import InputError
from imgcls.terminal import waiting

if TYPE_CHECKING:
    from imgcls.run_record import RunRecord
    from imgcls.tracking.store import Tracker


def evaluate(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A completed run; a sweep stands for its winner.")
    ] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", metavar="RUN", help="The same, as an option.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Look once more at a run that was judged already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open the test split, once, for the final scores of a run.

    First the run's val score is computed again and must match the record. Then the look is written down, the split is
    opened, and the scores become a run of their own below the run they judge. A run that was judged before gives its
    recorded scores again, and no look is taken.

    Example: imgcls evaluate best
    """
    if (run is None) == (run_id is None):
        raise InputError("evaluate takes one run: its id, the beginning of it, last or best; `imgcls runs` lists them")
    with waiting(LOADING):
        from imgcls.evaluation.judge import evaluate as judge

    tracker = open_tracker()
    result = judge(run or run_id or "", tracker, again=again)
    if as_json:
        print_json(result.flat())
    else:
        _write_scores(result.record, result.judged, tracker)


def _write_scores(evaluation: RunRecord, judged: RunRecord, tracker: Tracker) -> None:
    """Prints the scores of an evaluation, what they are worth, where everything lies and the next verb."""
    from imgcls.evaluation.evaluation_report import scores_text
    from imgcls.evaluation.selection import selection_of
    from imgcls.reporting.tables import terminal_table
    from imgcls.reporting.where_to_look import places

    write(scores_text(evaluation, selection_of(judged, tracker)))
    write_cautions(evaluation.tags)
    rows = [*places(evaluation, judged, tracker)]
    rows.append(("Next", f"imgcls rerun {judged.run_id} --verify  (can the run be repeated from its record?)"))
    write(f"\n{terminal_table(rows)}")
