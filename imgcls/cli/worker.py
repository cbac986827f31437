"""Join a sweep as one of its processes."""

from typing import Annotated

import typer

from imgcls.cli.arguments import ExperimentName, Overrides, read_experiment
from imgcls.cli.output import LOADING, OPENING, write
from imgcls.terminal import waiting


def worker(
    experiment: ExperimentName,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, those of other processes included.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials side by side on this machine; as in the sweep by default.")
    ] = None,
) -> None:
    """Join the experiment's sweep, on this machine or another, and leave when nothing is left to do.

    Any number of workers may be started, at once or later; the first one makes the sweep. On several machines they need
    an MLflow server and a study that all reach (search.storage). A worker takes new trials, paused ones that go on, and
    those whose process is gone, each from its last checkpoint. Ctrl-C stops this worker alone.

    Example: imgcls worker digits --trials 10
    """
    loaded, project = read_experiment(experiment, overrides)
    flags = {"search.trials": trials, "search.workers": workers}
    loaded = loaded.replace({key: value for key, value in flags.items() if value is not None}, origin="option")

    with waiting(LOADING):
        from imgcls.cli.sweep import write_end
        from imgcls.search.sweep import work
        from imgcls.tracking.store import Tracker

    with waiting(OPENING):
        tracker = Tracker(project.root)
    sweep = tracker.get(work(loaded, tracker))
    if sweep.outcome == "completed":
        write_end(sweep.run_id, tracker)
    else:
        write(f"nothing is left for this worker; another process works on sweep {sweep.run_id} and writes its end")
