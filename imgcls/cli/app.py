"""The command: its verbs, what it says where one fails, and its exit codes.

Each verb imports what it needs when it needs it: `--help` answers at once, and so does a refused experiment file.
"""

import atexit
import gc
import inspect
import logging
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from imgcls.cli.cache import cache
from imgcls.cli.clean import clean
from imgcls.cli.compare import compare
from imgcls.cli.confirm import confirm
from imgcls.cli.doctor import doctor
from imgcls.cli.evaluate import evaluate
from imgcls.cli.export import export
from imgcls.cli.init import init
from imgcls.cli.keys import keys
from imgcls.cli.ledger import ledger
from imgcls.cli.models import models
from imgcls.cli.output import write
from imgcls.cli.predict import predict
from imgcls.cli.register import register
from imgcls.cli.rerun import rerun
from imgcls.cli.runs import runs
from imgcls.cli.storage_proxy import storage_proxy
from imgcls.cli.sweep import sweep
from imgcls.cli.train import train
from imgcls.cli.ui import ui
from imgcls.cli.worker import worker
from imgcls.errors import ImgclsError, InputError, Interrupted
from imgcls.machine_failures import explain
from imgcls.processes import own_place, refuse_several
from imgcls.terminal import guard_streams
from imgcls.text import printable

THAT_GO_ON = ("train", "sweep", "worker", "confirm", "rerun")
"""Verbs that save as they go, so that the same command goes on."""

SECONDS_TO_SAY_IT = 10.0
"""Seconds that the first of several processes has to say what is wrong before those end that say nothing."""


class _Verbs(TyperGroup):
    """The verbs; a Ctrl-C that is not a request to stop ends any of them with one line."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            verb = ctx.invoked_subcommand
            looked = "the look may be recorded already: imgcls ledger; " if _opens_test(verb, sys.argv) else ""
            how = "to go on from what was saved" if verb in THAT_GO_ON else "to begin again"
            sys.stderr.write(f"left at once; {looked}{how}: {_this_command()}\n")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="imgcls",
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes [search.space] for a style and drops it, and keeps the line ends of docstrings
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _answer_version(asked: bool) -> None:
    from importlib.metadata import PackageNotFoundError, version

    if asked:
        try:
            write(f"imgcls {version('imgcls')}")
        except PackageNotFoundError:
            write("imgcls of a folder that is not installed; run: make setup")
        raise typer.Exit


@app.callback()
def imgcls(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_answer_version, help="Print the version.")
    ] = False,
) -> None:
    """Train, search and judge image classifiers, with MLflow as the record.

    An EXPERIMENT is a file in experiments/ (by name) or a path to a TOML file. A RUN is a run's id, the first six
    characters of it or more, `last` for the run or sweep that finished last, or `best` for the winner of the sweep
    that finished last. Results go to stdout, progress to stderr.
    """
    if context.invoked_subcommand != "train":
        refuse_several(str(context.invoked_subcommand))


def _add(verb: Callable[..., None]) -> None:
    r"""Adds a verb, with all of its docstring as help: the first paragraph in the list of verbs, examples as written.

    Typer does not fill the lines of a paragraph that begins with \b.
    """
    text = inspect.getdoc(verb) or ""
    summary = " ".join(text.split("\n\n")[0].split())
    app.command(short_help=summary, help=text.replace("\n\nExample: ", "\n\n\b\nExample:\n  "))(verb)


for _verb in (
    init,
    train,
    sweep,
    worker,
    confirm,
    evaluate,
    predict,
    export,
    register,
    rerun,
    ledger,
    compare,
    ui,
    models,
    runs,
    keys,
    cache,
    clean,
    doctor,
    storage_proxy,
):
    _add(_verb)


def main() -> None:
    """The `imgcls` command: exit code 0 done, 1 failed while running, 2 refused for its input, 130 left at once."""
    guard_streams()
    _collect_less()

    from imgcls.tracking.credentials import guard_logs, scrubbed

    is_first = own_place().rank == 0  # of several processes, the first one speaks for all
    logging.basicConfig(level=logging.INFO if is_first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    guard_logs()
    try:
        app()
    except Interrupted as error:
        if not is_first:
            _leave_to_the_first(error)
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


def _collect_less() -> None:
    """Has Python's garbage collector run less often, and not at all when the program ends."""
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)


def _refuse(error: ImgclsError) -> NoReturn:
    from imgcls.tracking.credentials import scrubbed

    if own_place().rank and isinstance(error, InputError):
        _leave_to_the_first(error)
    sys.stderr.write(f"error: {printable(scrubbed(str(error)))}\n")
    sys.exit(error.exit_code)


def _leave_to_the_first(error: ImgclsError) -> NoReturn:
    """Ends without a word, because the first of several processes has the same error or knows of it.

    It has time to say so: torchrun ends all processes as soon as one has failed.
    """
    time.sleep(SECONDS_TO_SAY_IT)
    sys.exit(error.exit_code)


def _opens_test(verb: str | None, arguments: Sequence[str]) -> bool:
    return verb == "evaluate" or (verb == "predict" and "--test-look" in arguments)


def _this_command() -> str:
    from imgcls.tracking.credentials import scrubbed

    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    several = ["torchrun", "--nproc-per-node", str(own_place().local_size), "-m"] if own_place().size > 1 else []
    return scrubbed(shlex.join([*several, "imgcls", *arguments]))
