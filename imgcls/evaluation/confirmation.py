"""Configurations of a sweep with fresh seeds, read from the record and ranked by their means: its confirmation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from imgcls.metrics import LOSS, metric_named
from imgcls.record import MetricName, Tag
from imgcls.reporting.rounding import UNDEFINED, ends, rounded, with_interval
from imgcls.reporting.run_scores import best_accuracy_interval, best_interval
from imgcls.rng import derive_seed
from imgcls.run_record import RunRecord
from imgcls.statistics.intervals import Interval, interval_over_seeds
from imgcls.text import counted
from imgcls.tracking.store import Tracker

SAME_MEAN = 12
"""Decimals to which two means are compared: equal shares of images may differ in their last bit."""


@dataclass(frozen=True)
class Confirmed:
    """One configuration in the confirmation of a sweep, which was trained again with fresh seeds.

    Attributes:
        found_by: the trial that found it.
        runs: the fresh runs, in the order of the seeds.
        metric: what is compared, such as `val/accuracy`.
    """

    found_by: RunRecord
    runs: tuple[RunRecord, ...]
    metric: str

    @property
    def trial(self) -> int:
        """Number of the trial that found it."""
        return self.found_by.trial

    @property
    def trial_value(self) -> float:
        """That trial's metric at its best epoch."""
        return self.found_by.best(self.metric)

    @property
    def epoch(self) -> int:
        """That epoch, at which the fresh runs are scored too."""
        return self.found_by.best_epoch

    @property
    def values(self) -> tuple[float, ...]:
        """The metric of each fresh run at this epoch."""
        return tuple(run.best(self.metric) for run in self.runs)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Of the fresh runs."""
        return tuple(run.run_id for run in self.runs)

    @property
    def mean(self) -> float:
        """Of `values`."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Standard deviation of `values` over the seeds, with N - 1; NaN of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else float("nan")

    @property
    def interval(self) -> Interval | None:
        """95% interval of the mean over seeds; None of a single seed."""
        return self._interval_of(self.values)

    @property
    def num_val(self) -> int:
        """Val images behind each value."""
        return self.found_by.num_val

    @property
    def digits(self) -> Interval:
        """What rounds the mean: its interval, or of a single seed that on the val images, if need be the accuracy's."""
        run = self.runs[0]
        return self.interval or best_interval(run, self.metric) or best_accuracy_interval(run)

    @property
    def optimism(self) -> float:
        """The trial's metric minus the mean: where the trial was lucky above 0, or below 0 if lower is better."""
        return self.trial_value - self.mean

    @property
    def optimism_interval(self) -> Interval | None:
        """95% interval of `optimism`, of which the mean alone varies with the seed; None of a single seed."""
        return Interval(self.trial_value - i.high, self.trial_value - i.low) if (i := self.interval) else None

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sorts from best to worst: by the mean, then the lower mean val/loss, then the number of the trial."""
        mean_loss = statistics.fmean(run.best(LOSS.on_val) for run in self.runs)
        return metric_named(self.metric).rank(round(self.mean, SAME_MEAN)), mean_loss, self.trial

    def minus(self, other: Confirmed) -> tuple[float, Interval | None]:
        """The mean minus the other's, paired by seed, with its 95% interval; None of a single seed."""
        differences = [mine - theirs for mine, theirs in zip(self.values, other.values, strict=True)]
        return self.mean - other.mean, self._interval_of(differences, of_differences=True)

    def _interval_of(self, values: Sequence[float], *, of_differences: bool = False) -> Interval | None:
        metric = metric_named(self.metric)
        num_counted = self.num_val if metric.is_count else None
        return interval_over_seeds(
            values, is_share=metric.is_share, num_counted=num_counted, of_differences=of_differences
        )


@dataclass(frozen=True)
class Confirmation:
    """A confirmation of a sweep: its best configurations, ranked by their means over fresh seeds.

    Attributes:
        metric: what is compared.
        ranked: the best first.
        best_trial: the configuration that the sweep's best trial found.
    """

    metric: str
    ranked: tuple[Confirmed, ...]
    best_trial: Confirmed

    @property
    def optimism(self) -> float:
        """Of the sweep's best trial: its metric minus its configuration's confirmed mean."""
        return self.best_trial.optimism

    @property
    def num_seeds(self) -> int:
        """Fresh seeds of each configuration."""
        return len(self.winner.runs)

    @property
    def winner(self) -> Confirmed:
        """The configuration with the best mean."""
        return self.ranked[0]

    @property
    def best_run_id(self) -> str:
        """The first fresh seed of the best configuration, chosen by place and not by score."""
        return self.winner.runs[0].run_id

    def place_of(self, run_id: str) -> int | None:
        """Place of the configuration that a fresh run trained, from 1; None if no configuration is its own."""
        return next((i for i, confirmed in enumerate(self.ranked, 1) if run_id in confirmed.run_ids), None)


def ranked_trials(trials: Sequence[RunRecord], metric: str) -> list[RunRecord]:
    """A confirmation's order of a sweep's completed trials: by the metric, val/loss, the number."""

    def rank(record: RunRecord) -> tuple[float, float, int]:
        return metric_named(metric).rank(record.best(metric)), record.best(LOSS.on_val), record.trial

    return sorted((record for record in trials if record.outcome == "completed"), key=rank)


def rank_confirmed(confirmed: Sequence[Confirmed]) -> Confirmation:
    """A confirmation's ranks: its configurations by their means over fresh seeds.

    Args:
        confirmed: at least one, in the order of the trials that found them, the best trial's first.
    """
    ranked = tuple(sorted(confirmed, key=lambda each: each.rank))
    return Confirmation(confirmed[0].metric, ranked, confirmed[0])


def fresh_seed(search_seed: int, index: int) -> int:
    """The confirmation's seed number `index`, from 0; every configuration is trained again with the same seeds."""
    return derive_seed(search_seed, "confirm", index) % 2**31


def recorded_confirmation(sweep: RunRecord, tracker: Tracker) -> Confirmation | None:
    """The latest confirmation of a sweep as recorded; None where there is none, or where a run of it was deleted."""
    if not sweep.confirmed_trials:
        return None
    num_seeds = int(sweep.metrics[MetricName.CONFIRM_NUM_SEEDS])
    seeds = [fresh_seed(int(sweep.params["search.seed"]), i) for i in range(num_seeds)]
    found_by = ranked_trials(completed_trials(sweep, sweep.confirmed_trials, tracker), sweep.metric)
    confirmed = [Confirmed(trial, _with_seeds(trial, seeds, tracker), sweep.metric) for trial in found_by]
    if len(confirmed) < len(sweep.confirmed_trials) or any(len(each.runs) < num_seeds for each in confirmed):
        return None
    return rank_confirmed(confirmed)


def completed_trials(sweep: RunRecord, numbers: Sequence[int], tracker: Tracker) -> list[RunRecord]:
    """The trials behind a confirmation: the completed ones of a sweep with these numbers."""
    below = {Tag.PARENT: sweep.run_id, Tag.KIND: "trial", Tag.OUTCOME: "completed"}
    return [record for number in numbers for record in tracker.find({**below, Tag.TRIAL: str(number)})]


def fresh_runs_of(trial: RunRecord, tracker: Tracker) -> list[RunRecord]:
    """A confirmation's completed runs of a trial's configuration, up to the trial's best epoch, oldest first."""
    of_trial = {Tag.PARENT: trial.parent, Tag.KIND: "confirm", Tag.OUTCOME: "completed", Tag.TRIAL: str(trial.trial)}
    epoch = str(trial.best_epoch)
    return [run for run in tracker.find(of_trial) if run.params.get("train.score_epoch") == epoch]


def _with_seeds(trial: RunRecord, seeds: Sequence[int], tracker: Tracker) -> tuple[RunRecord, ...]:
    oldest = {int(run.params["train.seed"]): run for run in reversed(fresh_runs_of(trial, tracker))}
    return tuple(oldest[seed] for seed in seeds if seed in oldest)


# --- in words ---------------------------------------------------------------------------------------------------

ONE_SEED = "one seed, no interval"
"""What stands where the interval over seeds would be."""


def confirmation_table(confirmation: Confirmation) -> pd.DataFrame:
    """A confirmation as a table: one row a configuration, the best first, with its mean over fresh seeds in words."""
    return pd.DataFrame([_row(confirmed, confirmation.winner) for confirmed in confirmation.ranked])


def _row(confirmed: Confirmed, best: Confirmed) -> dict[str, str]:
    difference, of_difference = confirmed.minus(best)
    is_best = confirmed is best
    return {
        "trial": str(confirmed.trial),
        "epoch": str(confirmed.epoch),
        "seeds": str(len(confirmed.runs)),
        confirmed.metric: rounded(confirmed.mean, confirmed.digits),
        "95% interval": _ends(confirmed.interval),
        "std": _std_words(confirmed),
        "minus the best": UNDEFINED if is_best else rounded(difference, of_difference or _around_0(confirmed.digits)),
        "95% interval of it": UNDEFINED if is_best else _ends(of_difference),
    }


def _ends(interval: Interval | None) -> str:
    return ends(interval) if interval else ONE_SEED


def optimism_sentence(confirmation: Confirmation) -> str:
    """A confirmation's sentence on what the score of a sweep's best trial lost with fresh seeds."""
    best = confirmation.best_trial
    return (
        f"Optimism {optimism_words(best)}: the {confirmation.metric} of the best trial, trial {best.trial}, minus the "
        "mean of its own configuration with fresh seeds."
    )


def confirmation_text(confirmation: Confirmation) -> str:
    """A confirmation for the shell: its table, and what the best trial's score lost with fresh seeds."""
    return f"{confirmation_table(confirmation).to_string(index=False)}\n\n{optimism_sentence(confirmation)}"


def mean_words(confirmed: Confirmed) -> str:
    """A confirmation's mean in words: `0.88 (0.85 to 0.91), standard deviation 0.012, 3 fresh seeds`."""
    if confirmed.interval is None:
        return f"{rounded(confirmed.mean, confirmed.digits)} ({ONE_SEED})"
    return (
        f"{with_interval(confirmed.mean, confirmed.interval)}, standard deviation "
        f"{_std_words(confirmed)}, {counted(len(confirmed.runs), 'fresh seed')}"
    )


def _std_words(confirmed: Confirmed) -> str:
    """With the digits of the mean, but never as 0 where it is more; a dash for a single seed."""
    return rounded(confirmed.std, Interval(0, 2 * confirmed.digits.half_width))


def optimism_words(confirmed: Confirmed) -> str:
    """A confirmation's optimism in words: a trial's score minus the mean over fresh seeds, with its interval."""
    if confirmed.optimism_interval is None:
        return f"{rounded(confirmed.optimism, _around_0(confirmed.digits))} ({ONE_SEED})"
    return with_interval(confirmed.optimism, confirmed.optimism_interval)


def _around_0(interval: Interval) -> Interval:
    """An interval as wide as another, for a difference of two scores, which may be 0."""
    return Interval(-interval.half_width, interval.half_width)
