"""List the runs of the record."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJsonList, open_tracker
from imgcls.cli.output import answer


def runs(
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT", help="Only runs of this MLflow experiment.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: AsJsonList = False,
) -> None:
    """List the newest runs of the record: when, how long, with which values, with which score.

    Example: imgcls runs --limit 5
    """
    from imgcls.reporting.runs_table import run_facts, runs_table
    from imgcls.tracking.find_run import newest_runs

    records = newest_runs(open_tracker(), experiment, limit)
    text = runs_table(records) if records else "no runs yet; imgcls train EXPERIMENT makes one"
    answer([run_facts(record) for record in records], text, as_json=as_json)
