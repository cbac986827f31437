"""The command: its verbs, what it says where one fails, and its exit codes.

Each verb imports what it needs when it needs it: `--help` answers at once, and so does a refused experiment file.
"""

from __future__ import annotations

import logging
import shlex
import sys
import traceback
from typing import NoReturn

import typer
from typer.core import TyperGroup

from imgcls.cli.cache import cache
from imgcls.cli.evaluate import compare, evaluate, ledger
from imgcls.cli.keys import keys
from imgcls.cli.models import models
from imgcls.cli.record import clean, doctor, runs
from imgcls.cli.sweep import confirm, sweep
from imgcls.cli.train import rerun, train
from imgcls.errors import ImgclsError, Interrupted
from imgcls.failures import explain
from imgcls.shown import printable


class _Verbs(TyperGroup):
    """The verbs; a Ctrl-C that is not a request to stop ends any of them with one line."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write(f"left at once; to go on from what was saved: {_this_command()}\n")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="imgcls",
    cls=_Verbs,
    help="Train, search and judge image classifiers, with MLflow as the record.\n\n"
    "An EXPERIMENT is a file in experiments/ (by name) or a path to a TOML file. "
    "Results go to stdout, progress to stderr.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (train, sweep, confirm, evaluate, rerun, ledger, compare, models, runs, keys, cache, clean, doctor):
    app.command()(verb)


def main() -> None:
    """The `imgcls` command: exit code 0 done, 1 failed while running, 2 refused for its input, 130 left at once."""
    from imgcls.tracking.address import guard_logs, scrubbed

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    guard_logs()
    try:
        app()
    except Interrupted as error:
        sys.stderr.write(f"{error}; to go on: {_this_command()}\n")
        sys.exit(error.exit_code)
    except ImgclsError as error:
        _refuse(error)
    except Exception as error:
        if (explained := explain(error)) is not None:
            _refuse(explained)
        # A mistake of ours; the libraries' messages in it may hold the store's address.
        sys.stderr.write(printable(scrubbed(traceback.format_exc())))
        sys.exit(1)


def _refuse(error: ImgclsError) -> NoReturn:
    from imgcls.tracking.address import scrubbed

    sys.stderr.write(f"error: {printable(scrubbed(str(error)))}\n")
    sys.exit(error.exit_code)


def _this_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    return shlex.join(["imgcls", *arguments])
