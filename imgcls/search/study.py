"""The Optuna study of a sweep: its trials and their values, who works on them, and what came of them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from imgcls.config.keys import Experiment
from imgcls.errors import ConfigError
from imgcls.metrics import metric_named
from imgcls.record import MetricName
from imgcls.runs.record_writer import Finished, interval_ends
from imgcls.search import space as spaces
from imgcls.search.leaderboard import make_leaderboard
from imgcls.search.leases import Leases
from imgcls.search.optuna_internals import (
    as_attached,
    attach,
    begin,
    is_planned,
    plan_otherwise,
    planned_values,
    set_user_attrs,
)
from imgcls.search.promotion import as_pruned, is_paused
from imgcls.search.samplers import at_first_rung, drawn_values, resolved_sampler, teaches
from imgcls.search.space import SPACE
from imgcls.search.study_place import StudyPlace
from imgcls.search.trial_leases import TrialLeases
from imgcls.stored_names import stored_name
from imgcls.tracking.claims import claim


@dataclass
class _Reading:
    """What was read of a study in one block: its trials, and the numbers of those on which others work."""

    trials: list[FrozenTrial] | None = None
    elsewhere: set[int] | None = None


class SweepStudy:
    """The Optuna study of a sweep, whose trials have their values before they begin.

    Args:
        place: where it is.
        experiment: that is searched, with overrides.
        has_groups: whether the val images come in groups or in folds, so that each accuracy needs an interval of its
            own.
        sampler: what an earlier sitting resolved `search.sampler` to; by default that is decided here.
        leases: of the processes that work on it; None where this one is alone.
    """

    def __init__(
        self, place: StudyPlace, experiment: Experiment, *, has_groups: bool, sampler: str = "",
        leases: Leases | None = None,
    ) -> None:  # fmt: skip
        self.place = place
        self.experiment = experiment
        self.has_groups = has_groups
        self.sampler = sampler or resolved_sampler(experiment.search)
        self.optuna = place.open(experiment)
        self.promotion = place.promotion(self.optuna, experiment)
        self.leases = TrialLeases(leases)
        self._reading: _Reading | None = None

    @contextmanager
    def one_reading(self) -> Iterator[None]:
        """A block that reads the storage once at most, since a server may keep it; what others write is not seen."""
        self._reading = _Reading()
        try:
            yield
        finally:
            self._reading = None

    # --- how many ---

    def num_wanted(self) -> int:
        """Trials in all: `search.trials`, or fewer where a grid has fewer."""
        search = self.experiment.search
        return min(search.trials, len(self._trials())) if search.sampler == "grid" else search.trials

    def num_ended(self) -> int:
        """Trials that have ended; one that was interrupted has not."""
        return len(self._ended())

    def epochs_of(self, num_trials: int) -> float:
        """About how many epochs so many trials take."""
        promotion = self.promotion
        reports = num_trials * self.place.num_reports if promotion is None else promotion.reports_of(num_trials)
        return reports * self.place.epochs_a_report

    def epochs_to_finish(self) -> int:
        """Epochs that the best paused trial lacks to its end; all of them where none is paused."""
        reports = self.place.num_reports if self.promotion is None else self.promotion.reports_to_finish()
        return reports * self.place.epochs_a_report

    def any_completed(self) -> bool:
        """Whether a trial was trained to its end."""
        return bool(self._trials(TrialState.COMPLETE))

    def any_values(self) -> bool:
        """Whether a trial has completed an epoch."""
        return any(trial.intermediate_values for trial in self._trials())

    def want(self, num_trials: int) -> None:
        """Changes the number of trials in all."""
        self.experiment = self.experiment.replace({"search.trials": num_trials}, origin="budget")

    def best_begun(self) -> int | None:
        """The trial with the best value among those that have not ended; None where none has a value.

        With folds, it is the best one of those with the most folds run: a score on fewer images says less.
        """
        begun = [trial for trial in self._trials(TrialState.RUNNING) if trial.intermediate_values]
        rank = metric_named(self.experiment.search.metric).rank

        def key(trial: FrozenTrial) -> tuple[float, ...]:
            ranks = [rank(value) for _, value in sorted(trial.intermediate_values.items())]
            if self.place.num_folds:
                return -len(ranks), fmean(ranks) if self.experiment.search.pruner == "wilcoxon" else ranks[-1]
            return 0, min(ranks)

        return min(begun, key=lambda trial: (*key(trial), trial.number)).number if begun else None

    def num_begun(self) -> int:
        """Trials that have begun, whatever has become of them."""
        return sum(trial.state != TrialState.WAITING for trial in self._trials())

    def num_epochs(self, number: int) -> int:
        """Epochs that a trial has completed; with folds, those of whole folds."""
        return len(self._trial(number).intermediate_values) * self.place.epochs_a_report

    def last_step(self, number: int) -> str:
        """What a trial has completed, such as `epoch 3` or `fold 1`; "" before its first."""
        num_steps = len(self._trial(number).intermediate_values)
        return f"{self.place.step} {num_steps}" if num_steps else ""

    def running(self) -> list[int]:
        """Numbers of the trials that have begun, have not ended and are not paused."""
        return [trial.number for trial in self._trials(TrialState.RUNNING) if not is_paused(trial)]

    def left(self) -> list[int]:
        """Numbers of the running trials on which no other process works: this one's, and those that were left."""
        elsewhere = self.elsewhere()
        return [number for number in self.running() if number not in elsewhere]

    def elsewhere(self) -> set[int]:
        """Numbers of the trials on which other processes work."""
        if self._reading is None:
            return self.leases.elsewhere()
        if self._reading.elsewhere is None:
            self._reading.elsewhere = self.leases.elsewhere()
        return self._reading.elsewhere

    def paused(self) -> list[int]:
        """Numbers of the trials that wait for their promotion."""
        return [trial.number for trial in self._trials(TrialState.RUNNING) if is_paused(trial)]

    def work(self) -> tuple[float, float]:
        """Work that was done, and that there is in all: epochs or folds where trials pause, else trials."""
        if self.promotion is None:
            return self.num_ended(), self.num_wanted()
        return self.promotion.work(self.num_wanted())

    def last_errors(self, num: int) -> list[str]:
        """What each of the last `num` trials that ended failed of; "" of one that did not fail, or is paused."""
        tried = [trial for trial in self._trials() if trial.state.is_finished() or is_paused(trial)]
        return [trial.user_attrs.get("error", "") for trial in tried[-num:]]

    # --- their values ---

    def plan(self, planned: list[spaces.Values]) -> None:
        """Enqueues what is not enqueued yet; an earlier sitting may have been killed between any two."""
        space = self.experiment.search.space
        there = {frozenset(spaces.known(planned_values(trial), space).items()) for trial in self._trials()}
        for values in planned:
            if frozenset(values.items()) not in there:
                self.optuna.enqueue_trial(values)

    def ask(self, free: int | None = None) -> int | None:
        """The number of a new trial, whose values are in the study; None where another process begins one just now.

        The trial begins before its values are drawn, so that those who ask at the same time draw with other numbers.

        Args:
            free: what `next_free` gave just now; by default it is looked up.
        """
        number = _next_number(self._trials()) if free is None else free
        if number >= self.num_wanted() or self.leases.take(number, seems_free=free is not None) is None:
            return None
        trials = self._trials()
        if number != _next_number(trials):  # another process began it and gave it back
            self.leases.give_back(number)
            return None
        begin(self.optuna, number, trials)
        self._plan_if_need_be(number, trials)
        return number

    def next_free(self) -> int | None:
        """The number of the trial that begins next; None where another process begins it just now."""
        number = _next_number(self._trials())
        return None if number in self.elsewhere() else number

    def _plan_if_need_be(self, number: int, trials: Sequence[FrozenTrial]) -> None:
        """Draws the values of a trial that has none: of a new one, or of one whose process died before it had them.

        Args:
            number: of the trial, which this process holds.
            trials: of the study; a new one may be missing.
        """
        if any(_has_values(trial) for trial in trials[number : number + 1]):
            return
        # To samplers, a paused trial is pruned.
        seen = [as_pruned(trial) if is_paused(trial) else trial for trial in trials[:number]]
        values = drawn_values(self.experiment, self.sampler, seen, first_rung=self.first_rung())
        plan_otherwise(self.optuna, number, values)

    def values(self, number: int) -> spaces.Values:
        """The values that the study holds for a trial.

        Raises:
            ConfigError: somebody enqueued a value that its search space does not hold.
        """
        space, trial = self.experiment.search.space, attach(self.optuna, number)
        if not _has_values(as_attached(trial)):
            self._plan_if_need_be(number, self._trials())
            trial = attach(self.optuna, number)
        planned = planned_values(as_attached(trial))
        written = dict(planned)
        for key in planned.keys() & space.keys() - trial.params.keys():
            try:
                written[key] = spaces.as_written(space[key], planned[key])
            except ValueError as error:
                raise ConfigError(f"{SPACE}: {key} = {error}") from error
        if written != planned:  # by a version that reckoned the steps of a range in floating point
            plan_otherwise(self.optuna, number, written)
            trial = attach(self.optuna, number)
        return spaces.suggest(trial, space)

    def lose(self, number: int) -> int:
        """Notes that a trial's process was lost; gives how often that has happened."""
        num_losses = self._trial(number).user_attrs.get(LOSSES, 0) + 1
        set_user_attrs(self.optuna, number, {LOSSES: num_losses})
        return int(num_losses)

    # --- what came of them ---

    def tell(self, number: int, finished: Finished) -> None:
        """Ends a trial as completed or pruned, or pauses it, with its scores at its best epoch."""
        self.leases.check()
        best = finished.best
        attrs = {"run_id": finished.run_id, stored_name(MetricName.BEST_EPOCH): best.epoch, **best.metrics()}
        attrs |= interval_ends(finished.intervals, has_groups=self.has_groups)
        set_user_attrs(self.optuna, number, attrs)
        if finished.outcome == "paused":
            assert self.promotion is not None  # nobody else has trials paused
            self.promotion.pause(number)
        elif finished.outcome == "pruned":
            self.optuna.tell(number, state=TrialState.PRUNED)
        else:
            self.optuna.tell(number, best.value(self.experiment.search.metric))

    def tell_of_failure(self, number: int, error: str) -> None:
        """Ends a trial as failed."""
        self.leases.check()
        set_user_attrs(self.optuna, number, {"error": error})
        self.optuna.tell(number, state=TrialState.FAIL)

    def leaderboard(self) -> pd.DataFrame:
        """One row a trial, best first; paused, pruned and failed ones behind, whatever their score."""
        metric = self.experiment.search.metric
        return make_leaderboard(self._trials(), metric, has_groups=self.has_groups)

    def compared(self) -> optuna.Study:
        """The completed trials, in a study of their own; where trials pause, each with its value at the first rung."""
        trials = [trial for trial in self._trials() if teaches(trial, self.experiment.search.space)]
        if rung := self.first_rung():
            trials = [at_first_rung(trial, rung, self.experiment) for trial in trials]
        copy = optuna.create_study(study_name=self.optuna.study_name, direction=self.optuna.direction)
        copy.add_trials([trial for trial in trials if trial.state == TrialState.COMPLETE])
        return copy

    def first_rung(self) -> int:
        """The epoch, or the fold, after which trials pause first; 0 where they do not."""
        epochs = self.place.rungs().epochs
        return epochs[0] if self.promotion and len(epochs) > 1 else 0

    def first_rung_in_words(self) -> str:
        """Such as `epoch 3` or `fold 1`; "" where trials do not pause."""
        return f"{self.place.step} {rung}" if (rung := self.first_rung()) else ""

    # --- in Optuna's storage ---

    def _trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._trials() if trial.number == number)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in one of the states, or all of them."""
        trials = self._all_trials()
        return [trial for trial in trials if trial.state in states] if states else trials

    def _all_trials(self) -> list[FrozenTrial]:
        if self._reading is None:
            return self.optuna.get_trials(deepcopy=False)
        if self._reading.trials is None:
            self._reading.trials = self.optuna.get_trials(deepcopy=False)
        return self._reading.trials

    def _ended(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if trial.state.is_finished()]


def _has_values(trial: FrozenTrial) -> bool:
    return is_planned(trial) or bool(trial.params)


def _next_number(trials: list[FrozenTrial]) -> int:
    """The number of the trial that begins next: the first that was enqueued, or else a new one."""
    return next((trial.number for trial in trials if trial.state == TrialState.WAITING), len(trials))


LOSSES = "losses"
"""Attribute of a trial: how often a process was lost that worked on it, while the sweep went on."""


def only_one(root: Path, study: str) -> AbstractContextManager[None]:
    """The study of a sweep, held by this process alone; the kernel lets go of it however the process ends.

    Raises:
        ClaimedError: another process holds it.
    """
    return claim(root, f"study-{study}", f"this sweep (study {study})")
