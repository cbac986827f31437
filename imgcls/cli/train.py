"""Train a run."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, ExperimentName, Overrides, read_experiment
from imgcls.cli.output import LOADING, facts_text, print_json, write, write_cautions, write_evaluate
from imgcls.processes import own_place
from imgcls.terminal import waiting


def train(
    experiment: ExperimentName,
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new run, even if an earlier one stopped before its end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train one tracked run.

    A run of the same experiment and data that stopped before its end, however it did, is taken up where it stood.
    Several processes train it together, each on a part of every batch, where torchrun starts them:
    torchrun --nproc-per-node 2 -m imgcls train digits

    Example: imgcls train digits --set train.lr=3e-3
    """
    loaded, project = read_experiment(experiment, overrides)

    with waiting(LOADING):
        from imgcls.record import Artifact
        from imgcls.reporting.tables import terminal_table
        from imgcls.reporting.where_to_look import next_verbs, place_of, ui_places
        from imgcls.runs.train import train as train_one
        from imgcls.tracking.store import Tracker

    metric, done = loaded.search.metric, train_one(loaded, project, fresh=fresh)
    if own_place().rank:  # the first of several processes says it
        return
    if as_json:
        print_json(done.flat(metric))
        return
    write(facts_text(f"Trained {loaded.name}", done.in_words(metric)))
    tracker = Tracker(project.root)
    run = tracker.get(done.run_id)
    rows = [("Weights", place_of(run, Artifact.BEST)), *ui_places(run, tracker), *next_verbs(run)]
    write(f"\n{terminal_table(rows)}")
    write_cautions(done.caution_tags)
    write_evaluate(run)
