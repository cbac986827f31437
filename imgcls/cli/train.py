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

    from imgcls.metrics import ACCURACY, reported
    from imgcls.record import MetricName, best_name
    from imgcls.reporting.cautions import flat_cautions
    from imgcls.reporting.rounding import score_text
    from imgcls.runs.announce import announce
    from imgcls.runs.prepare import prepare
    from imgcls.runs.train import train_run
    from imgcls.signals import GracefulStop
    from imgcls.tracking.store import Tracker

    prepared = prepare(loaded, project)
    with GracefulStop():
        tracker = Tracker(project.root)
        tracker.close_orphans()
        announce(prepared, tracker, runs="1 run")
        done = train_run(prepared, tracker, kind="train", name=prepared.experiment.name, fresh=fresh)
    best, names = done.best, reported(prepared.experiment.search.metric)
    facts: dict[str, object] = {
        "run_id": done.run_id,
        MetricName.BEST_EPOCH: best.epoch,
        **{best_name(name): best.value(name) for name in names},
    }
    if as_json:
        print_json(facts | flat_cautions(done.caution_tags))
        return
    for name in names:
        facts[best_name(name)] = score_text(best.value(name), done.intervals.get(name), done.intervals[ACCURACY.on_val])
    write(facts_text(f"Trained {prepared.experiment.name}", facts))
    write_cautions(done.caution_tags)
    write(f"Final test scores, when you are done choosing: python evaluate.py --run-id {done.run_id}")
