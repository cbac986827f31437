"""The verbs of the library: each does what the verb of the same name does in the shell, in the same stores."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgcls.library.experiment import Experiment, ExperimentSource, load_experiment
from imgcls.library.results import CompareResult, EvaluateResult, Run, SweepResult, TrainResult, place_of
from imgcls.library.surroundings import as_in_the_shell
from imgcls.processes import refuse_several
from imgcls.project import Project

if TYPE_CHECKING:
    import pandas as pd

    from imgcls.inference.classifier import Classifier
    from imgcls.search.budget import Budget
    from imgcls.tracking.store import Tracker


def train(experiment: Experiment | ExperimentSource, /, *, fresh: bool = False, **overrides: Any) -> TrainResult:
    """Trains one tracked run, as `imgcls train` does, with its progress on stderr.

    A run of the same experiment and data that stopped before its end is continued where it stopped.

    Args:
        experiment: from `load_experiment`, or whatever that takes.
        fresh: begin a new run, even if an earlier one stopped before its end.
        overrides: tables or dotted keys, such as `train={"lr": 3e-3}` or `**{"train.lr": 3e-3}`.

    Returns:
        The run, which can be given to `evaluate`, `compare` and `load_model`, with its val scores at the kept epoch.

    Raises:
        InputError: the experiment, its images or this machine's devices do not allow it; nothing was recorded.
        Interrupted: Ctrl-C, after a whole step; the same call goes on. A second Ctrl-C is a KeyboardInterrupt.
        TrainingError: a loss is not finite; the run is FAILED, with the reason in its record.
        ResourceError: the machine ran out of disk or memory; the same call goes on.
    """
    loaded = _loaded(experiment, overrides)
    with as_in_the_shell():
        from imgcls.reporting.cautions import cautions
        from imgcls.reporting.tables import terminal_table
        from imgcls.runs.train import train as train_one

        metric, done = loaded.search.metric, train_one(loaded, loaded.project, fresh=fresh)
        rows = [(name, str(value)) for name, value in done.in_words(metric).items()]
        return TrainResult(
            scores=done.flat(metric),
            cautions=cautions(done.caution_tags),
            text=f"Trained {loaded.name}\n{terminal_table(rows)}",
            root=loaded.project.root,
            run_id=done.run_id,
            best_epoch=done.best.epoch,
        )


def sweep(
    experiment: Experiment | ExperimentSource, /, *, budget: str | float | None = None, engine: str = "local",
    address: str = "", cpus_per_trial: int | None = None, gpus_per_trial: float | None = None, **overrides: Any,
) -> SweepResult:  # fmt: skip
    """Searches the experiment's `[search.space]` by validation score, as `imgcls sweep` does.

    Called again, it goes on with the same study, up to `search.trials` in all. It never opens the test split.

    Args:
        experiment: from `load_experiment`, or whatever that takes.
        budget: the time of all of it, confirmation and report included: seconds, or a text such as `30m`. As many
            trials are run as fit, unless the overrides say how many.
        engine: what trains the trials: `local` for this machine, or `ray` (docs/ray.md), which the next three are for.
        address: HOST:PORT of a running Ray cluster, or `auto`; "" starts Ray on this machine.
        cpus_per_trial: CPUs of each trial, which are its threads; by default `train.threads`, or 1.
        gpus_per_trial: 1, or the share of a GPU that each trial has, in (0, 1); by default none.
        overrides: tables or dotted keys, such as `search={"trials": 10, "workers": 2}`; `search.timeout` is in seconds.

    Returns:
        The sweep, its winner with its val scores, and the leaderboard. It stands for its winner in further calls.

    Raises:
        InputError: no search space, values outside it, or images that cannot be used; nothing was recorded.
        Interrupted: Ctrl-C, after a whole step; the same call goes on. A second Ctrl-C is a KeyboardInterrupt.
        TrainingError: no trial succeeded, or several in a row failed alike.
        ResourceError: the machine ran out of disk or memory; the same call goes on.
    """
    refuse_several("sweep")
    of_time = _budget(budget, overrides)
    loaded = _loaded(experiment, overrides)
    with as_in_the_shell():
        from imgcls.reporting.cautions import cautions
        from imgcls.reporting.run_scores import val_score
        from imgcls.reporting.tables import terminal_table
        from imgcls.search.ray_request import ray_request
        from imgcls.search.study_place import verbosity_kept
        from imgcls.search.sweep import sweep as search
        from imgcls.search.winner import flat
        from imgcls.tracking.store import Tracker

        on_ray = ray_request(engine, address, cpus_per_trial, gpus_per_trial)
        tracker = Tracker(loaded.project.root)
        with verbosity_kept():
            found = search(loaded, tracker, of_time, on_ray)
        record, winner = tracker.get(found.run_id), tracker.get(found.best_run_id)
        metric = loaded.search.metric
        rows = [("Sweep", record.run_id), ("Winner", f"{winner.run_id}  {metric} {val_score(winner, metric)}")]
        return SweepResult(
            scores=flat(record),
            cautions=cautions(record.tags),
            text=terminal_table(rows),
            root=tracker.root,
            run_id=record.run_id,
            best_run_id=winner.run_id,
            leaderboard=found.leaderboard,
        )


def evaluate(run: Run, /, *, again: bool = False) -> EvaluateResult:
    """Opens the test split, once, for the final scores of a run, as `imgcls evaluate` does.

    The run's val score is computed again first and must match the record. Then the look is written down, and the split
    is opened. A run that was judged before gives its recorded scores, and no look is taken.

    Args:
        run: a completed run; a sweep stands for its winner.
        again: look once more at a run that was judged before.

    Returns:
        The scores on test and val with their 95% intervals (docs/intervals.md), the look, and the report.

    Raises:
        InputError: no such run, or one that cannot be judged here; the split stays closed.
    """
    named, root = place_of(run)
    with as_in_the_shell():
        from imgcls.evaluation.evaluation_report import scores_text
        from imgcls.evaluation.judge import evaluate as judge
        from imgcls.evaluation.selection import selection_of
        from imgcls.reporting.cautions import cautions

        tracker = _tracker(root)
        found = judge(named, tracker, again=again)
        return EvaluateResult(
            scores=found.flat(),
            cautions=cautions(found.record.tags),
            text=scores_text(found.record, selection_of(found.judged, tracker)),
            root=tracker.root,
            run_id=found.run_id,
            judged_run_id=found.judged.run_id,
            look=found.record.look,
            is_recorded=found.is_recorded,
            report=found.report,
        )


def compare(*runs: Run) -> CompareResult:
    """Compares runs on the same images, from the predictions that they left, as `imgcls compare` does.

    They are paired image by image on val, and on test where the runs were evaluated before. No test split is opened.

    Args:
        runs: two or more completed runs of one project; a sweep stands for its winner.

    Returns:
        Differences of accuracy with their 95% intervals and p-values (docs/intervals.md), and the report.

    Raises:
        InputError: fewer than two runs, one twice, one without predictions, or runs with other val images.
    """
    places = [place_of(run) for run in runs]
    with as_in_the_shell():
        from imgcls.evaluation.compare import compare as compared
        from imgcls.evaluation.comparison_report import comparison_markdown

        roots = [root for _, root in places if root is not None]
        found = compared([named for named, _ in places], _tracker(roots[0] if roots else None))
        return CompareResult(tuple(run.run_id for run in found.runs), found.flat(), comparison_markdown(found))


def list_runs(experiment: str | None = None, *, limit: int | None = None) -> pd.DataFrame:
    """Lists the runs of the record around the working folder, the newest first, as `imgcls runs` does.

    Args:
        experiment: only runs of this MLflow experiment.
        limit: at most so many, from 1 to 1000; None for all.

    Returns:
        A row for each run. The columns have the record's names (docs/record.md): `run_id`, `experiment`, `name`,
        `imgcls.kind`, `imgcls.outcome`, `mlflow.parentRunId`, `start_time` and `end_time` (UTC), `seconds`, then the
        values that a sweep drew, such as `train.lr`, and the last value of each metric, such as `best/val/accuracy`.
        A cell is missing where a run has no such value.

    Raises:
        InputError: another limit, or no run of that experiment; the message names those that have runs.
    """
    with as_in_the_shell():
        from imgcls.reporting.runs_table import runs_frame
        from imgcls.tracking.find_run import newest_runs

        return runs_frame(newest_runs(_tracker(None), experiment, limit))


def load_model(run: Run | os.PathLike[str], /) -> Classifier:
    """Loads the model of a run, or of an exported file, to predict images with it.

    Its `predict` takes files, folders, globs, arrays, images of Pillow and bytes, and gives a DataFrame with the
    columns of `imgcls predict --csv`: `image`, `prediction`, and `prob/CLASS` in [0, 1], calibrated unless `raw=True`.
    Images of a test split are refused without `test_look=True`. On the run's own val images it gives the recorded
    probabilities, to 1e-5.

    Args:
        run: a completed run; a sweep stands for its winner. Also `models:/NAME@ALIAS`, which stands for the run that
            was registered, and the path of a file that `imgcls export` wrote.

    Raises:
        InputError: the run or the file does not exist, or its weights were removed.
    """
    named, root = place_of(os.fspath(run) if isinstance(run, os.PathLike) else run)
    with as_in_the_shell():
        from imgcls.inference.find_model import find_model

        model = find_model(named, root or Path.cwd())
    model.surroundings = as_in_the_shell
    return model


def _budget(given: str | float | None, overrides: Mapping[str, Any]) -> Budget | None:
    """A budget as the shell has it."""
    from imgcls.search.budget import Budget, parse_budget

    if given is None:
        return None
    table = overrides.get("search")
    gives_trials = "search.trials" in overrides or (isinstance(table, Mapping) and "trials" in table)
    return Budget(parse_budget(given if isinstance(given, str) else f"{math.ceil(given)}s"), gives_trials)


def _loaded(experiment: Experiment | ExperimentSource, overrides: dict[str, Any]) -> Experiment:
    loaded = experiment if isinstance(experiment, Experiment) else load_experiment(experiment)
    return loaded.replace(overrides) if overrides else loaded


def _tracker(root: Path | None) -> Tracker:
    """The record of a project, by default of that around the working folder."""
    from imgcls.tracking.store import Tracker

    return Tracker(root or Project.around(Path.cwd()).root)
