"""Look through the record, put it in order and make room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.output import write
from imgcls.errors import InputError


def runs(
    experiment: Annotated[str | None, typer.Argument(help="Only runs of this MLflow experiment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
) -> None:
    """List the newest runs of the record.

    Example: imgcls runs digits --limit 5
    """
    from imgcls.config import project_root
    from imgcls.reporting.report import score_of, terminal_table
    from imgcls.tracking.store import Tracker

    tracker = Tracker(project_root(Path.cwd()))
    records = tracker.find({}, experiment=experiment, newest=limit)
    if experiment is not None and not records:
        with_runs = ", ".join(sorted({record.experiment for record in tracker.find({})})) or "none"
        raise InputError(f"no runs of an experiment {experiment!r} in this store; experiments with runs: {with_runs}")
    for record in reversed(records):
        write(
            f"{record.run_id}  {record.kind:<10} {record.outcome:<11} {record.experiment:<20} {record.name}  "
            f"{score_of(record)}"
        )
    if not records:
        write(terminal_table([("runs", "none yet; imgcls train EXPERIMENT makes one")]))


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, it is only listed.")] = False,
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
    write(as_text(found))
    if yes:
        remove(found)
        write("removed")
    elif found.items:
        write("nothing was removed; imgcls clean --yes does it")


def doctor(
    relocate: Annotated[
        bool, typer.Option("--relocate", help="After moving the repository: find its artifacts.")
    ] = False,
) -> None:
    """Check the record of this project, and mend what can be mended; send what a tracking server has not got yet.

    Example: imgcls doctor
    """
    from imgcls.config import project_root
    from imgcls.tracking.store import Tracker

    tracker = Tracker(project_root(Path.cwd()))
    if relocate:
        write(f"{tracker.relocate()} locations changed")
        return
    for line in tracker.send_unsent():
        write(line)
    for record in tracker.close_orphans():
        write(f"run {record.run_id} ({record.kind} of {record.experiment}) said RUNNING without a process: closed")
    lost = tracker.unreachable_artifacts()
    write(f"{lost} experiments whose artifacts are not where the store says" + ("; try --relocate" if lost else ""))
