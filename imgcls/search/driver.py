"""The loop over the trials of a sweep: asks for values, gives jobs to the engine, tells what came of them."""

import logging
import time
from collections import Counter
from dataclasses import replace

from imgcls.errors import ConfigError, Interrupted, TrainingError
from imgcls.record import Tag
from imgcls.search.engines import Engine, LocalProcesses, ThisProcess, TrialOutcome
from imgcls.search.space import SPACE
from imgcls.search.study import SweepStudy
from imgcls.search.sweep_progress import SweepProgress
from imgcls.search.trial import TrialJob
from imgcls.signals import stop_requested
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

ALIKE_FAILURES = 3
"""Number of trials in a row that end the sweep when all of them fail for the same reason."""

MAX_LOSSES = 2
"""Number of lost workers after which a trial fails: what killed them is likely to be the trial itself."""


class Driver:
    """The driver of a sweep's trials: goes on until there are enough, time is up, or a stop is requested.

    Args:
        study: whose trials are run; this process holds its claim.
        num_val: validation images, for the intervals that progress shows.
        tracker: where the trials are recorded.
    """

    def __init__(self, study: SweepStudy, num_val: int, tracker: Tracker) -> None:
        self._study = study
        self._search = study.experiment.search
        self._tracker = tracker
        # With the study's claim in our hand, a trial that says RUNNING was left by a sitting that is over.
        self._left = study.running()
        self._progress = SweepProgress(study, num_val, taken_up=frozenset(self._left))
        self._losses: Counter[int] = Counter()
        self._num_open = 0

    def run(self) -> None:
        """Runs the trials.

        Raises:
            Interrupted: a stop was requested.
            TrainingError: several trials failed alike in a row.
        """
        if ended := self._study.num_ended():
            log.info("%d of %d trials have ended already", ended, self._study.num_wanted())
        num_workers = min(self._search.num_workers, self._search.trials)
        engine = ThisProcess() if num_workers == 1 else LocalProcesses(num_workers)
        try:
            self._run_trials(engine)
            self._take_last_outcomes(engine)
        finally:
            self._progress.close()
            engine.close()
        self._tracker.close_orphans()  # of workers that were lost when there was no time left
        if by := stop_requested():
            raise Interrupted(f"stopped by {by}")

    def _run_trials(self, engine: Engine) -> None:
        started, any_ended = time.monotonic(), False
        while not stop_requested():
            # Each sitting runs one trial at least, or a short timeout would never end a sweep.
            is_over = any_ended and 0 < self._search.timeout <= time.monotonic() - started
            if not is_over:
                self._submit_jobs(engine)
            if not self._num_open:
                if is_over and self._wants_more():
                    self._say_that_time_is_over()
                return
            for outcome in engine.wait():
                self._num_open, any_ended = self._num_open - 1, True
                self._take(outcome)
            self._stop_on_alike_failures()

    def _say_that_time_is_over(self) -> None:
        timeout, ended, wanted = self._search.timeout, self._study.num_ended(), self._study.num_wanted()
        log.info(
            "search.timeout = %g s is over after %d of %d trials; the same command goes on for up to %g s more",
            timeout, ended, wanted, timeout,
        )  # fmt: skip

    def _submit_jobs(self, engine: Engine) -> None:
        while self._num_open < engine.capacity and self._wants_more():
            if job := self._job(self._left.pop(0) if self._left else self._study.ask()):
                job = replace(job, outlook=self._progress.outlook(engine.capacity))
                self._progress.on_start(job)
                engine.submit(job)
                self._num_open += 1

    def _wants_more(self) -> bool:
        return self._study.num_ended() + self._num_open < self._study.num_wanted()

    def _job(self, number: int) -> TrialJob | None:
        """The trial as an engine takes it; None where its values are impossible, which fails the trial."""
        try:
            experiment = self._study.experiment.replace(self._study.values(number), origin=SPACE)
        except ConfigError as error:
            log.warning("trial %d failed: %s", number, error)
            self._study.tell_of_failure(number, str(error))
            return None
        return TrialJob(self._study.place, experiment, number)

    def _take(self, outcome: TrialOutcome) -> None:
        if outcome.interrupted and stop_requested():
            return  # it stays as it is until the sweep goes on
        if self._goes_on(outcome):
            self._left.insert(0, outcome.job.number)
            return
        self._tell(outcome)
        self._progress.on_trial(outcome)

    def _take_last_outcomes(self, engine: Engine) -> None:
        """After a stop was requested, waits for the jobs that are open."""
        while self._num_open and stop_requested():
            for outcome in engine.wait():
                self._num_open -= 1
                if not outcome.interrupted:
                    self._tell(outcome)

    def _goes_on(self, outcome: TrialOutcome) -> bool:
        """Whether a trial is to be taken up again whose worker was lost, by somebody's kill or for want of memory."""
        if not outcome.interrupted:
            return False
        self._losses[outcome.job.number] += 1
        if self._losses[outcome.job.number] >= MAX_LOSSES:
            return False
        log.warning("trial %d: %s; it is taken up again", outcome.job.number, outcome.error)
        return True

    def _tell(self, outcome: TrialOutcome) -> None:
        if outcome.interrupted:  # its worker was lost, and nobody else will end its run
            for record in self._tracker.find({Tag.KIND: "trial", **outcome.job.tags}):
                if record.outcome in ("running", "interrupted"):
                    self._tracker.close_run(record.run_id, "failed", outcome.error)
        if outcome.finished is None:
            self._study.tell_of_failure(outcome.job.number, outcome.error)
        else:
            self._study.tell(outcome.job.number, outcome.finished)

    def _stop_on_alike_failures(self) -> None:
        errors = self._study.last_errors(ALIKE_FAILURES)
        if len(errors) == ALIKE_FAILURES and errors[0] and len(set(errors)) == 1:
            raise TrainingError(f"{ALIKE_FAILURES} trials in a row failed alike: {errors[0]}")
