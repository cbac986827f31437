"""Search by validation score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.arguments import AsJson, ExperimentName, Overrides, read_experiment
from imgcls.cli.output import LOADING, OPENING, print_json, write, write_cautions, write_evaluate
from imgcls.terminal import waiting

if TYPE_CHECKING:
    from imgcls.tracking.store import Tracker


def sweep(
    experiment: ExperimentName,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, earlier sittings included.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which no further trial starts.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for all of it, confirmation and report included, such as 30m or 90s.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials side by side; chosen for this machine by default.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What trains the trials: local (this machine) or ray.")] = "local",
    address: Annotated[
        str, typer.Option(help="With Ray: HOST:PORT of a cluster, or auto; by default Ray starts on this machine.")
    ] = "",
    cpus_per_trial: Annotated[
        int | None, typer.Option(min=1, help="With Ray: CPUs of each trial, which are its threads.")
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, max=1, help="With Ray: 1, or the share of a GPU that each trial has.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the experiment's [search.space] by validation score.

    Typed again, it goes on with the same study, up to --trials in all. With --budget it runs as many trials as fit,
    unless --trials says how many. It never opens the test split.

    Example: imgcls sweep digits --trials 10
    """
    from imgcls.search.budget import Budget, parse_budget
    from imgcls.search.ray_request import ray_request

    on_ray = ray_request(engine, address, cpus_per_trial, gpus_per_trial)
    gives_trials = trials is not None or any(text.strip().startswith("search.trials") for text in overrides or ())
    of_time = None if budget is None else Budget(parse_budget(budget), gives_trials)
    loaded, project = read_experiment(experiment, overrides)
    flags = {"search.trials": trials, "search.timeout": timeout, "search.workers": workers}
    loaded = loaded.replace({key: value for key, value in flags.items() if value is not None}, origin="option")

    with waiting(LOADING):
        from imgcls.evaluation.confirmation import confirmation_text
        from imgcls.search.leaderboard import with_intervals
        from imgcls.search.sweep import sweep as search
        from imgcls.search.winner import flat
        from imgcls.tracking.store import Tracker

    with waiting(OPENING):
        tracker = Tracker(project.root)
    result = search(loaded, tracker, of_time, on_ray)
    if as_json:
        print_json(flat(tracker.get(result.run_id)))
        return
    board = with_intervals(result.leaderboard.head(10), result.num_val)
    write(board.to_string(index=False, na_rep=""))
    if result.confirmation:
        write(f"\n{confirmation_text(result.confirmation)}")
    write_end(result.run_id, tracker)


def write_end(sweep_run_id: str, tracker: Tracker) -> None:
    """The end of what `imgcls sweep` prints, and `imgcls confirm`: the winner, where all lies and the next verb."""
    from imgcls.evaluation.selection import selection_of, story
    from imgcls.reporting.run_scores import val_score
    from imgcls.reporting.tables import terminal_table
    from imgcls.reporting.where_to_look import next_verbs, places

    sweep = tracker.get(sweep_run_id)
    winner = tracker.get(sweep.best_run_id)
    metric = sweep.params["search.metric"]
    selection = selection_of(winner, tracker)
    rows = [
        ("Sweep", sweep.run_id),
        *([("Trials", f"{selection.searched}: the same imgcls sweep goes on")] if selection.missing_trials else []),
        ("Winner", f"{winner.run_id}  {winner.name}"),
        ("Score", f"{metric} {val_score(winner, metric)}"),
        *places(sweep, winner, tracker),
    ]
    if sweep.confirmed_run_id != winner.run_id:
        rows.append(("Next", f"imgcls confirm {sweep.run_id}  (how lucky was the winner?)"))
    rows += next_verbs(winner)
    write(f"\n{terminal_table(rows)}")
    write(" ".join(story(selection, "The winner")).replace("`", ""))
    write_cautions(sweep.tags)
    write_evaluate(winner)
