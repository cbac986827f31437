"""Check the record."""

from __future__ import annotations

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import print_json, write


def doctor(
    relocate: Annotated[
        bool, typer.Option("--relocate", help="After moving the repository: find its artifacts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the record of this project, and mend what can be mended; send what a tracking server has not got yet.

    Example: imgcls doctor
    """
    from imgcls.tracking.health import examine

    tracker = open_tracker()
    if relocate:
        changed = tracker.relocate()
        print_json({"num_relocated": changed}) if as_json else write(f"{changed} locations changed")
        return
    health = examine(tracker)
    if as_json:
        print_json(health.flat())
    else:
        write(health.as_text())
