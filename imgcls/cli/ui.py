"""Open MLflow's UI."""

from contextlib import suppress
from typing import Annotated

import typer

from imgcls.cli.arguments import open_tracker
from imgcls.cli.output import write


def ui(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="The run or sweep to open; by default the newest.")] = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine. 0: 5000, or the next one that is free.")
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open the address in a browser, where there is one.")] = True,
) -> None:
    """Open MLflow's UI on this project's record, at a sweep's trials in order or at the page of a run.

    Starts MLflow's server, which only this machine can reach, with little memory. Ctrl-C ends it.

    Example: imgcls ui best
    """
    from imgcls.reporting.where_to_look import page_of
    from imgcls.tracking.find_run import find_run, newest_begun
    from imgcls.tracking.ui_server import open_in_browser, serving

    tracker = open_tracker()
    shown = find_run(run, tracker) if run else newest_begun(tracker)
    page = page_of(shown, tracker) if shown else "/#/experiments"
    with suppress(KeyboardInterrupt), serving(tracker.uri, tracker.root, port) as server:
        write(f"{server.address}{page}")
        if browser:
            open_in_browser(f"{server.address}{page}")
        server.wait()
