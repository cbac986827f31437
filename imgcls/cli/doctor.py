"""Check the record."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import answer


def doctor(
    relocate: Annotated[
        bool, typer.Option("--relocate", help="After moving the repository: find its artifacts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the record of this project, and mend what can be mended; send what a tracking server has not got yet.

    It says which processes work on which trials of a sweep, and since when. Its last line says which cores, memory and
    load a sweep or a run finds here.

    Example: imgcls doctor
    """
    from imgcls.machine import seen_by_auto, seen_by_auto_text
    from imgcls.search.who_works import work_in_words
    from imgcls.tracking.health import examine

    tracker = open_tracker()
    if relocate:
        changed = tracker.relocate()
        answer({"num_relocated": changed}, f"{changed} locations changed", as_json=as_json)
    else:
        health, machine, work = examine(tracker), seen_by_auto(), work_in_words(tracker)
        text = "\n".join([*work, health.as_text(), seen_by_auto_text(machine)])
        answer({**health.flat(), "at_work": "; ".join(work), **machine}, text, as_json=as_json)
