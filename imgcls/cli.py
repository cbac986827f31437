"""Verbs: parse, call, print; nothing else.

Each verb imports what it needs when it needs it: `--help` answers at once, and so does a refused experiment file.
"""

from __future__ import annotations

import json
import logging
import shlex
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from imgcls.errors import ImgclsError, InputError, Interrupted
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

ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name in experiments/, or a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as train.lr=3e-3; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one flat JSON object instead of text.")]


@app.command()
def train(
    experiment: ExperimentName,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew even where a run stopped before its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train one tracked run.

    A run of the same experiment and data that stopped before its end, however it did, is taken up where it stood.

    Example: imgcls train digits --set train.lr=3e-3
    """
    from imgcls.config import find_experiment, load_experiment

    path, root = find_experiment(experiment, Path.cwd())
    loaded = load_experiment(path, overrides or ())

    from imgcls.reporting.statistics import metric_text
    from imgcls.run import prepare, train_run
    from imgcls.signals import GracefulStop
    from imgcls.tracking.store import Tracker

    prepared = prepare(loaded, root)
    with GracefulStop() as stop:
        tracker = Tracker(root)
        tracker.close_orphans()
        done = train_run(prepared, tracker, kind="train", name=prepared.experiment.name, stop=stop, fresh=fresh)
    best, leaks = done.best, prepared.dataset.leaks.summary
    facts: dict[str, object] = {
        "run_id": done.run_id,
        "best/epoch": best.epoch,
        "best/val/accuracy": best.val_accuracy,
        "best/val/loss": best.val_loss,
        **_leaks(leaks),
    }
    if not as_json:
        for name, value in (("accuracy", best.val_accuracy), ("loss", best.val_loss)):
            facts[f"best/val/{name}"] = metric_text(name, value, best.val_accuracy, len(prepared.dataset.val))
    _print(facts, as_json, title=f"Trained {prepared.experiment.name}")
    _hint(as_json, f"Final test scores, when you are done choosing: python evaluate.py --run-id {done.run_id}")


@app.command()
def sweep(
    experiment: ExperimentName,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, earlier sittings included.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which no further trial starts.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials side by side on this machine.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search the experiment's [search.space] by validation score.

    Typed again, it goes on with the same study, up to --trials in all. It never opens the test split.

    Example: imgcls sweep digits --trials 10
    """
    from imgcls.config import find_experiment, load_experiment

    path, root = find_experiment(experiment, Path.cwd())
    flags = {"search.trials": trials, "search.timeout": timeout, "search.workers": workers}
    loaded = load_experiment(path, overrides or ())
    loaded = loaded.replace({key: value for key, value in flags.items() if value is not None}, origin="option")

    from imgcls.reporting.report import with_intervals
    from imgcls.search.study import Sweep
    from imgcls.search.summary import as_text, evaluate_command
    from imgcls.signals import GracefulStop
    from imgcls.tracking.store import Tracker

    stop = GracefulStop()
    search = Sweep(loaded, root, Tracker(root), stop)
    with stop:
        result = search.run()
    if as_json:
        best = result.leaderboard.iloc[0]
        facts = {
            "run_id": result.run_id,
            "imgcls.best_run_id": result.best_run_id,
            "num_trials": len(result.leaderboard),
            "best/epoch": int(best["best/epoch"]),
            "best/val/accuracy": float(best["val/accuracy"]),
            "best/val/loss": float(best["val/loss"]),
            **_leaks(result.leaks),
        }
        _print(facts, as_json)
        return
    board = with_intervals(result.leaderboard.head(10), result.num_val)
    _write(board.to_string(index=False, na_rep=""))
    _write(f"\nSweep   {result.run_id}")
    _write(f"Winner  {result.best_run_id}")
    if result.leaks:
        _write(f"Leaks   {result.leaks}")
    if result.confirmation:
        _write(f"\n{as_text(result.confirmation)}")
    _write(f"Final test scores, when you are done choosing: {evaluate_command(result.best_run_id)}")


@app.command()
def confirm(
    sweep_id: Annotated[str, typer.Argument(metavar="SWEEP", help="The run id of a sweep that has ended.")],
    top: Annotated[int, typer.Option(min=1, help="Configurations, the best first.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds for each.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Train a sweep's best configurations again with fresh seeds, and rank them by their means.

    The best of many trials is partly the luckiest; this shows by how much. Each run is scored at the epoch that its
    trial had fixed. The first fresh run of the best configuration becomes the sweep's winner.

    Example: imgcls confirm RUN_ID --top 3 --seeds 5
    """
    from imgcls.config import project_root
    from imgcls.search.study import confirm_sweep
    from imgcls.search.summary import as_text, evaluate_command
    from imgcls.signals import GracefulStop
    from imgcls.tracking.record import LEAKS
    from imgcls.tracking.store import Tracker

    root = project_root(Path.cwd())
    tracker = Tracker(root)
    with GracefulStop() as stop:
        result = confirm_sweep(sweep_id, tracker, root, top=top, seeds=seeds, stop=stop)
    leaks = tracker.get(sweep_id).tags.get(LEAKS, "")
    if as_json:
        facts = {
            "run_id": sweep_id,
            "imgcls.best_run_id": result.best_run_id,
            "confirm/mean": result.winner.mean,
            "confirm/optimism": result.optimism,
            "confirm/num_seeds": len(result.winner.values),
            **_leaks(leaks),
        }
        _print(facts, as_json)
        return
    _write(as_text(result))
    if leaks:
        _write(f"Leaks    {leaks}")
    _write(f"Final test scores, when you are done choosing: {evaluate_command(result.best_run_id)}")


@app.command()
def evaluate(
    run_id: Annotated[str, typer.Option("--run-id", help="A completed run, or a sweep, which stands for its winner.")],
    again: Annotated[bool, typer.Option("--again", help="Look once more at a run that was judged already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open the test split, once, for the final scores of a run.

    First the run's val score is computed again and must match the record. Then the look is written down, the split is
    opened, and the scores become a run of their own below the run they judge. A run that was judged before gives its
    recorded scores again, and no look is taken.
    """
    from imgcls.config import project_root
    from imgcls.evaluation.judge import evaluate as judge
    from imgcls.tracking.store import Tracker

    root = project_root(Path.cwd())
    result = judge(run_id, Tracker(root), root, again=again)
    if as_json:
        _print(result.flat(), as_json)
    else:
        _write(result.report)


@app.command()
def rerun(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A completed run; a sweep stands for its winner.")],
    verify: Annotated[bool, typer.Option("--verify", help="Fail where the repeat differs from the original.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run again from its record alone, and compare every epoch's metrics with it.

    On the same kind of processor with the same threads and versions they have the same bits; elsewhere the best val
    accuracy may differ by less than half the width of its 95% interval.
    """
    from imgcls.config import project_root
    from imgcls.errors import TrainingError
    from imgcls.evaluation.rerun import rerun as repeat
    from imgcls.signals import GracefulStop
    from imgcls.tracking.store import Tracker

    root = project_root(Path.cwd())
    with GracefulStop() as stop:
        verdict = repeat(run_id, Tracker(root), root, stop)
    if as_json:
        _print(verdict.flat(), as_json)
    else:
        _write(verdict.markdown())
    if verify and not verdict.is_verified:
        raise TrainingError(f"run {run_id} could not be repeated: {verdict.first_difference}")


@app.command()
def ledger() -> None:
    """List every look at a test split: when, which images, which run, its score, who asked."""
    from imgcls.config import project_root
    from imgcls.evaluation.ledger import as_text, past_looks
    from imgcls.tracking.store import Tracker

    _write(as_text(past_looks(Tracker(project_root(Path.cwd())))))


@app.command()
def compare(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN_A RUN_B ...", help="Completed runs; a sweep stands for its winner.")
    ],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write it as one page, with the curves overlaid.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same images, from the predictions that they left.

    Paired on val, and on test where the runs were evaluated before; it opens no test split.

    Example: imgcls compare RUN_A RUN_B --html comparison.html
    """
    from imgcls.config import project_root
    from imgcls.evaluation.compare import compare as compared
    from imgcls.reporting.html import render
    from imgcls.tracking.store import Tracker

    result = compared(run_ids, Tracker(project_root(Path.cwd())))
    if html is not None:
        _save(html, render(result.markdown, result.pictures, title="Comparison of runs"))
    if as_json:
        _print(result.flat(), as_json)
    else:
        _write(result.markdown)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all are listed.")] = None,
    image_size: Annotated[int, typer.Option(min=4, help="Side of the input in pixels.")] = 224,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 (grey) or 3 (RGB).")] = 3,
    num_classes: Annotated[int, typer.Option(min=2, help="Classes.")] = 1000,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the models, or show one: shapes, parameters, multiply-adds.

    Example: imgcls models resnet --image-size 64 --set model.depth=34
    """
    from imgcls.config import Experiment, project_root
    from imgcls.models.registry import describe_model, list_models

    if name is None:
        for known, line in list_models():
            _write(f"{known:<40} {line}")
        return
    values: dict[str, object] = {"model.name": name}
    config = Experiment(name="model").replace(values).replace(_overrides(overrides), origin="--set").model
    root = project_root(Path.cwd())
    summary = describe_model(config, channels=channels, image_size=image_size, num_classes=num_classes, root=root)
    facts = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(summary).items()}
    _print(facts, as_json, title=name)


@app.command()
def runs(
    experiment: Annotated[str | None, typer.Argument(help="Only runs of this MLflow experiment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
) -> None:
    """List the newest runs of the record."""
    from imgcls.config import project_root
    from imgcls.reporting.report import score_of, terminal_table
    from imgcls.tracking.store import Tracker

    tracker = Tracker(project_root(Path.cwd()))
    records = tracker.find({}, experiment=experiment, newest=limit)
    if experiment is not None and not records:
        with_runs = ", ".join(sorted({record.experiment for record in tracker.find({})})) or "none"
        raise InputError(f"no runs of an experiment {experiment!r} in this store; experiments with runs: {with_runs}")
    for record in reversed(records):
        _write(
            f"{record.run_id}  {record.kind:<10} {record.outcome:<11} {record.experiment:<20} {record.name}  "
            f"{score_of(record)}"
        )
    if not records:
        _write(terminal_table([("runs", "none yet; imgcls train EXPERIMENT makes one")]))


@app.command()
def keys() -> None:
    """Explain every key of an experiment file, with its default."""
    from imgcls.config import config_table

    for key, default, meaning in config_table():
        _write(f"{key} = {default}\n    {meaning}")


@app.command()
def cache(
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Remove what was used least recently until SIZE is left: 20GB, or 0 for all."
        ),
    ] = None,
) -> None:
    """List the decoded images that are kept, which need no decoding again; or make room.

    They lie in IMGCLS_CACHE and take IMGCLS_CACHE_BYTES at most (such as 20GB; by default half of what the disk has
    left for them). Data for which that is too little are decoded anew in each epoch.
    """
    from imgcls.data.cache import budget, cache_folder, entries, in_words, parse_size
    from imgcls.data.cache import prune as remove

    if prune is not None:
        removed = remove(parse_size(prune, "--prune"))
        _write(f"removed {len(removed)} entries of {in_words(sum(entry.num_bytes for entry in removed))}")
    found = entries()
    for entry in found:
        _write(f"{in_words(entry.num_bytes):>9}  used {entry.last_used}  {entry.about}")
    total = sum(entry.num_bytes for entry in found)
    _write(f"{cache_folder()}: {in_words(total)} of {in_words(budget())} in {len(found)} entries")


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, it is only listed.")] = False,
) -> None:
    """Show what of the record's files may go, by kind and size; --yes removes it.

    That is what trials and runs that have ended would be resumed from, the weights of trials that were not chosen,
    leftovers of killed processes and the artifacts of deleted runs. It never touches a winner, a confirmed or judged
    run, the weights of a run of `train`, or a run that goes on; and no metric, prediction or report of any.
    """
    from imgcls.config import project_root
    from imgcls.tidy import as_text, look_through, remove
    from imgcls.tracking.store import Tracker

    root = project_root(Path.cwd())
    found = look_through(Tracker(root), root)
    _write(as_text(found))
    if yes:
        remove(found)
        _write("removed")
    elif found.items:
        _write("nothing was removed; imgcls clean --yes does it")


@app.command()
def doctor(
    relocate: Annotated[
        bool, typer.Option("--relocate", help="After moving the repository: find its artifacts.")
    ] = False,
) -> None:
    """Check the record of this project, and mend what can be mended; send what a tracking server has not got yet."""
    from imgcls.config import project_root
    from imgcls.tracking.store import Tracker

    tracker = Tracker(project_root(Path.cwd()))
    if relocate:
        _write(f"{tracker.relocate()} locations changed")
        return
    for line in tracker.send_unsent():
        _write(line)
    for record in tracker.close_orphans():
        _write(f"run {record.run_id} ({record.kind} of {record.experiment}) said RUNNING without a process: closed")
    lost = tracker.unreachable_artifacts()
    _write(f"{lost} experiments whose artifacts are not where the store says" + ("; try --relocate" if lost else ""))


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


def _overrides(texts: Iterable[str] | None) -> dict[str, object]:
    from imgcls.config import parse_override

    return dict(parse_override(text) for text in texts or ())


def _print(facts: Mapping[str, object], as_json: bool, title: str = "") -> None:
    if as_json:
        _write(json.dumps(facts))
        return
    from imgcls.reporting.report import terminal_table

    _write(title)
    _write(terminal_table([(key, str(value)) for key, value in facts.items()]))


def _leaks(summary: str) -> dict[str, str]:
    """Said beside the scores of a run whose splits leak, and of no other."""
    return {"imgcls.leaks": summary} if summary else {}


def _hint(as_json: bool, line: str) -> None:
    if not as_json:
        _write(line)


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name a file in a folder that exists") from error


def _write(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")
