"""Workers on one study: what of their time they work, and how many trials a storage can begin and end in a second.

    python -m benchmarks.workers [--workers 1 2 4 8] [--trial-seconds 5] [--trials-each 6] [--json]

The trials do not train: each sleeps, reports a value and leaves a run in the record, as the driver of a sweep has it
done by real ones. The study lies where IMGCLS_STUDY_STORAGE says, by default in a journal; the record where
MLFLOW_TRACKING_URI says, by default in a SQLite file. All processes are on this machine.

The efficiency of N workers is the time that the sleep of one worker's trials takes, over the wall time of all. Trials
that sleep 0 seconds show the rate that the storage and the record can bear, which bounds the number of workers: N
workers whose trials last S seconds need N / S trials a second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from optuna.trial import TrialState

from imgcls.config.keys import Experiment
from imgcls.runs.record_writer import Finished
from imgcls.search.driver import Driver
from imgcls.search.joining import joined
from imgcls.search.optuna_internals import attach
from imgcls.search.storage import VARIABLE
from imgcls.search.study import SweepStudy
from imgcls.search.study_place import StudyPlace
from imgcls.search.trial import TrialJob, cached_fence, cached_tracker
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EpochResult

FORK = multiprocessing.get_context("fork")
"""The processes have imported all libraries already, which would take seconds for each."""


@dataclass(frozen=True)
class Row:
    """What one number of workers took.

    Attributes:
        workers: processes.
        trials: of all of them.
        seconds: wall time, from the first look at the study to the end of the last worker.
        trials_per_second: over that time.
        efficiency: share of that time that a worker's trials slept; 0 where they did not sleep.
    """

    workers: int
    trials: int
    seconds: float
    trials_per_second: float
    efficiency: float


def measure(num_workers: int, trials_each: int, trial_seconds: float) -> Row:
    """Runs a study of its own with so many workers."""
    num = num_workers * trials_each
    with tempfile.TemporaryDirectory() as folder:
        place = StudyPlace(Path(folder), f"workers-{uuid4().hex}", "0" * 32, pruner_warmup=0, num_epochs=1)
        # Other processes make the study and the record, and read them: a fork inherits no open channel of gRPC.
        _run(1, _begin, place, _experiment(num))
        begun = time.monotonic()
        _run(num_workers, _work, place, _experiment(num), trial_seconds)
        seconds = time.monotonic() - begun
        _run(1, _check, place, _experiment(num))
    return Row(num_workers, num, seconds, num / seconds, trials_each * trial_seconds / seconds)


def _run(num: int, function: Callable[..., None], *args: object) -> None:
    processes = [FORK.Process(target=function, args=args) for _ in range(num)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process failed; what it said is above")


def _experiment(num_trials: int) -> Experiment:
    space = {"train.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    search = {"trials": num_trials, "workers": 1, "pruner": "none", "sampler": "qmc", "space": space}
    return Experiment.model_validate({"name": "workers", "data": {"source": "digits"}, "search": search})


def _begin(place: StudyPlace, experiment: Experiment) -> None:
    Tracker(place.root).find({})
    with joined(place, experiment):
        pass


def _work(place: StudyPlace, experiment: Experiment, trial_seconds: float) -> None:
    TrialJob.run = lambda job: _sleep(job, trial_seconds)  # type: ignore[method-assign]
    with joined(place, experiment) as leases:
        study = SweepStudy(place, experiment, has_groups=False, sampler="qmc", leases=leases)
        Driver(study, 100, Tracker(place.root)).run()


def _sleep(job: TrialJob, seconds: float) -> Finished:
    """What a trial leaves, without training: a run with a metric, and its values in the study."""
    tracker, study = cached_tracker(job.study.root), job.study.open(job.experiment)
    guard, value = job.study.guard(cached_fence(job, study), job.experiment), job.experiment.train.lr
    with tracker.guarded(guard), tracker.start_run("workers", kind="trial", name=job.name, tags=job.tags) as run:
        time.sleep(seconds)
        attach(study, job.number).report(value, step=1)
        run.log_metrics({"val/accuracy": value}, step=1)
    best = EpochResult(1, value, {"val/accuracy": value, "val/loss": value}, value, 0.1, 1.0, 0)
    return Finished(run.run_id, "completed", best, 1, {})


def _check(place: StudyPlace, experiment: Experiment) -> None:
    """Every trial was done, and once."""
    num = experiment.search.trials
    states = [trial.state for trial in place.open(experiment).trials]
    numbers = [run.trial for run in Tracker(place.root).find({"imgcls.study": place.name})]
    if states != [TrialState.COMPLETE] * num or sorted(map(str, numbers)) != sorted(map(str, range(num))):
        raise SystemExit(f"of {num} trials not each was done once: {states}, {numbers}")


def main() -> None:
    """Prints a line for each number of workers, or one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--trial-seconds", type=float, default=5.0, help="sleep of a trial")
    parser.add_argument("--trials-each", type=int, default=6, help="trials, times the number of workers")
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    options = parser.parse_args()
    rows = []
    for num in options.workers:
        rows.append(row := measure(num, options.trials_each, options.trial_seconds))
        if not options.json:
            print(
                f"{num:3} workers  {row.trials:4} trials  {row.seconds:6.1f} s  {row.trials_per_second:5.2f} trials/s  "
                f"efficiency {row.efficiency:.2f}", flush=True,
            )  # fmt: skip
    if options.json:
        where = {"storage": os.environ.get(VARIABLE, "").split(":")[0] or "journal"}
        print(json.dumps({**where, "trial_seconds": options.trial_seconds, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
