"""Look through the record, put it in order and make room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, AsJsonList
from imgcls.cli.output import print_json, write
from imgcls.errors import InputError
from imgcls.shown import did_you_mean, nearest


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
    from imgcls.config import project_root
    from imgcls.reporting.runs import run_facts, runs_table
    from imgcls.tracking.store import Tracker

    tracker = Tracker(project_root(Path.cwd()))
    records = tracker.find({}, experiment=experiment, newest=limit)[::-1]
    if experiment is not None and not records:
        with_runs = sorted({record.experiment for record in tracker.find({})})
        near = did_you_mean(nearest(experiment, with_runs))
        there = ", ".join(with_runs) or "none"
        raise InputError(f"no runs of an experiment {experiment!r} in this store{near}; experiments with runs: {there}")
    if as_json:
        print_json([run_facts(record) for record in records])
    else:
        write(runs_table(records) if records else "no runs yet; imgcls train EXPERIMENT makes one")


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, it is only listed.")] = False,
    as_json: AsJsonList = False,
) -> None:
    """Show what of the record's files may go, by kind and size; --yes removes it.

    That is what trials and runs that have ended would be resumed from, the weights of trials that were not chosen,
    leftovers of killed processes and the artifacts of deleted runs. It never touches a winner, a confirmed or judged
    run, the weights of a run of `train`, or a run that goes on; and no metric, prediction or report of any.

    Example: imgcls clean
    """
    from imgcls.config import project_root
    from imgcls.tidy import as_text, look_through, remove
    from imgcls.tracking.store import Tracker

    root = project_root(Path.cwd())
    found = look_through(Tracker(root), root)
    if not as_json:
        write(as_text(found))
    if yes:
        remove(found)
    if as_json:
        print_json([item.flat() | {"removed": yes} for item in found.items])
    elif found.items:
        write("removed" if yes else "nothing was removed; imgcls clean --yes does it")


def doctor(
    relocate: Annotated[
        bool, typer.Option("--relocate", help="After moving the repository: find its artifacts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the record of this project, and mend what can be mended; send what a tracking server has not got yet.

    Example: imgcls doctor
    """
    from imgcls.config import project_root
    from imgcls.tracking.health import examine
    from imgcls.tracking.store import Tracker

    tracker = Tracker(project_root(Path.cwd()))
    if relocate:
        changed = tracker.relocate()
        print_json({"num_relocated": changed}) if as_json else write(f"{changed} locations changed")
        return
    health = examine(tracker)
    if as_json:
        print_json(health.flat())
    else:
        write(health.as_text())
