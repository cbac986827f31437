"""A sweep: one Optuna study together with its parent run."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.study import create_study
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from imgcls import terminal
from imgcls.config.keys import Experiment
from imgcls.data.augment import refuse_colours_of_grey
from imgcls.data.splits import SQUARES_FORMAT
from imgcls.errors import ConfigError, Interrupted, TrainingError
from imgcls.evaluation.confirmation import Confirmation
from imgcls.record import Artifact, MetricName, RunRecord, Tag
from imgcls.reporting.progress import Pace
from imgcls.reporting.rounding import metric_text
from imgcls.reporting.run_scores import INTERVAL_COLUMNS, leaderboard_intervals
from imgcls.rng import derive_seed
from imgcls.runs.announce import announce
from imgcls.runs.earlier_versions import same_work
from imgcls.runs.prepare import Prepared, prepare
from imgcls.runs.record_writer import data_tags, log_near_duplicates, log_num_near_leaked
from imgcls.runs.train import MADE_BY_THE_MACHINE, MEASURED
from imgcls.search import space as spaces
from imgcls.search.confirm import check_can_be_confirmed, confirm
from imgcls.search.engines import TrialOutcome, make_engine
from imgcls.search.importances import importance_ranges, importances
from imgcls.search.report import write_report
from imgcls.search.samplers import make_sampler
from imgcls.search.space_check import SPACE, check_space, pruner_warmup_of, single_values
from imgcls.search.trial import TrialJob, direction, metric_value, open_study
from imgcls.search.winner import log_winner
from imgcls.signals import GracefulStop
from imgcls.statistics.intervals import NO_INTERVAL
from imgcls.text import counted
from imgcls.tracking.claims import claim
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker
from imgcls.training.loss import LOSS_DEFINITION

log = logging.getLogger(__name__)

ALIKE_FAILURES = 3
"""So many trials that fail in a row for the same reason end the sweep."""

MAX_LOSSES = 2
"""A trial that lost its worker so often fails: what killed them is likely to be the trial itself."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        run_id: of the parent run.
        best_run_id: of the winner.
        metric: what selected it.
        best_value: the best trial's metric at its best epoch.
        leaderboard: one row a trial, best first.
        num_val: images behind its scores.
        confirmation: with fresh seeds, where `search.confirm` asks for it.
    """

    run_id: str
    best_run_id: str
    metric: str
    best_value: float
    leaderboard: pd.DataFrame
    num_val: int
    confirmation: Confirmation | None = None


class Sweep:
    """One study under one parent run, taken up where it stopped.

    Args:
        experiment: as in its file, with overrides.
        root: the project's root.
        tracker: where the record goes.
        stop: granted between two steps.

    Raises:
        InputError: no search space, values outside it, or data that cannot be used.
    """

    def __init__(self, experiment: Experiment, root: Path, tracker: Tracker, stop: GracefulStop) -> None:
        if not experiment.search.space:
            raise ConfigError(
                f"{experiment.name} has no [search.space]; name at least one key, such as "
                '"train.lr" = { low = 1e-4, high = 1e-2, log = true }'
            )
        check_space(experiment, root)
        self.experiment = experiment
        self.root = root
        self.tracker = tracker
        self.stop = stop
        self.prepared = prepare(experiment, root)
        for values in single_values(experiment):
            changed = experiment.replace(values, origin=SPACE)
            refuse_colours_of_grey(changed.augment, self.prepared.dataset.channels)
        self.pruner_warmup = pruner_warmup_of(self.prepared.experiment)
        self.name = f"{experiment.name}-{_identity(experiment, self.prepared)}"
        self._first_values = self._planned_values()
        self._losses: Counter[int] = Counter()

    def run(self) -> SweepResult:
        """Searches up to `search.trials` trials in all, earlier sittings included.

        Raises:
            Interrupted: the stop was requested; the same command goes on.
            TrainingError: no trial succeeded, or several failed alike in a row.
        """
        with only_one(self.root, self.name):
            self.tracker.close_orphans()
            announce(self.prepared, self.tracker, runs=counted(self.experiment.search.trials, "trial"))
            return self._run()

    def _run(self) -> SweepResult:
        with self._parent_run() as run:
            self.study = open_study(self.root, self.name, self.experiment, self.pruner_warmup)
            self._plan()
            self._search(run.run_id)
            result = self._conclude(run)
            return self._confirm(run, result) if self.experiment.search.confirm.seeds else result

    # --- before ---

    def _planned_values(self) -> list[spaces.Values]:
        """The experiment's own values for trial 0; of a grid, as many further points as `search.trials` allows."""
        search = self.experiment.search
        own = spaces.own_values(self.prepared.experiment, search.space)
        if search.sampler != "grid":
            return [own]
        if (size := spaces.grid_size(search.space)) > search.trials:
            log.warning("the grid has %d combinations, and search.trials = %d are run", size, search.trials)
        others = spaces.grid(search.space, search.trials)
        return [own, *(values for values in others if values != own)][: search.trials]

    @contextmanager
    def _parent_run(self) -> Iterator[Run]:
        sweeps = self.tracker.find({Tag.KIND: "sweep"}, experiment=self.experiment.name)
        same = [record for record in sweeps if record.study == self.name]
        if same:
            log.info("going on with sweep %s (study %s)", same[-1].run_id, self.name)
            with self.tracker.reopen_run(same[-1].run_id) as run:
                if not self.tracker.has_artifact(run.run_id, Artifact.CONFIG):  # it was killed while it began
                    self._record_start(run)
                yield run
            return
        if sweeps:
            log.info("%s: a new study starts (%s)", self._why_new(sweeps[-1]), self.name)
        with self.tracker.start_run(
            self.experiment.name, kind="sweep", name=f"sweep {self.name}", tags={Tag.STUDY: self.name}
        ) as run:
            self._record_start(run)
            yield run

    def _why_new(self, sweep: RunRecord) -> str:
        ignored = [*MADE_BY_THE_MACHINE, *NOT_IDENTITY, *MEASURED]
        has_same_data = sweep.fingerprint == self.prepared.dataset.fingerprint
        if not has_same_data or same_work([sweep], self.prepared.experiment, ignored) is None:
            return f"the experiment or its data differ from those of sweep {sweep.run_id}"
        return (
            f"sweep {sweep.run_id} of the same experiment was begun by an earlier version of imgcls, and does not go "
            f"on, because its trials would be mixed with others ({Tag.SQUARES} = {sweep.squares}, {Tag.LOSS} = "
            f"{sweep.loss}; now {SQUARES_FORMAT} and {LOSS_DEFINITION})"
        )

    def _record_start(self, run: Run) -> None:
        """The config comes last: once it is there, all of it is."""
        resolved = self.prepared.experiment
        run.log_params({k: v for k, v in resolved.params().items() if k not in NOT_IDENTITY})
        config_hash = self.experiment.config_hash(without=NOT_IDENTITY)
        of_data = data_tags(self.prepared.dataset, self.tracker)
        run.set_tags({Tag.CONFIG_HASH: config_hash, Tag.LOSS: str(LOSS_DEFINITION), **of_data})
        log_num_near_leaked(run, of_data)
        log_near_duplicates(run, self.prepared)
        run.log_text(Artifact.CONFIG, self.experiment.to_toml())

    def _plan(self) -> None:
        """Enqueues what is planned beforehand and not enqueued yet; a kill may have come between any two."""
        there = {frozenset(self._enqueued(trial).items()) for trial in self.study.get_trials(deepcopy=False)}
        for values in self._first_values:
            if frozenset(values.items()) not in there:
                self.study.enqueue_trial(values)

    def _enqueued(self, trial: FrozenTrial) -> spaces.Values:
        """The values planned for a trial, without those that the space does not hold."""
        values: spaces.Values = {}
        for key, value in trial.system_attrs.get("fixed_params", {}).items():
            with suppress(ValueError, KeyError):
                values[key] = spaces.as_written(self.experiment.search.space[key], value)
        return values

    # --- during ---

    def _search(self, sweep_run_id: str) -> None:
        search = self.experiment.search
        started = time.monotonic()
        engine = make_engine(min(search.workers, search.trials), self.stop)
        open_jobs, any_ended = 0, False
        if ended := self.num_ended():
            log.info("%d of %d trials have ended already", ended, self.num_wanted())
        # With this study's claim in our hand, a trial that says RUNNING was left by a sitting that is over.
        left = [trial.number for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        progress = _SweepProgress(self, taken_up=frozenset(left))
        try:
            while not self.stop():
                # Each sitting runs one trial at least, or a short timeout would never end a sweep.
                out_of_time = any_ended and 0 < search.timeout <= time.monotonic() - started
                while open_jobs < engine.capacity and not out_of_time and self._wants_more(open_jobs):
                    if job := self._job(left.pop(0) if left else self._ask(), sweep_run_id):
                        engine.submit(job)
                        open_jobs += 1
                if not open_jobs:
                    break
                for outcome in engine.wait():
                    open_jobs, any_ended = open_jobs - 1, True
                    if outcome.interrupted and self.stop():
                        continue  # it stays as it is until the sweep goes on
                    if self._goes_on(outcome):
                        left.insert(0, outcome.job.number)
                        continue
                    self._tell(outcome)
                    progress.on_trial(outcome)
                self._stop_on_alike_failures()
            while open_jobs and self.stop():
                for outcome in engine.wait():
                    open_jobs -= 1
                    if not outcome.interrupted:
                        self._tell(outcome)
        finally:
            progress.close()
            engine.close()
        self.tracker.close_orphans()  # of workers that were lost when there was no time left
        if self.stop():
            raise Interrupted(f"stopped by {self.stop.requested}")

    def _wants_more(self, num_open: int) -> bool:
        return self.num_ended() + num_open < self.num_wanted()

    def num_wanted(self) -> int:
        """Trials in all: `search.trials`, or fewer where a grid has fewer."""
        search = self.experiment.search
        if search.sampler != "grid":
            return search.trials
        return min(search.trials, len(self.study.get_trials(deepcopy=False)))

    def num_ended(self) -> int:
        """Trials that have ended; one that was interrupted has not."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def _ask(self) -> int:
        """The number of a new trial, whose values are in the study."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.enqueue_trial(self._drawn_values())
        return self.study.ask().number

    def _drawn_values(self) -> spaces.Values:
        """What a fresh sampler draws, which depends on the study's seed and the trials before and on nothing else.

        It is drawn in a copy of the study and enqueued whole: a study killed between two values would draw the second
        one again, with a sampler that has not drawn the first.
        """
        trials = self.study.get_trials(deepcopy=False)
        copy = create_study(
            study_name=self.name,
            direction=direction(self.experiment),
            sampler=make_sampler(self.experiment, len(trials)),
        )
        copy.add_trials([trial for trial in trials if _is_in_its_space(trial)])
        return spaces.draw(copy.ask(), self.experiment.search.space)

    def _job(self, number: int, sweep_run_id: str) -> TrialJob | None:
        """The trial as an engine takes it; None where its values are impossible, which fails the trial."""
        try:
            experiment = self.experiment.replace(self._values(number), origin=SPACE)
        except ConfigError as error:
            log.warning("trial %d failed: %s", number, error)
            self._tell_of_failure(number, str(error))
            return None
        return TrialJob(
            experiment=experiment,
            root=self.root,
            number=number,
            trial_id=self._trial(number)._trial_id,
            study=self.name,
            sweep_run_id=sweep_run_id,
            pruner_warmup=self.pruner_warmup,
        )

    def _values(self, number: int) -> spaces.Values:
        """The values that the study holds for a trial.

        Raises:
            ConfigError: somebody enqueued a value that its search space does not hold.
        """
        trial, space = self._trial(number), self.experiment.search.space
        planned = trial.system_attrs.get("fixed_params", {})
        written = dict(planned)
        for key in planned.keys() & space.keys() - trial.params.keys():
            try:
                written[key] = spaces.as_written(space[key], planned[key])
            except ValueError as error:
                raise ConfigError(f"{SPACE}: {key} = {error}") from error
        if written != planned:  # by a version that reckoned the steps of a range in floating point
            self.study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", written)
        return spaces.suggest(Trial(self.study, trial._trial_id), space)

    def _trial(self, number: int) -> FrozenTrial:
        return next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)

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
        job, finished = outcome.job, outcome.finished
        trial = self._trial(job.number)
        if outcome.interrupted:
            self._close_run_of_lost(job, outcome.error)
        if finished is None:
            self._tell_of_failure(job.number, outcome.error)
            return
        attrs = {"run_id": finished.run_id, "best_epoch": finished.best.epoch, **finished.best.metrics()}
        interval = finished.accuracy_interval
        if self.prepared.dataset.val.groups and interval != NO_INTERVAL:
            attrs |= zip(INTERVAL_COLUMNS, (interval.low, interval.high), strict=True)
        for key, value in attrs.items():
            self.study._storage.set_trial_user_attr(trial._trial_id, key, value)
        if finished.outcome == "pruned":
            self.study.tell(job.number, state=TrialState.PRUNED)
        else:
            self.study.tell(job.number, metric_value(finished.best, self.experiment.search.metric))

    def _tell_of_failure(self, number: int, error: str) -> None:
        self.study._storage.set_trial_user_attr(self._trial(number)._trial_id, "error", error)
        self.study.tell(number, state=TrialState.FAIL)

    def _close_run_of_lost(self, job: TrialJob, reason: str) -> None:
        tags = {Tag.STUDY: self.name, Tag.TRIAL: str(job.number), Tag.KIND: "trial"}
        for record in self.tracker.find(tags):
            if record.outcome in ("running", "interrupted"):
                self.tracker.close_run(record.run_id, "failed", reason)

    def _stop_on_alike_failures(self) -> None:
        ended = [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]
        last = [t.user_attrs.get("error") for t in ended][-ALIKE_FAILURES:]
        if len(last) == ALIKE_FAILURES and last[0] and len(set(last)) == 1:
            raise TrainingError(f"{ALIKE_FAILURES} trials in a row failed alike: {last[0]}")

    # --- after ---

    def leaderboard(self) -> pd.DataFrame:
        """One row a trial, best first; pruned and failed ones behind, whatever their score."""
        metric = self.experiment.search.metric
        sign = 1 if metric == "val/loss" else -1
        rows = []
        for trial in self.study.get_trials(deepcopy=False):
            attrs = trial.user_attrs
            if not trial.state.is_finished():
                continue
            outcome = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")
            rows.append({
                "trial": trial.number, "outcome": outcome,
                "val/accuracy": attrs.get("val/accuracy"), "val/loss": attrs.get("val/loss"),
                **self._interval_of(attrs),
                MetricName.BEST_EPOCH: attrs.get("best_epoch"), **trial.params, "run_id": attrs.get("run_id", ""),
            })  # fmt: skip
        order = {"completed": 0, "pruned": 1, "failed": 2}
        rows.sort(key=lambda r: (order[r["outcome"]], sign * (r[metric] or 0.0), r["val/loss"] or 0.0, r["trial"]))
        return pd.DataFrame(rows)

    def _interval_of(self, attrs: Mapping[str, Any]) -> dict[str, float]:
        """The ends of a trial's interval, where images come in groups; NaN where there are too few groups for one."""
        if not self.prepared.dataset.val.groups:
            return {}
        return {column: attrs.get(column, math.nan) for column in INTERVAL_COLUMNS}

    def _conclude(self, run: Run) -> SweepResult:
        board = self.leaderboard()
        if board.empty or board.iloc[0]["outcome"] != "completed":
            raise TrainingError("no trial of this sweep was completed, so there is no winner")
        winner = board.iloc[0]
        metric = self.experiment.search.metric
        best_run_id = self._confirmed_winner(run.run_id, int(winner["trial"])) or str(winner["run_id"])
        log_winner(
            run,
            self.tracker.get(run.run_id),
            self.tracker.get(best_run_id),
            self.tracker.get(str(winner["run_id"])),
            {MetricName.NUM_TRIALS: float(len(board))},
        )
        run.log_text(Artifact.LEADERBOARD, board.to_csv(index=False))
        run.log_text(Artifact.IMPORTANCES, json.dumps(importances(self.study)))
        ranges = {key: (shares.low, shares.high) for key, shares in importance_ranges(self.study).items()}
        run.log_text(Artifact.IMPORTANCE_RANGES, json.dumps(ranges))
        self._log_plots(run)
        write_report(run, self.tracker)
        num_val = len(self.prepared.dataset.val)
        return SweepResult(run.run_id, best_run_id, metric, float(winner[metric]), board, num_val)

    def _confirmed_winner(self, run_id: str, best_trial: int) -> str | None:
        """The run that an earlier confirmation chose; None if there is none, or if a better trial has come since."""
        sweep = self.tracker.get(run_id)
        if best_trial in sweep.confirmed_trials:
            return sweep.confirmed_run_id or sweep.best_run_id
        if sweep.confirmed_trials:
            log.warning(
                "trial %d is better than those confirmed before (%s) and is the winner until it is confirmed too: "
                "imgcls confirm %s", best_trial, ", ".join(map(str, sweep.confirmed_trials)), run_id,
            )  # fmt: skip
        return None

    def _confirm(self, run: Run, result: SweepResult) -> SweepResult:
        asked = self.experiment.search.confirm
        confirmation = confirm(run, self.tracker, self.root, top=asked.top, seeds=asked.seeds, stop=self.stop)
        write_report(run, self.tracker)
        return replace(result, best_run_id=confirmation.best_run_id, confirmation=confirmation)

    def _log_plots(self, run: Run) -> None:
        """Optuna's plots as pages that need no network."""
        from optuna import visualization

        plots: dict[str, Callable[..., Any]] = {
            Artifact.HISTORY_PLOT: visualization.plot_optimization_history,
            Artifact.IMPORTANCES_PLOT: visualization.plot_param_importances,
            Artifact.SLICE_PLOT: visualization.plot_slice,
            Artifact.PARALLEL_PLOT: visualization.plot_parallel_coordinate,
        }
        name = self.experiment.search.metric
        if not importances(self.study):
            del plots[Artifact.IMPORTANCES_PLOT]
        for artifact, plot in plots.items():
            page = plot(self.study, target_name=name).to_html(include_plotlyjs=True)
            run.log_text(artifact, page)


NOT_IDENTITY = (
    "search.trials", "search.timeout", "search.workers", "search.keep_pruned", "search.confirm.top",
    "search.confirm.seeds",
)  # fmt: skip
"""Keys that may change between two sittings of the same study."""


def confirm_sweep(
    run_id: str, tracker: Tracker, root: Path, *, top: int, seeds: int, stop: GracefulStop
) -> Confirmation:
    """Confirms a sweep that has ended; see `confirm`.

    Raises:
        InputError: no such sweep, none with a winner, or one that is running now.
        Interrupted: `stop` was requested; the same command goes on.
    """
    sweep = tracker.get(run_id)
    check_can_be_confirmed(sweep)
    with only_one(root, sweep.study), tracker.reopen_run(run_id) as run:
        confirmation = confirm(run, tracker, root, top=top, seeds=seeds, stop=stop, announces=True)
        write_report(run, tracker)
        return confirmation


class _SweepProgress:
    """A bar over trials on a terminal, a line a trial elsewhere.

    Args:
        sweep: which one.
        taken_up: numbers of the trials that an earlier sitting began, whose time now is only part of a trial's.
    """

    def __init__(self, sweep: Sweep, taken_up: frozenset[int]) -> None:
        self._sweep = sweep
        self._taken_up = taken_up
        self._pace = Pace(sweep.num_ended())
        self._bar = tqdm(
            total=sweep.num_wanted(), initial=sweep.num_ended(), desc=f"sweep {sweep.experiment.name}",
            unit="trial", file=terminal.stderr(), disable=None, dynamic_ncols=True, position=1,
        )  # fmt: skip

    def on_trial(self, outcome: TrialOutcome) -> None:
        board = self._sweep.leaderboard()
        completed = board[board["outcome"] == "completed"] if len(board) else board
        metric = self._sweep.experiment.search.metric
        best = "none yet"
        if len(completed):
            first, num_val = completed.iloc[0], len(self._sweep.prepared.dataset.val)
            interval = leaderboard_intervals(completed[:1], num_val)[0] or NO_INTERVAL
            shown = metric_text(metric, first[metric], interval)
            best = f"{shown} by trial {first['trial']}"
        ended, total = self._sweep.num_ended(), self._sweep.num_wanted()
        if outcome.job.number in self._taken_up:
            self._pace = Pace(ended)
        tqdm.write(
            f"trial {outcome.job.number} {_in_words(outcome, metric)}; {ended} of {total} trials, "
            f"best {metric} {best}, "
            f"{self._pace.left(ended, total)}",
            file=terminal.stderr(),
        )
        self._bar.set_postfix_str(f"best {metric} {best}")
        self._bar.n = ended
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def _in_words(outcome: TrialOutcome, metric: str) -> str:
    if outcome.finished is None:
        return f"{'interrupted' if outcome.interrupted else 'failed'}: {outcome.error}"
    best = outcome.finished.best
    score = metric_text(metric, metric_value(best, metric), outcome.finished.accuracy_interval)
    return f"{outcome.finished.outcome}: {metric} {score} at epoch {best.epoch}"


def _is_in_its_space(trial: FrozenTrial) -> bool:
    """Whether Optuna's samplers can learn from a trial: not where somebody enqueued a value outside of its range."""
    return all(
        trial.distributions[key]._contains(trial.distributions[key].to_internal_repr(value))
        for key, value in trial.params.items()
    )


def _identity(experiment: Experiment, prepared: Prepared) -> str:
    test = prepared.dataset.test
    formats = f"squares {SQUARES_FORMAT}", f"loss {LOSS_DEFINITION}"
    of_data = prepared.dataset.fingerprint, test and test.fingerprint()
    parts = experiment.config_hash(without=NOT_IDENTITY), *of_data, *formats
    return f"{derive_seed(0, *map(str, parts)):016x}"[:8]


def only_one(root: Path, study: str) -> AbstractContextManager[None]:
    """Holds the study's claim; the kernel lets go of it however this process ends.

    Raises:
        ClaimedError: another process holds it.
    """
    return claim(root, f"study-{study}", f"this sweep (study {study})")
