"""Train a run again from its record."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import LOADING, answer
from imgcls.terminal import waiting


def rerun(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A completed run; a sweep stands for its winner.")],
    verify: Annotated[bool, typer.Option("--verify", help="Fail where the repeat differs from the original.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run again from its record alone, and compare every epoch's metrics with it.

    On the same kind of processor with the same threads and versions they have the same bits; elsewhere the best val
    accuracy may differ by less than half the width of its 95% interval.

    Example: imgcls rerun last --verify
    """
    with waiting(LOADING):
        from imgcls.errors import TrainingError
        from imgcls.evaluation.rerun import rerun as repeat
        from imgcls.signals import GracefulStop

    with GracefulStop():
        verdict = repeat(run_id, open_tracker())
    answer(verdict.flat(), verdict.markdown(), as_json=as_json)
    if verify and not verdict.is_verified:
        raise TrainingError(f"run {verdict.then.run_id} could not be repeated: {verdict.first_difference}")
