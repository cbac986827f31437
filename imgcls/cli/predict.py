"""Predict images with a finished run."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.arguments import AsJsonList
from imgcls.cli.output import LOADING, print_json, write, write_whole
from imgcls.errors import InputError, ResourceError
from imgcls.terminal import waiting
from imgcls.text import counted


def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A completed run (a sweep stands for its winner), models:/NAME@ALIAS, or an exported file.",
        ),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS...",
            help="Images, folders (at any depth), globs in quotes such as 'new/**/*.jpg', or - for a list on stdin.",
        ),
    ],
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write every class's probability to a CSV file; - is stdout."),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, metavar="K", help="Also name the K most probable classes.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Probabilities without temperature.")] = False,
    test_look: Annotated[
        bool, typer.Option("--test-look", help="Predict test images too, and write that down as a look at them.")
    ] = False,
    as_json: AsJsonList = False,
) -> None:
    """Predict images with a finished run: the class and its calibrated probability.

    Images are read and resized as the run's own val images were. Files that cannot be read are listed, and the others
    are predicted; the exit code is 1 only where none can be read. Images of a test split, recognised by their pixels,
    are refused without --test-look.

    Example: imgcls predict best photos/ --csv predictions.csv
    """
    if csv == "-" and as_json:
        raise InputError("--csv - and --json both write to stdout; choose one, or name a file")
    with waiting(LOADING):
        from imgcls.files import output_file
        from imgcls.inference.find_model import find_model
        from imgcls.inference.inputs import from_shell
        from imgcls.inference.prediction_table import as_csv, as_facts, as_text
        from imgcls.inference.predictions import predict as predict_all

    inputs = from_shell(paths, sys.stdin.buffer)
    with ExitStack() as opened:
        target = opened.enter_context(output_file(Path(csv), "--csv")) if csv not in (None, "-") else None
        table = predict_all(find_model(run, Path.cwd()), inputs, raw=raw, top=top, test_look=test_look)
        if target is not None:
            try:
                target.write_text(as_csv(table), encoding="utf-8")
            except OSError as error:
                raise ResourceError(f"--csv {csv} could not be written: {error.strerror or error}") from error
    if as_json:
        print_json(as_facts(table))
    elif csv == "-":
        write_whole(as_csv(table).removesuffix("\n"), "CSV")
    elif csv is None:
        write_whole(as_text(table, top or 1), "table")
    else:
        write(f"{counted(len(table), 'prediction')} in {csv}")
