"""The end of a sweep: its winner, and what its run says of all trials together."""

import json
import logging
from dataclasses import dataclass

import pandas as pd

from imgcls.config.keys import Experiment
from imgcls.errors import TrainingError
from imgcls.evaluation.confirmation import Confirmation
from imgcls.metrics import metric_named
from imgcls.record import Artifact, MetricName, Tag
from imgcls.reporting import html
from imgcls.reporting.drawing import pictures_of
from imgcls.reporting.run_links import run_link
from imgcls.run_record import RunRecord
from imgcls.search.importances import importance_ranges, importances
from imgcls.search.search_page import Importances, SearchFacts, search_report
from imgcls.search.study import SweepStudy
from imgcls.search.sweep_report import write_report
from imgcls.search.winner import draw_winner, log_winner
from imgcls.text import counted
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """The sweep's result: what came of it.

    Attributes:
        run_id: of the parent run.
        best_run_id: of the winner.
        best_value: the metric of the best trial at its best epoch.
        leaderboard: one row a trial, best first.
        num_val: images behind its scores.
        confirmation: with fresh seeds, where `search.confirm` asks for it.
    """

    run_id: str
    best_run_id: str
    best_value: float
    leaderboard: pd.DataFrame
    num_val: int
    confirmation: Confirmation | None = None


@dataclass(frozen=True)
class SweepEnd:
    """The end of a sweep, as the process writes it that holds the lease of the sweep's run.

    Attributes:
        experiment: as in its file, with overrides.
        tracker: where the record goes.
        num_val: validation images.
    """

    experiment: Experiment
    tracker: Tracker
    num_val: int

    def conclude(self, run: Run, study: SweepStudy) -> SweepResult:
        """Names the winner, and writes all that is known at the end into the sweep's run.

        Raises:
            TrainingError: no trial was completed.
        """
        board, waiting = study.leaderboard(), len(study.paused()) + len(study.running())
        if board.empty or board.iloc[0]["outcome"] != "completed":
            goes_on = f"; the same command goes on with {counted(waiting, 'paused trial')}" if waiting else ""
            raise TrainingError(f"no trial of this sweep was completed, so none can be the winner{goes_on}")
        first = board.iloc[0]
        sweep, best_trial = self.tracker.get(run.run_id), self.tracker.get(str(first["run_id"]))
        winner = self._confirmed_winner(sweep, best_trial) or best_trial
        metrics = {MetricName.NUM_TRIALS: float(study.num_ended())}
        after = {Tag.COMPARED_AFTER: rung} if (rung := study.first_rung_in_words()) else {}
        log_winner(run, sweep, winner, best_trial, metrics, {Tag.NUM_TRIALS_WANTED: str(study.num_wanted()), **after})
        run.log_text(Artifact.LEADERBOARD, board.to_csv(index=False))
        compared = study.compared()
        shares = importances(compared)
        run.log_text(Artifact.IMPORTANCES, json.dumps(shares))
        ranges = importance_ranges(compared)
        run.log_text(Artifact.IMPORTANCE_RANGES, json.dumps({key: (of.low, of.high) for key, of in ranges.items()}))
        with pictures_of(run.run_id):
            self._log_search_page(run, best_trial, board, {key: (share, ranges[key]) for key, share in shares.items()})
        winner = draw_winner(winner, self.experiment, self.tracker)
        write_report(run, self.tracker, winner, best_trial)
        best_value = float(first[self.experiment.search.metric])
        return SweepResult(run.run_id, winner.run_id, best_value, board, self.num_val)

    def _confirmed_winner(self, sweep: RunRecord, best_trial: RunRecord) -> RunRecord | None:
        """The run that an earlier confirmation chose; None if there is none, or if a better trial has come since."""
        if best_trial.trial in sweep.confirmed_trials:
            return self.tracker.get(sweep.confirmed_run_id or sweep.best_run_id)
        if sweep.confirmed_trials:
            log.warning(
                "trial %d is better than those confirmed before (%s) and is the winner until it is confirmed too: "
                "imgcls confirm %s", best_trial.trial, ", ".join(map(str, sweep.confirmed_trials)), sweep.run_id,
            )  # fmt: skip
        return None

    def _log_search_page(self, run: Run, best_trial: RunRecord, board: pd.DataFrame, shares: Importances) -> None:
        """Which values the best trials have, and what each searched key did, on one page."""
        search, sweep = self.experiment.search, self.tracker.get(run.run_id)
        links = [run_link("The best trial", best_trial, self.tracker), run_link("The sweep", sweep, self.tracker)]
        of = SearchFacts(sweep, best_trial, board, search.space, shares, metric_named(search.metric), links)
        run.log_text(Artifact.PLOTS, html.page(*search_report(of)))
