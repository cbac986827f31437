"""Export a run as one file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, open_tracker
from imgcls.cli.output import LOADING, facts_text, print_json, write
from imgcls.errors import InputError
from imgcls.inference.export_formats import ENDINGS, ENDINGS_IN_WORDS, Format
from imgcls.terminal import waiting


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A completed run; a sweep stands for its winner.")],
    format: Annotated[Format | None, typer.Option("--format", help="By default that of --output, else onnx.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default EXPERIMENT-RUN.onnx in the working folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a run as one file: raw images in, calibrated probabilities out.

    Preprocessing, network, temperature, class names and provenance are inside. Before the file gets its name it is run
    on all of the run's val images, and must give the run's own predictions. A .pt2 can run code when it is loaded: give
    others .onnx files, and accept no other ones.

    Example: imgcls export best --output clothes.onnx
    """
    ending = output.suffix.lower() if output is not None else f".{format or 'onnx'}"
    if ending not in ENDINGS or (format is not None and ending != f".{format}"):
        wanted = f".{format}" if format else ENDINGS_IN_WORDS
        raise InputError(f"--output {output}: name a file that ends with {wanted}")

    with waiting(LOADING):
        from imgcls.inference.export import export_run, usage
        from imgcls.inference.find_model import find_run_model

    tracker = open_tracker()
    model = find_run_model(run, tracker)
    path = output or Path(f"{model.record.experiment}-{model.run_id[:8]}{ending}")
    exported = export_run(model, tracker, path)
    if as_json:
        print_json(exported.flat())
        return
    facts = {name: in_words(name, value) for name, value in exported.flat().items() if name != "file"}
    write(facts_text(f"Exported {path}", facts))
    write(f"\nTo use it without imgcls, on uint8 images (B, H, W, C), grey or RGB, upright:\n\n{usage(path)}\n")
    write(f"Next: imgcls predict {shlex.quote(str(path))} PATHS...")


DIGITS = {"megabytes": ".1f", "temperature": ".4g"}
"""Fact -> how many digits of it are shown. All other fractions are differences of probabilities, of which two do."""


def in_words(name: str, value: object) -> str:
    """A fact about an exported file with as many digits as it needs."""
    return format(value, DIGITS.get(name, ".2g")) if isinstance(value, float) else str(value)
