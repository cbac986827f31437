"""The paused trials of a study: who waits, who goes on, and who ends; the study's memory of it.

For Optuna a paused trial is RUNNING. Two attributes tell it from one that is trained, and never go back: the epoch at
which it was paused last, and the one from which it was sent on last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from optuna import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from imgcls.search.halving import Rungs
from imgcls.search.optuna_internals import read, set_user_attrs

PAUSED, PROMOTED = "paused", "promoted"
"""Attributes of a trial: the epoch, or the fold, at which it was paused last, and from which it was sent on last."""


def is_paused(trial: FrozenTrial) -> bool:
    """Whether a trial that Optuna takes to be RUNNING waits for its promotion."""
    attrs = trial.user_attrs
    return trial.state == TrialState.RUNNING and attrs.get(PAUSED, 0) > attrs.get(PROMOTED, 0)


def as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """A paused trial as samplers see it before its promotion: pruned, with the values that it reported."""
    return create_trial(
        state=TrialState.PRUNED, params=trial.params, distributions=trial.distributions,
        intermediate_values=trial.intermediate_values, value=trial.intermediate_values[trial.user_attrs[PAUSED]],
        system_attrs=trial.system_attrs, user_attrs=trial.user_attrs,
    )  # fmt: skip


HOPELESS = "it could not come among the best any more"
BEYOND_MOST = "more trials were paused than search.max_paused allows"
NEVER_PROMOTED = "it was not among the best when the sweep ended"
"""Reasons for which a paused trial ends as pruned."""


@dataclass(frozen=True)
class Step:
    """A step of pause and promote: a trial is trained up to its next pause, or ends as pruned for the reason `ends`."""

    number: int
    ends: str = ""


def reported_steps(study: Study, number: int) -> set[int]:
    """Epochs, or folds, whose values a trial has reported; Optuna warns where it is told one again."""
    return set(read(study, number).intermediate_values)


class Promotion:
    """The promotion of a study's paused trials: a function of the values that the trials reported, and of nothing else.

    Trials in folds pause after folds. What is said of epochs here holds for their folds.

    Args:
        study: in Optuna's storage.
        rungs: where trials pause.
        sign: 1 where higher values are better, -1 where lower ones are.
        most: paused trials that are kept at most.
        in_folds: whether a value stands for all that was reported before it, as the mean over more folds does;
            otherwise the best value counts.
    """

    def __init__(self, study: Study, rungs: Rungs, sign: int, most: int, *, in_folds: bool = False) -> None:
        self._study, self._rungs, self._sign, self._most = study, rungs, sign, most
        self._in_folds = in_folds

    def pause_at(self, number: int) -> int:
        """The epoch at which a trial pauses next; 0 where it is trained to its end."""
        trial = read(self._study, number)
        return self._rungs.next_after(trial.user_attrs.get(PROMOTED, 0)) or 0

    def pause(self, number: int) -> None:
        """Remembers that a trial waits after the last epoch of which it reported a value."""
        set_user_attrs(self._study, number, {PAUSED: max(reported_steps(self._study, number))})

    def is_hopeless(self, number: int, num_trials: int) -> bool:
        """Whether a trial that has come to its pause will never go on, so that it can end at once."""
        trials = self._trials()
        paused = {number, *(trial.number for trial in trials if is_paused(trial))}
        return number in self._hopeless(trials, paused, num_trials)

    def next(
        self, under_way: Collection[int], num_trials: int, *, ends_rest: bool = True, has_to_finish: bool = False,
        take: Callable[[int], object] = lambda _: True,
    ) -> Step | None:  # fmt: skip
        """The step to do now; None: a new trial is drawn. A trial that this sends on is not paused any more.

        Args:
            under_way: numbers of the trials that an engine has, those that go on or end among them.
            num_trials: that the study has at most.
            ends_rest: whether all others end once so many are drawn and nothing goes on any more.
            has_to_finish: whether the time left is needed to train the best one to its end.
            take: makes sure that no other process does a trial's step; what it gives is false where one does.
        """
        passed = set(under_way)
        while (step := self._choice(passed, num_trials, ends_rest, has_to_finish)) is not None:
            if take(step.number) and self._send_on(step):
                return step
            passed.add(step.number)
        return None

    def _choice(
        self, under_way: Collection[int], num_trials: int, ends_rest: bool, has_to_finish: bool
    ) -> Step | None:  # fmt: skip
        trials = self._trials()
        best = self._all_best(trials)
        paused = [trial.number for trial in trials if is_paused(trial)]
        waiting = [number for number in paused if number not in under_way]
        hopeless, excess = self._hopeless(trials, paused, num_trials), self._rungs.excess(best, paused, self._most)
        for numbers, reason in ((hopeless, HOPELESS), (excess, BEYOND_MOST)):
            if (ending := next((n for n in numbers if n in waiting), None)) is not None:
                return Step(ending, reason)
        is_all_drawn = len(trials) >= num_trials
        # Those that are about to end are under way, and train nothing.
        is_idle = all(number in paused for number in under_way)
        going_on = self._rungs.promoted(best, is_all_drawn=is_all_drawn, paused=waiting, is_idle=is_idle)
        if has_to_finish and is_idle and waiting:
            going_on = self._rungs.reserve(best, waiting)[0]
        if going_on is not None:
            return Step(going_on)
        is_over = ends_rest and is_all_drawn and is_idle
        return Step(waiting[0], NEVER_PROMOTED) if waiting and is_over else None

    def _send_on(self, step: Step) -> bool:
        """Sends a trial on that does not end; False where another process has done its step meanwhile."""
        trial = read(self._study, step.number)
        if not is_paused(trial):
            return False
        if not step.ends:
            set_user_attrs(self._study, step.number, {PROMOTED: len(trial.intermediate_values)})
        return True

    def reports_to_finish(self) -> int:
        """Epochs that the best paused trial lacks to its end; all of them where none is paused."""
        trials = self._trials()
        best, paused = self._all_best(trials), [trial.number for trial in trials if is_paused(trial)]
        done = [len(best[number]) for number in self._rungs.reserve(best, paused)]
        return self._rungs.epochs[-1] - (done[0] if done else 0)

    def reports_of(self, num_trials: int) -> float:
        """About how many epochs so many trials take."""
        return self._rungs.num_epochs(num_trials)

    def work(self, num_trials: int) -> tuple[float, float]:
        """Epochs that were trained, and about how many that will be in all."""
        trials = self._trials()
        done = sum(len(trial.intermediate_values) for trial in trials)
        at_least = done + max(0, num_trials - len(trials)) * self._rungs.epochs[0]
        return done, max(self._rungs.num_epochs(num_trials), at_least)

    def _hopeless(self, trials: Sequence[FrozenTrial], paused: Collection[int], num_trials: int) -> list[int]:
        ended = [trial.number for trial in trials if trial.state.is_finished()]
        return self._rungs.hopeless(self._all_best(trials), ended, paused, num_trials)

    def _all_best(self, trials: Sequence[FrozenTrial]) -> dict[int, list[float]]:
        return {trial.number: self._best(trial) for trial in trials if trial.intermediate_values}

    def _best(self, trial: FrozenTrial) -> list[float]:
        """The value that ranks it after each epoch, the higher the better; see `halving.Best`."""
        best: list[float] = []
        for _, value in sorted(trial.intermediate_values.items()):
            before = [] if self._in_folds else best[-1:]
            best.append(max([*before, self._sign * value]))
        if trial.state == TrialState.COMPLETE:
            best += best[-1:] * (self._rungs.epochs[-1] - len(best))
        return best

    def _trials(self) -> Sequence[FrozenTrial]:
        """Those that have begun."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING]
