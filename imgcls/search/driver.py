"""The loop over the trials of a sweep: asks for values, gives jobs to the engine, tells what came of them."""

import logging
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from imgcls.errors import ConfigError, Interrupted, TrainingError
from imgcls.record import Tag
from imgcls.search.budget import SearchTime
from imgcls.search.engines import MAX_LOSSES, Cluster, Engine, local_engine
from imgcls.search.halving import FACTOR, FACTOR_OF_FOLDS
from imgcls.search.outcome import Outcome
from imgcls.search.promotion import BEYOND_MOST, Promotion, Step
from imgcls.search.space import SPACE
from imgcls.search.study import SweepStudy
from imgcls.search.sweep_progress import SweepProgress
from imgcls.search.trial import TrialJob
from imgcls.signals import stop_requested
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

ALIKE_FAILURES = 3
"""Number of trials in a row that end the sweep when all of them fail for the same reason."""

FIRST_LOOK, LONGEST_LOOK = 0.25, 2.0
"""Seconds between two looks for work, where other processes have all of it: at first, and at most after doubling."""

LONGEST_TO_BEGIN = 0.5
"""The same at most, where another process is about to begin the trial that comes next."""


class _Begun(NamedTuple):
    """How many epochs a trial had when an engine took it, and when that was, in seconds."""

    num_epochs: int
    at: float


class Driver:
    """The driver of a sweep's trials: goes on until there are enough, time is up, or a stop is requested.

    Args:
        study: whose trials are run, perhaps by other processes too.
        num_val: validation images, for the intervals that progress shows.
        tracker: where the trials are recorded.
        share: the time that the search has, where the sweep has a budget.
        cluster: trains them instead of this machine.
    """

    def __init__(
        self, study: SweepStudy, num_val: int, tracker: Tracker, share: SearchTime | None = None,
        cluster: Cluster | None = None,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._study = study
        self._search = study.experiment.search
        self._tracker = tracker
        self._share = share
        self._progress = SweepProgress(study, num_val, taken_up=frozenset(study.left()), share=share)
        self._set_aside: set[int] = set()
        self._open: dict[int, TrialJob] = {}
        self._begun: dict[int, _Begun] = {}
        self._is_beyond_most = False
        self._are_others_at_work = False
        self._to_next_look = FIRST_LOOK

    def run(self) -> None:
        """Runs the trials.

        Raises:
            Interrupted: a stop was requested.
            TrainingError: several trials failed alike in a row.
        """
        self._say_where_nobody_pauses()
        ended, waiting = self._study.num_ended(), self._num_paused_in_words()
        if ended or waiting:
            log.info("%d of %d trials have ended already%s", ended, self._study.num_wanted(), waiting)
        num_workers = min(self._search.num_workers, self._search.trials)
        num_processes = self._search.processes_per_trial
        engine: Engine[TrialJob] = self._cluster.engine() if self._cluster else local_engine(num_workers, num_processes)
        try:
            self._run_trials(engine)
            self._end_the_best_early(engine)
            self._take_last_outcomes(engine)
        finally:
            self._progress.close()
            engine.close()
        self._tracker.close_orphans()  # of workers that were lost when there was no time left
        if by := stop_requested():
            raise Interrupted(f"stopped by {by}")

    def _run_trials(self, engine: Engine[TrialJob]) -> None:
        started, any_ended = time.monotonic(), False
        while not stop_requested():
            # Each sitting runs one trial at least, or a short timeout would never end a sweep.
            is_over = any_ended and self._is_over(time.monotonic() - started)
            self._are_others_at_work = False
            if not is_over:
                self._submit_jobs(engine)
            if not self._open:
                # Others were at work before: a trial that they end or pause just now may leave something to do.
                if not is_over and (self._are_others_at_work or self._study.elsewhere() or self._wants_more()):
                    self._wait_for_work()
                    continue
                if is_over and self._wants_more():
                    self._say_that_time_is_over()
                return
            outcomes = engine.wait()
            any_ended = any_ended or bool(outcomes)
            self._take_all(outcomes)

    def _wait_for_work(self) -> None:
        # Drawn, so that processes do not all ask a server at once.
        time.sleep(random.uniform(0.5, 1) * self._to_next_look)
        self._to_next_look = min(2 * self._to_next_look, LONGEST_LOOK)

    def _is_over(self, seconds: float) -> bool:
        """Whether no further trial begins, `seconds` after the first one began."""
        if self._share is not None and not self._share.has_time_for_a_trial():
            return True
        return 0 < self._search.timeout <= seconds

    def _end_the_best_early(self, engine: Engine[TrialJob]) -> None:
        """Has a winner where the budget was too short for a whole training: the best trial, with the epochs it has."""
        if self._share is None or self._study.any_completed() or stop_requested():
            return
        if (number := self._study.best_begun()) is None or not self._study.leases.take(number):
            return
        if (job := self._job(Step(number))) is None:
            return
        log.warning("the budget was too short for a whole training: trial %d ends with the epochs that it has", number)
        self._give(engine, replace(job, ends_early=True, until=math.inf))
        while self._open:
            for outcome in engine.wait():
                del self._open[outcome.job.number]
                self._take(outcome)

    def _say_that_time_is_over(self) -> None:
        if self._share is not None:
            ended, wanted = self._study.num_ended(), self._study.num_wanted()
            log.info("the time of the search is over after %d of %d trials; the same command goes on", ended, wanted)
            return
        timeout, ended, wanted = self._search.timeout, self._study.num_ended(), self._study.num_wanted()
        waiting = self._num_paused_in_words()
        log.info(
            "search.timeout = %g s is over after %d of %d trials%s; the same command goes on for up to %g s more",
            timeout, ended, wanted, waiting, timeout,
        )  # fmt: skip

    def _say_where_nobody_pauses(self) -> None:
        place = self._study.place
        if not self._study.promotion or len(place.rungs().epochs) > 1:
            return
        why = (
            f"{place.num_folds} folds; set data.folds = {math.ceil(FACTOR_OF_FOLDS)} or more"
            if place.num_folds
            else f"{place.num_epochs} epochs, because it judges none before epoch {place.pruner_warmup}; set "
            f"train.epochs = {math.ceil(FACTOR * max(1, place.pruner_warmup))} or more"
        )
        level = logging.WARNING if "pruner" in self._study.experiment.search.model_fields_set else logging.INFO
        log.log(level, 'search.pruner = "halving" pauses no trial of %s', why)

    def _num_paused_in_words(self) -> str:
        paused = len(self._study.paused())
        return f", and {paused} {'is' if paused == 1 else 'are'} paused" if paused else ""

    def _submit_jobs(self, engine: Engine[TrialJob]) -> None:
        while len(self._open) < engine.capacity and (step := self._next()):
            self._to_next_look = FIRST_LOOK
            if job := self._job(step):
                with self._study.one_reading():
                    job = replace(job, outlook=self._progress.outlook(engine.capacity, job))
                    if not job.ends:
                        self._progress.on_start(job)
                    self._give(engine, job)

    def _give(self, engine: Engine[TrialJob], job: TrialJob) -> None:
        self._begun[job.number] = _Begun(self._study.num_epochs(job.number), time.monotonic())
        engine.submit(job)
        self._open[job.number] = job

    def _next(self) -> Step | None:
        """What comes next: a trial that was left, one that goes on from its pause or ends there, or a new one."""
        can_have_more = self._can_have_more()
        with self._study.one_reading():
            self._are_others_at_work = bool(self._study.elsewhere())
            left = [number for number in self._study.left() if number not in {*self._open, *self._set_aside}]
            if not left and (promotion := self._study.promotion):
                has_to_finish = self._has_to_finish()
                step = self._promoted(promotion, can_have_more, has_to_finish)
                if step is not None or (has_to_finish and self._open):
                    return step
            wants_more, free = self._wants_more(), self._study.next_free()
        if not wants_more:
            if not can_have_more:
                return None
            self._study.want(self._study.num_wanted() + 1)
        number = next((number for number in left if self._take_up(number)), None)
        if number is None and free is None:
            self._to_next_look = min(self._to_next_look, LONGEST_TO_BEGIN)
        elif number is None:
            number = self._study.ask(free)
        return None if number is None else Step(number)

    def _promoted(self, promotion: Promotion, can_have_more: bool, has_to_finish: bool) -> Step | None:
        under_way, wanted = {*self._open, *self._study.elsewhere()}, self._study.num_wanted()
        step = promotion.next(
            under_way, wanted, ends_rest=not can_have_more, has_to_finish=has_to_finish, take=self._study.leases.take
        )
        if step is not None:
            self._say_that_too_many_wait(step)
        return step

    def _take_up(self, number: int) -> bool:
        """Takes up a trial that was left, unless another process does; it fails where too many were lost over it."""
        if (lease := self._study.leases.take(number)) is None:
            return False
        if number not in self._study.left():  # it was ended, or paused, and given back just now
            self._study.leases.give_back(number)
            return False
        if not lease.was_lost or self._lose(number) < MAX_LOSSES:
            return True
        if job := self._job(Step(number)):
            outcome = Outcome(job, error=f"{MAX_LOSSES} processes that worked on it were lost", interrupted=True)
            self._tell(outcome)
            self._progress.on_trial(outcome)
        return False

    def _can_have_more(self) -> bool:
        """Whether a budget has time for more trials than were planned."""
        if self._share is None or self._share.budget.keeps_trials or self._study.sampler == "grid":
            return False
        return self._share.has_time_for_a_trial()

    def _has_to_finish(self) -> bool:
        """Whether a budget's time is needed to train a first trial to its end."""
        if self._share is None or self._study.promotion is None or self._study.any_completed():
            return False
        return not self._share.has_time_for(self._study.epochs_to_finish() + 1)

    def _say_that_too_many_wait(self, step: Step) -> None:
        if step.ends == BEYOND_MOST and not self._is_beyond_most:
            self._is_beyond_most = True
            log.info(
                "more than search.max_paused = %d trials are paused, so the worst ones of the lowest rung are pruned, "
                "which could have gone on otherwise", self._search.max_paused,
            )  # fmt: skip

    def _wants_more(self) -> bool:
        """Whether fewer trials were begun than are wanted; of those left by an earlier sitting, whether any is left."""
        begun = {*self._open, *self._set_aside, *self._study.paused(), *self._study.elsewhere()}
        return self._study.num_ended() + len(begun) < self._study.num_wanted()

    def _job(self, step: Step) -> TrialJob | None:
        """The trial as an engine takes it; None where its values are impossible, which fails the trial."""
        number, promotion = step.number, self._study.promotion
        try:
            experiment = self._study.experiment.replace(self._study.values(number), origin=SPACE)
        except ConfigError as error:
            log.warning("trial %d failed: %s", number, error)
            self._study.tell_of_failure(number, str(error))
            self._study.leases.give_back(number)
            return None
        pause_at = promotion.pause_at(number) if promotion else 0
        until = math.inf if self._share is None or step.ends else self._share.ends_at()
        # The first trial has an epoch, however late it is, so that there is a winner.
        least = int(self._share is not None and not self._open and not self._study.any_values())
        return TrialJob(
            experiment, self._study.place, number, pause_at, step.ends, until=until, least_epochs=least,
            entry=self._study.leases.entry,
        )  # fmt: skip

    def _take_all(self, outcomes: Sequence[Outcome[TrialJob]]) -> None:
        for outcome in outcomes:
            del self._open[outcome.job.number]
            has_ended = self._take(outcome)
            with self._study.one_reading():
                if has_ended:
                    self._progress.on_trial(outcome)
                    self._learn(outcome)
                if outcome is outcomes[-1]:
                    self._stop_on_alike_failures()

    def _take(self, outcome: Outcome[TrialJob]) -> bool:
        """Tells the study of an outcome, unless the trial has not ended by it and goes on, now or later."""
        self._study.leases.check(now=outcome.interrupted)
        if outcome.interrupted and (stop_requested() or time.time() >= outcome.job.until):
            self._set_aside.add(outcome.job.number)  # it stays as it is until the sweep goes on
            self._give_back(outcome)
            return False
        if self._goes_on(outcome):
            return False
        self._tell(outcome)
        return True

    def _learn(self, outcome: Outcome[TrialJob]) -> None:
        """Learns how long epochs take, for the budget."""
        job, done = outcome.job, outcome.finished
        if self._share is not None and done is not None and not (job.ends or job.ends_early):
            begun = self._begun[job.number]
            num_epochs = self._study.num_epochs(job.number) - begun.num_epochs
            self._share.learn(num_epochs, done.best.seconds, time.monotonic() - begun.at)

    def _take_last_outcomes(self, engine: Engine[TrialJob]) -> None:
        """After a stop was requested, waits for the jobs that are open."""
        while self._open and stop_requested():
            for outcome in engine.wait():
                del self._open[outcome.job.number]
                if not outcome.interrupted:
                    self._tell(outcome)

    def _lose(self, number: int) -> int:
        """Notes in the study, and in the trial's run, that a process was lost; gives how often that has happened."""
        num_losses = self._study.lose(number)
        tags = {Tag.KIND: "trial", Tag.STUDY: self._study.place.name, Tag.TRIAL: str(number)}
        for record in self._tracker.find(tags, newest=1):
            self._tracker.amend(record.run_id).set_tags({Tag.NUM_LOSSES: str(num_losses)})
        return num_losses

    def _goes_on(self, outcome: Outcome[TrialJob]) -> bool:
        """Whether a trial is to be taken up again whose worker was lost, by somebody's kill or for want of memory."""
        if not outcome.interrupted:
            return False
        if self._lose(outcome.job.number) >= MAX_LOSSES:
            return False
        log.warning("trial %d: %s; it is taken up again", outcome.job.number, outcome.error)
        return True

    def _tell(self, outcome: Outcome[TrialJob]) -> None:
        if outcome.interrupted:  # its worker was lost, and nobody else will end its run
            for record in self._tracker.find({Tag.KIND: "trial", **outcome.job.tags}):
                for run in (record, *self._tracker.children(record.run_id, "fold")):
                    if run.outcome in ("running", "interrupted"):
                        self._tracker.close_run(run.run_id, "failed", outcome.error)
        if outcome.finished is None:
            self._study.tell_of_failure(outcome.job.number, outcome.error)
        else:
            self._study.tell(outcome.job.number, outcome.finished)
        self._give_back(outcome)

    def _give_back(self, outcome: Outcome[TrialJob]) -> None:
        """Gives back the lease of a trial; of one that may go on elsewhere, once all of it can be read there."""
        if outcome.finished is None or outcome.finished.outcome == "paused":
            self._tracker.wait_until_sent()
        self._study.leases.give_back(outcome.job.number)

    def _stop_on_alike_failures(self) -> None:
        errors = self._study.last_errors(ALIKE_FAILURES)
        if len(errors) == ALIKE_FAILURES and errors[0] and len(set(errors)) == 1:
            raise TrainingError(f"{ALIKE_FAILURES} trials in a row failed alike: {errors[0]}")
