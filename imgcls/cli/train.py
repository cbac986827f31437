"""Train a run."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJson, ExperimentName, Overrides, read_experiment
from imgcls.cli.output import facts_text, print_json, write, write_cautions


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

    Example: imgcls train digits --set train.lr=3e-3
    """
    loaded, project = read_experiment(experiment, overrides)

    from imgcls.runs.train import train as train_one

    metric, done = loaded.search.metric, train_one(loaded, project, fresh=fresh)
    if as_json:
        print_json(done.flat(metric))
        return
    write(facts_text(f"Trained {loaded.name}", done.in_words(metric)))
    write_cautions(done.caution_tags)
    write(f"Final test scores, when you are done choosing: python evaluate.py --run-id {done.run_id}")
