"""Compare runs without opening the test split."""

from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import LOADING, answer
from imgcls.errors import InputError
from imgcls.terminal import waiting


def compare(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN", help="Completed runs; a sweep stands for its winner.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write it as one page, with the curves overlaid.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same images, from the predictions that they left.

    Paired on val, and on test where the runs were evaluated before; it opens no test split.

    Example: imgcls compare last best --html comparison.html
    """
    with waiting(LOADING):
        from imgcls.evaluation.compare import compare as compared
        from imgcls.evaluation.comparison_report import comparison_markdown, comparison_pictures, comparison_report
        from imgcls.reporting.html import page
        from imgcls.reporting.run_links import run_link

    tracker = open_tracker()
    result = compared(run_ids, tracker)
    if html is not None:
        links = [run_link(f"Run {number}", run, tracker) for number, run in enumerate(result.runs, 1)]
        report = comparison_report(result, comparison_pictures(result), links)
        try:
            html.write_text(page(*report), encoding="utf-8")
        except OSError as error:
            why = f"{html} cannot be written: {error.strerror}"
            raise InputError(f"{why}; name a file in a folder that exists") from error
    answer(result.flat(), comparison_markdown(result), as_json=as_json)
