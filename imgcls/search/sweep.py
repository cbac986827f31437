"""A sweep: one Optuna study together with its parent run."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from imgcls.config.keys import Experiment
from imgcls.data.augment import refuse_colours_of_grey
from imgcls.errors import ConfigError, InputError, Interrupted
from imgcls.record import Artifact, Tag
from imgcls.run_record import RunRecord
from imgcls.runs.announce import announce
from imgcls.runs.experiment_page import write_page
from imgcls.runs.image_record import ImageRecord
from imgcls.runs.prepare import check_network, prepare
from imgcls.search import space as spaces
from imgcls.search.budget import Budget, ConfirmationTime, SearchTime, confirmation_in_words
from imgcls.search.budget_share import share_of_budget
from imgcls.search.changes import why_new
from imgcls.search.clusters import cluster_for
from imgcls.search.confirm import confirm
from imgcls.search.driver import FIRST_LOOK, Driver
from imgcls.search.engines import Cluster
from imgcls.search.halving import Rungs
from imgcls.search.joining import PARENT, joined, note_run_id, run_id_of
from imgcls.search.leases import Leases
from imgcls.search.pruners import check_pruner
from imgcls.search.ray_request import RayRequest
from imgcls.search.samplers import resolved_sampler
from imgcls.search.space import SPACE, check_space, pruner_warmup_of, single_values
from imgcls.search.storage import check_storage, shared_address
from imgcls.search.study import SweepStudy, only_one
from imgcls.search.study_name import NOT_IDENTITY, newest_squares, study_name
from imgcls.search.study_place import StudyPlace
from imgcls.search.study_rebuild import rebuild
from imgcls.search.sweep_end import SweepEnd, SweepResult
from imgcls.search.warm_start import WarmStart, find_warm_start
from imgcls.search.workers import Share, check_processes, new_share, order_matters, recorded_share
from imgcls.signals import GracefulStop, stop_requested
from imgcls.text import counted
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker
from imgcls.training.loss import LOSS_DEFINITION

log = logging.getLogger(__name__)


def sweep(
    experiment: Experiment, tracker: Tracker, budget: Budget | None = None, on_ray: RayRequest | None = None
) -> SweepResult:
    """Runs a sweep from its announcement to its report, or goes on with it; Ctrl-C stops it after a step.

    Args:
        experiment: as in its file, with overrides.
        tracker: where the record goes.
        budget: the time of all of it, confirmation and reports included.
        on_ray: the Ray cluster that trains the trials; by default this machine does.

    Raises:
        InputError: no search space, values outside it, data that cannot be used, or trials that fit on no machine.
        Interrupted: a stop was requested; the same call goes on.
        TrainingError: no trial succeeded, or several failed alike in a row.
    """
    machines = cluster_for(experiment, tracker, on_ray)  # what is wrong with it is said before images are read
    search = Sweep(experiment, tracker, budget)
    with machines as cluster, GracefulStop():
        return search.run(cluster)


def work(experiment: Experiment, tracker: Tracker) -> str:
    """Works on a sweep beside other processes until nothing is left to do; the first one makes it, one writes its end.

    Args:
        experiment: as in its file, with overrides.
        tracker: where the record goes.

    Returns:
        The id of the sweep's run, which is completed unless another process still writes its end.

    Raises:
        InputError: no search space, values outside it, or data that cannot be used.
        Interrupted: a stop was requested, or others have taken over what this process held (`LeaseLost`).
        TrainingError: no trial succeeded, or several failed alike in a row.
    """
    search = Sweep(experiment, tracker)
    with GracefulStop():
        return search.help()


class Sweep:
    """A sweep: one study under one parent run, taken up where it stopped.

    Args:
        experiment: as in its file, with overrides.
        tracker: where the record goes.
        budget: the time of all of it, confirmation and reports included.

    Raises:
        InputError: no search space, values outside it, or data that cannot be used.
    """

    def __init__(self, experiment: Experiment, tracker: Tracker, budget: Budget | None = None) -> None:
        if not experiment.search.space:
            raise ConfigError(
                f"{experiment.name} has no [search.space]; name at least one key, such as "
                '"train.lr" = { low = 1e-4, high = 1e-2, log = true }'
            )
        check_pruner(experiment)
        check_storage(experiment.search.storage)
        check_space(experiment, tracker.project)
        check_processes(experiment.search, experiment.train, experiment.search.num_workers)
        self.experiment = experiment
        self.tracker = tracker
        self.budget = budget
        check_network(experiment, tracker.project)
        self.prepared = prepare(experiment, tracker.project)
        for values in single_values(experiment):
            changed = experiment.replace(values, origin=SPACE)
            refuse_colours_of_grey(changed.augment, self.prepared.dataset.channels)
        self.pruner_warmup = pruner_warmup_of(self.prepared.experiment)
        self._sampler = resolved_sampler(experiment.search)
        self.squares = newest_squares(self.prepared)
        self.name = study_name(experiment, self.prepared, self.squares)
        before = study_name(experiment, self.prepared, 2)
        if self.squares > 2 and tracker.find({Tag.KIND: "sweep", Tag.STUDY: before}, experiment=experiment.name):
            self.squares, self.name = 2, before
            self.prepared = prepare(experiment, tracker.project, self.squares)
        self._planned = self._planned_values()
        self._shared = experiment
        self._cluster: Cluster | None = None
        self._run_id = ""

    def run(self, cluster: Cluster | None = None) -> SweepResult:
        """Searches up to `search.trials` trials in all, earlier sittings included.

        Args:
            cluster: trains the trials instead of this machine.

        Raises:
            Interrupted: a stop was requested; the same command goes on.
            TrainingError: no trial succeeded, or several failed alike in a row.
        """
        self._cluster = cluster
        is_shared = bool(shared_address(self.experiment.search.storage))
        with nullcontext() if is_shared else only_one(self.tracker.root, self.name):
            result = self._join(waits=True)
        assert result is not None  # it waited for the end
        return result

    def help(self) -> str:
        """Works on the sweep as one of its processes, until nothing is left for it; see `work`.

        Raises:
            Interrupted: a stop was requested, or others have taken over what this process held (`LeaseLost`).
            TrainingError: no trial succeeded, or several failed alike in a row.
        """
        result = self._join(waits=False)
        return self._run_id if result is None else result.run_id

    def _join(self, *, waits: bool) -> SweepResult | None:
        """Works on the sweep; whoever holds the lease of its run writes its beginning and its end."""
        place = self._place()
        with joined(place, self.experiment) as leases, self.tracker.guarded(place.guard(leases.fence, self.experiment)):
            self.tracker.close_orphans()
            num = "trials" if self.budget else counted(self.experiment.search.trials, "trial")
            announce(self.prepared, self.tracker, runs=num)
            try:
                return self._run_with(leases, waits=waits)
            finally:
                self.tracker.wait_until_sent()

    def _run_with(self, leases: Leases, *, waits: bool) -> SweepResult | None:
        has_helped, seen = False, 0.0
        while True:
            self._run_id = run_id_of(leases.study)
            if not waits and self._is_over(leases):
                return None
            if leases.take(PARENT):
                return self._run(leases)
            if has_helped and not waits:
                renewed = leases.renewed_by(PARENT)
                if seen and renewed > seen:  # another process lives that writes the end
                    return None
                seen = renewed
            if (run_id := self._run_id) and self.budget:
                raise InputError(
                    f"sweep {run_id} runs elsewhere, and --budget needs a sweep of its own; join it without --budget "
                    f"(imgcls worker {self.experiment.name}), or wait until it has ended"
                )
            if run_id and not has_helped:
                self._take(self._share(self.tracker.get(run_id)))
                self._drive(self.study(run_id, leases), None)
                has_helped = True
            if by := stop_requested():
                raise Interrupted(f"stopped by {by}")
            time.sleep(FIRST_LOOK)

    def _is_over(self, leases: Leases) -> bool:
        """Whether all trials that are wanted have ended, and the end is in the sweep's run."""
        trials, search = leases.study.get_trials(deepcopy=False), self.experiment.search
        has_all = len(trials) >= search.trials or search.sampler == "grid"
        run_id = run_id_of(leases.study)
        if not (run_id and has_all and all(trial.state.is_finished() for trial in trials)):
            return False
        return self.tracker.get(run_id).outcome == "completed"

    def _drive(self, study: SweepStudy, share: SearchTime | None) -> None:
        Driver(study, len(self.prepared.dataset.val), self.tracker, share, self._cluster).run()

    def _run(self, leases: Leases) -> SweepResult:
        with self._parent_run() as run:
            write_page(self.prepared.experiment, self.tracker, self.tracker.get(run.run_id))
            study = self.study(run.run_id, leases)
            warm = WarmStart.recorded(run.run_id, self.tracker)
            planned = [*self._planned, *(warm.values if warm else ())]
            rebuild(study, planned, self.tracker)
            study.plan(planned)
            share = self._share_of_budget(study, run)
            note_run_id(study.optuna, run.run_id)  # others begin now
            self._drive(study, share)
            begun = time.monotonic()
            end = SweepEnd(self.experiment, self.tracker, len(self.prepared.dataset.val))
            result, asked = end.conclude(run, study), self.experiment.search.confirm
            if not asked.seeds:
                return result
            if share is not None:
                return self._confirm_in_time(run, result, share, time.monotonic() - begun)
            sweep = self.tracker.get(run.run_id)
            found = confirm(run, sweep, self.tracker, top=asked.top, seeds=asked.seeds, cluster=self._cluster)
            assert found is not None  # without a budget all of it is confirmed
            return replace(result, best_run_id=found.best_run_id, confirmation=found)

    def _share_of_budget(self, study: SweepStudy, run: Run) -> SearchTime | None:
        """The search's share of the budget, after it was said and recorded; None without a budget."""
        run.remove_tags([tag for tag in (Tag.BUDGET, Tag.BUDGET_CUT) if tag in self.tracker.get(run.run_id).tags])
        if self.budget is None:
            return None
        share = share_of_budget(self.budget, self.prepared, study.experiment.search.num_workers)
        if not self.budget.keeps_trials and study.sampler != "grid":
            is_left = bool(study.running() or study.paused())
            study.want(max(study.num_begun() + (not is_left), share.num_trials(study.epochs_of)))
        log.info(share.in_words(study.num_wanted(), self.experiment.search.pruner))
        for warning in share.warnings():
            log.warning(warning)
        self._record_budget(run, share.warnings())
        return share

    def _record_budget(self, run: Run, cuts: list[str]) -> None:
        assert self.budget is not None
        run.set_tags({Tag.BUDGET: f"{self.budget.seconds:g}"} | ({Tag.BUDGET_CUT: "; ".join(cuts)} if cuts else {}))

    def _confirm_in_time(self, run: Run, result: SweepResult, share: SearchTime, report_seconds: float) -> SweepResult:
        """Confirms as much as the rest of the budget has time for; what it has no time for is said and recorded."""
        asked = self.experiment.search.confirm
        found = confirm(
            run, self.tracker.get(run.run_id), self.tracker, top=asked.top, seeds=asked.seeds,
            time_left=ConfirmationTime(share, report_seconds), cluster=self._cluster,
        )  # fmt: skip
        top = min(asked.top, int((result.leaderboard["outcome"] == "completed").sum()))
        done = (len(found.ranked), found.num_seeds) if found else (0, 0)
        if done != (top, asked.seeds):
            whole, cut = confirmation_in_words(asked.top, asked.seeds), confirmation_in_words(*done)
            log.warning("the budget had no time for %s; there was %s", whole, cut)
            self._record_budget(run, [f"{whole} was asked for, and there was {cut}"])
        return result if found is None else replace(result, best_run_id=found.best_run_id, confirmation=found)

    def _place(self, run_id: str = "") -> StudyPlace:
        num_epochs, num_folds = self.experiment.train.last_epoch, self.prepared.dataset.num_folds
        of_all = self.pruner_warmup, num_epochs, num_folds, self.squares
        return StudyPlace(self.tracker.root, self.name, run_id, *of_all)

    def study(self, run_id: str, leases: Leases | None = None) -> SweepStudy:
        """The study of this sweep, whose parent run is `run_id`."""
        sampler = self.tracker.get(run_id).params.get(SAMPLER, self._sampler)
        if self.experiment.search.sampler == "auto":
            log.info('search.sampler = "auto": %s, for the whole study', sampler)
        search, dataset = self._shared.search, self.prepared.dataset
        if search.workers != "auto" and search.workers > 1:
            log.info("%d workers side by side: %s", search.workers, order_matters(sampler, search.pruner))
        # A trial in folds that ended early was scored on the images of some folds alone.
        has_intervals = bool(dataset.val.groups) or bool(dataset.num_folds)
        return SweepStudy(self._place(run_id), self._shared, has_groups=has_intervals, sampler=sampler, leases=leases)

    # --- before ---

    def _share(self, begun: RunRecord | None = None) -> Share:
        """How this sitting shares the machine, or those of a cluster; `begun` is the sweep that goes on."""
        search, train = self.experiment.search, self.experiment.train
        if self._cluster is not None:
            return Share(self._cluster.capacity, self._cluster.threads)
        if begun is not None and not begun.engine:
            return recorded_share(begun, search, train)
        trials = len(self._planned) if search.sampler == "grid" else search.trials
        return new_share(self.prepared, search, train, trials, self._rungs())

    def _take(self, share: Share) -> None:
        """Gives workers and threads their numbers for all trials to come."""
        check_processes(self.experiment.search, self.experiment.train, share.workers)
        self._shared = self.experiment.replace({"search.workers": share.workers, "train.threads": share.threads})
        self.prepared = self.prepared.with_threads(share.threads)

    def _rungs(self) -> Rungs:
        """The epochs or folds at which its trials pause; a whole training alone where they do not."""
        num_epochs, num_folds = self.experiment.train.last_epoch, self.prepared.dataset.num_folds
        if self.experiment.search.pruner != "halving":
            return Rungs((num_folds or num_epochs,))
        return Rungs.of_trials(self.pruner_warmup, num_epochs, num_folds)

    def _planned_values(self) -> list[spaces.Values]:
        """The experiment's own values for trial 0; of a grid, as many further points as `search.trials` allows."""
        search = self.experiment.search
        own = spaces.own_values(self.prepared.experiment, search.space)
        if search.sampler != "grid":
            return [own]
        if (size := spaces.grid_size(search.space, own)) > search.trials:
            log.warning("the grid has %d combinations, and search.trials = %d are run", size, search.trials)
        others = spaces.grid(search.space, search.trials)
        return [own, *(values for values in others if values != own)][: search.trials]

    @contextmanager
    def _parent_run(self) -> Iterator[Run]:
        sweeps = self.tracker.find({Tag.KIND: "sweep"}, experiment=self.experiment.name)
        engine = self._cluster.name if self._cluster else ""
        same = [record for record in sweeps if record.study == self.name]
        if same:
            log.info("going on with sweep %s (study %s)", same[-1].run_id, self.name)
            self._warn_of_looks()
            share = self._share(same[-1])
            self._take(share)
            with self.tracker.reopen_run(same[-1].run_id) as run:
                if same[-1].engine != engine:
                    run.set_tags({Tag.NUM_WORKERS: str(share.workers), Tag.ENGINE: engine})
                if not self.tracker.has_artifact(run.run_id, Artifact.CONFIG):  # it was killed while it began
                    self._record_start(run, WarmStart.recorded(run.run_id, self.tracker) or self._warm_start())
                yield run
            return
        if sweeps:
            why = why_new(sweeps[-1], self.prepared, self.squares, self.experiment, self.tracker, NOT_IDENTITY)
            log.info("%s: a new study starts (%s)", why, self.name)
        warm = self._warm_start()
        share = self._share()
        self._take(share)
        tags = {Tag.STUDY: self.name, Tag.NUM_WORKERS: str(share.workers)} | ({Tag.ENGINE: engine} if engine else {})
        with self.tracker.start_run(self.experiment.name, kind="sweep", name=f"sweep {self.name}", tags=tags) as run:
            self._record_start(run, warm)
            yield run

    def _warm_start(self) -> WarmStart | None:
        warm = find_warm_start(self.prepared, self.name, self.tracker)
        if warm is not None:
            log.info("%s", " ".join(warm.in_words()))
        return warm

    def _warn_of_looks(self) -> None:
        """Says from the start that trials are about to be chosen after the test split was opened."""
        if (test := self.prepared.dataset.test) is None:
            return
        own = {Tag.KIND: "evaluation", Tag.TEST_FINGERPRINT: test.fingerprint()}
        if looks := self.tracker.find(own, with_deleted=True):
            log.warning(
                "the test split of this sweep was opened already (%s in `imgcls ledger`); if a trial is chosen after "
                "that, its test score may look better than it is", counted(len(looks), "look"),
            )  # fmt: skip

    def _record_start(self, run: Run, warm: WarmStart | None) -> None:
        """The config comes last: once it is there, all of it is."""
        params = self.prepared.params() | {SAMPLER: self._sampler}
        run.log_params({key: value for key, value in params.items() if key not in NOT_IDENTITY})
        images = ImageRecord(self.prepared.dataset, self.tracker)
        config_hash = self.experiment.config_hash(without=NOT_IDENTITY)
        images.write(run, {Tag.CONFIG_HASH: config_hash, Tag.LOSS: str(LOSS_DEFINITION)})
        # At the time of the beginning: a sweep that is killed here and taken up gives the same point.
        run.log_metrics(images.metrics, at=run.started)
        images.write_near_duplicates(run)
        if warm is not None:
            warm.record(run)
        run.log_text(Artifact.CONFIG, self.experiment.to_toml())


SAMPLER = "search.sampler"
"""Key whose `auto` a sweep decides once and records; a later sitting may want another number of trials."""
