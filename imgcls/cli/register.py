"""Register a run's model for others to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import LOADING, answer
from imgcls.terminal import waiting

if TYPE_CHECKING:
    from imgcls.inference.register import Registered
    from imgcls.tracking.store import Tracker


def register(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A completed run; a sweep stands for its winner.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the registered model; by default the experiment's.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Name for this version, such as champion, if it deserves it.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take the alias without being better; this is recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register a run's model with MLflow, which then serves it over HTTP.

    The model is exported and must give the run's own predictions on its val images, else nothing is registered. An
    alias that another version has moves only to a run that is better on the same val images. It opens no test split.

    Example: imgcls register best --alias champion
    """
    with waiting(LOADING):
        from imgcls.inference.register import register as registered

    tracker = open_tracker()
    result = registered(run, tracker, name=name, alias=alias, force=force)
    answer(result.flat(), _in_words(result, tracker), as_json=as_json)


def _in_words(result: Registered, tracker: Tracker) -> str:
    from imgcls.reporting.tables import terminal_table
    from imgcls.reporting.where_to_look import how_to_ask, how_to_serve

    version = result.version
    title = f"Registered version {version.number} of {version.name}" if result.proof else (
        f"Version {version.number} of {version.name} is this run already"
    )  # fmt: skip
    rows = [("Run", result.run.run_id)]
    if result.proof:
        rows.append(("Proof", f"{result.proof.num_images} val images, largest difference {result.proof.largest:.1g}"))
    if result.alias:
        rows.append(("Alias", f"{result.alias}{', forced' if result.is_forced else ''}"))
    if result.replaced and result.verdict:
        rows.append(("Instead of", f"version {result.replaced.number}: {result.verdict.words}"))
    rows += [("Serve", how_to_serve(result.uri, tracker.root)), ("Ask", how_to_ask())]
    return f"{title}\n{terminal_table(rows)}"
