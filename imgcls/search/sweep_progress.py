"""How far a sweep is, for whoever watches."""

import math
import time
from collections.abc import Callable

from tqdm import tqdm

from imgcls import terminal
from imgcls.reporting.run_progress import Outlook, Pace
from imgcls.search.budget import SearchTime
from imgcls.search.leaderboard import with_intervals
from imgcls.search.outcome import Outcome
from imgcls.search.space import value_of
from imgcls.search.study import SweepStudy
from imgcls.search.trial import TrialJob, trial_name


class SweepProgress:
    """Progress of a sweep: a bar over its trials on a terminal, a line a trial elsewhere.

    Args:
        study: whose trials.
        num_val: validation images, for the interval of the best accuracy.
        taken_up: numbers of the trials that an earlier sitting began, whose time now is only part of a trial's.
        share: of a budget, after which no trial begins.
        now: seconds of a clock.
    """

    def __init__(
        self, study: SweepStudy, num_val: int, taken_up: frozenset[int], share: SearchTime | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._share = share
        self._study = study
        self._num_val = num_val
        self._taken_up = taken_up
        self._num_workers = 1
        self._now, self._begun = now, now()
        self._pace = Pace(study.work()[0], now)
        self._bar = tqdm(
            total=study.num_wanted(), initial=study.num_ended(), desc=f"sweep {study.experiment.name}",
            unit="trial", file=terminal.stderr(), disable=None, dynamic_ncols=True, position=1,
        )  # fmt: skip

    def outlook(self, num_workers: int, job: TrialJob) -> Outlook:
        """What a trial that begins now has to know to tell the time left of the sweep."""
        self._num_workers = num_workers
        done, total = self._study.work()
        # The others are counted in jobs like this one.
        unit = self._a_trial(job.pause_at)
        each = self._pace.seconds_each(done)
        num_waiting = max(0.0, (total - done) / unit - num_workers)
        return Outlook(num_waiting, num_workers, None if each is None else each * unit, self._to_timeout())

    def _a_trial(self, pause_at: int = 0) -> float:
        """Work in one trial: its epochs or folds to its next pause or its end; 1 where trials are what is counted."""
        return 1 if self._study.promotion is None else pause_at or self._study.place.num_reports

    def on_start(self, job: TrialJob) -> None:
        """Shows a trial that begins or goes on: what it tries, and the best so far."""
        search = self._study.experiment.search
        name = trial_name(job.number, {key: value_of(job.experiment, key) for key in search.space})
        best = f"; best so far: {search.metric} {best}" if (best := self._best()) else ""
        step = self._study.last_step(job.number)
        after = f"; it goes on after {step}" if step else ""
        tqdm.write(f"{name}{after}{best}", file=terminal.stderr())

    def on_trial(self, outcome: Outcome[TrialJob]) -> None:
        """Shows a trial that ended."""
        metric, best = self._study.experiment.search.metric, self._best() or "none yet"
        ended, total = self._study.num_ended(), self._study.num_wanted()
        if outcome.job.number in self._taken_up:
            self._pace = Pace(self._study.work()[0], self._now)
        tqdm.write(
            f"trial {outcome.job.number} {outcome_in_words(outcome, metric)}; {ended} of {total} trials, "
            f"best {metric} {best}, "
            f"{self._left()}",
            file=terminal.stderr(),
        )
        self._bar.set_postfix_str(f"best {metric} {best}")
        self._bar.n = ended
        self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _to_timeout(self) -> float:
        """Seconds after which no further trial begins."""
        timeout = self._study.experiment.search.timeout
        rest = timeout - (self._now() - self._begun) if timeout > 0 else math.inf
        return rest if self._share is None else min(rest, self._share.left())

    def _left(self) -> str:
        """The time left of the sweep in words."""
        done, total = self._study.work()
        if self._study.num_ended() >= self._study.num_wanted():
            done = total
        return self._pace.left(done, total, self._most(done))

    def _most(self, done: float) -> float:
        """Seconds that are left at most: those up to the timeout, and a trial that began in time."""
        each = self._pace.seconds_each(done)
        rest, a_trial = self._to_timeout(), (each or math.inf) * self._a_trial() * self._num_workers
        if rest > 0:
            return rest + a_trial
        return 0.0 if self._num_workers == 1 else a_trial

    def _best(self) -> str:
        board, metric = self._study.leaderboard(), self._study.experiment.search.metric
        if board.empty or board.iloc[0]["outcome"] != "completed":
            return ""
        first = with_intervals(board[:1], self._num_val).iloc[0]
        return f"{first[metric]} by trial {first['trial']}"


def outcome_in_words(outcome: Outcome[TrialJob], metric: str) -> str:
    """What progress says of a trial that ended or paused; `metric` selects."""
    if outcome.finished is None:
        return f"{'interrupted' if outcome.interrupted else 'failed'}: {outcome.error}"
    done = outcome.finished
    return f"{done.outcome}: {metric} {done.score_in_words(metric)} at epoch {done.best.epoch}"
