"""Confirm what a sweep found."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import LOADING, print_json, write
from imgcls.cli.sweep import write_end
from imgcls.terminal import waiting


def confirm(
    sweep_id: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep that has ended: a RUN.")],
    top: Annotated[int, typer.Option(min=1, help="Configurations, the best first.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds for each.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Train a sweep's best configurations again with fresh seeds, and rank them by their means.

    The best of many trials is partly the luckiest; this shows by how much. Each run is scored at the epoch that its
    trial had fixed. The first fresh run of the best configuration becomes the sweep's winner.

    Example: imgcls confirm last --top 2 --seeds 3
    """
    with waiting(LOADING):
        from imgcls.evaluation.confirmation import confirmation_text
        from imgcls.search.confirm import confirm_sweep
        from imgcls.search.winner import flat
        from imgcls.signals import GracefulStop
        from imgcls.tracking.find_run import find_run

    tracker = open_tracker()
    sweep = find_run(sweep_id, tracker)
    with GracefulStop():
        result = confirm_sweep(sweep.run_id, tracker, top=top, seeds=seeds)
    if as_json:
        print_json(flat(tracker.get(sweep.run_id)))
        return
    write(confirmation_text(result))
    write_end(sweep.run_id, tracker)
