"""How a run came to be chosen, or not: told from its own record and from that of its sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from imgcls.errors import InputError
from imgcls.evaluation.confirmation import (
    Confirmation,
    Confirmed,
    completed_trials,
    fresh_runs_of,
    ranked_trials,
    recorded_confirmation,
)
from imgcls.metrics import metric_named
from imgcls.record import MetricName, Tag
from imgcls.reporting.methods_section import scored_by_folds
from imgcls.reporting.run_scores import val_score
from imgcls.run_record import RunRecord
from imgcls.text import counted
from imgcls.tracking.store import Tracker

COUNTED = ("completed", "paused", "pruned", "failed")
"""Outcomes of trials that count among those val chose from."""


@dataclass(frozen=True)
class Trials:
    """A selection's trials: those of an ended sweep, among which val selected.

    Attributes:
        ranked: run id -> number of each completed one, best first.
        num: of every outcome.
        outcomes: outcome -> number of trials.
    """

    ranked: Mapping[str, int] = field(default_factory=dict)
    num: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_leaderboard(cls, board: pd.DataFrame) -> Trials:
        """The trials of a sweep as its leaderboard ranks them, the completed ones first."""
        completed = board[board["outcome"] == "completed"]
        return cls(
            dict(zip(completed["run_id"], completed["trial"], strict=True)), len(board), Counter(board["outcome"])
        )

    @classmethod
    def of_sweep(cls, sweep: RunRecord, metric: str, tracker: Tracker) -> Trials:
        """The trials of a sweep as the record has them, also where the sweep has not ended."""
        ended = [trial for trial in tracker.children(sweep.run_id, "trial") if trial.outcome in COUNTED]
        # A trial that failed before it had a run is known to the sweep alone.
        num = max(len({trial.trial for trial in ended}), int(sweep.metrics.get(MetricName.NUM_TRIALS, 0)))
        ranked = {trial.run_id: trial.trial for trial in ranked_trials(ended, metric)}
        return cls(ranked, num, Counter(trial.outcome for trial in ended))

    @property
    def num_ended(self) -> int:
        """How many of them are not paused."""
        return self.num - self.outcomes.get("paused", 0)

    @property
    def others_failed(self) -> bool:
        """Whether val compared the completed one with no other: a trial that was pruned or paused was compared too."""
        return len(self.ranked) == 1 and not (self.outcomes.get("pruned") or self.outcomes.get("paused"))

    def in_words(self, wanted: int = 0) -> str:
        """How many trials a sweep had, such as `6 trials (4 completed, 2 pruned)` or `3 trials (7 were wanted)`."""
        kinds = [f"{self.outcomes[outcome]} {outcome}" for outcome in COUNTED if self.outcomes.get(outcome)]
        notes = "; ".join(filter(None, (", ".join(kinds) if len(kinds) > 1 else "", were_wanted(self.num, wanted))))
        return counted(self.num, "trial") + (f" ({notes})" if notes else "")


def were_wanted(num: int, wanted: int) -> str:
    """A selection from fewer trials than were wanted, in words, such as `7 were wanted`; "" where none is missing."""
    return f"{wanted:,} were wanted" if num < wanted else ""


@dataclass(frozen=True)
class Selection:
    """The selection of a run: what the record knows about its choice.

    Attributes:
        run: the run in question.
        metric: what val selected by, such as `val/accuracy`.
        sweep: that it belongs to; None where it belongs to none, or where the sweep was deleted.
        trials: of the sweep.
        confirmed: of a fresh run: its configuration, with its fresh seeds.
        confirmation: the sweep's latest, where there is one.
        repeated: of a rerun: the selection of the run that it repeats; None where that was deleted.
    """

    run: RunRecord
    metric: str
    sweep: RunRecord | None = None
    trials: Trials = Trials()
    confirmed: Confirmed | None = None
    confirmation: Confirmation | None = None
    repeated: Selection | None = None

    @property
    def has_fixed_epoch(self) -> bool:
        """Whether the epoch was fixed before the run began, so that val did not choose it."""
        return self.run.params.get("train.score_epoch", "0") != "0"

    @property
    def winner_id(self) -> str:
        """Run id of the sweep's winner; "" where there is none."""
        return self.sweep.best_run_id if self.sweep else ""

    @property
    def place(self) -> int | None:
        """Place of a trial among the completed ones, from 1; None for any other run."""
        ids = list(self.trials.ranked)
        return ids.index(self.run.run_id) + 1 if self.run.run_id in ids else None

    @property
    def place_of_mean(self) -> int | None:
        """Place of a fresh run's configuration in the latest confirmation, from 1; None where it is not part of it."""
        return self.confirmation.place_of(self.run.run_id) if self.confirmation else None

    @property
    def is_best_of_several(self) -> bool:
        """Whether it is the trial that val ranked first among several that it compared."""
        return self.place == 1 and not self.trials.others_failed

    @property
    def num_wanted(self) -> int:
        """How many trials the sweep wanted; 0 where that is not recorded."""
        return self.sweep.num_trials_wanted if self.sweep else 0

    @property
    def num_earlier(self) -> int:
        """How many trials of earlier sweeps, on the same val images, chose where this sweep started."""
        return self.sweep.num_earlier_trials if self.sweep else 0

    @property
    def after(self) -> str:
        """What is said behind the number of trials: how many earlier ones val compared before; "" for none."""
        return f", after {self.num_earlier:,} in earlier sweeps on the same val images" if self.num_earlier else ""

    @property
    def compared(self) -> str:
        """All that val chose from in words: `20 trials`, or more where the sweep started from an earlier one."""
        return f"{counted(self.trials.num, 'trial')}{self.after}"

    @property
    def tried(self) -> str:
        """The sweep's trials in words, such as `3 trials (7 were wanted)` where some are missing."""
        return f"{self.trials.in_words(self.num_wanted)}{self.after}"

    @property
    def searched(self) -> str:
        """The sweep's trials in words, such as `3 of 7 trials (search.timeout is over)` where some are missing."""
        missing = self.missing_trials
        return (f"{self.trials.num_ended} {missing}" if missing else self.trials.in_words()) + self.after

    @property
    def missing_trials(self) -> str:
        """Of a sweep that its timeout cut short: of how many trials, and why, in words; "" where none is missing."""
        if self.trials.num_ended >= self.num_wanted:
            return ""
        why = "its budget" if self.sweep and Tag.BUDGET in self.sweep.tags else "search.timeout"
        paused = self.trials.outcomes.get("paused", 0)
        waiting = f"; {paused} more {'is' if paused == 1 else 'are'} paused" if paused else ""
        return f"of {counted(self.num_wanted, 'trial')} ({why} is over{waiting})"

    @property
    def chosen(self) -> str:
        """What this run's own val score selected, in words; "" for nothing."""
        parts = [] if self.has_fixed_epoch else ["the epoch"]
        if self.place == 1 and self.trials.num + self.num_earlier > 1:
            parts.append(f"the best of {self.compared}")
        confirmation = self.confirmation
        if confirmation and confirmation.num_seeds == 1 and self.place_of_mean == 1 and len(confirmation.ranked) > 1:
            parts.append(f"the best of {len(confirmation.ranked)} configurations")
        return " and ".join(parts)

    @property
    def chosen_by_other_scores(self) -> str:
        """What the val scores of other runs selected of this one, in words; "" for nothing."""
        confirmation = self.confirmation
        if self.place_of_mean != 1 or confirmation is None:
            return ""
        if len(confirmation.ranked) > 1:
            return "the configuration, by a mean"
        return f"the configuration, by the score of trial {confirmation.winner.trial}"

    @property
    def is_flattered(self) -> bool:
        """Whether val images that score this run also selected something of it, so that its val score is optimistic."""
        return bool(self.chosen or self.chosen_by_other_scores)


def selection_of(run: RunRecord, tracker: Tracker, trials: Trials | None = None) -> Selection:
    """The selection of a run that trained: reads what the record knows about its choice.

    Args:
        run: of any kind but a sweep or an evaluation.
        tracker: where its sweep is.
        trials: of its sweep, where they are known already; reading a thousand takes seconds.
    """
    metric = run.metric
    parent = _parent(run, tracker)
    if parent is None or run.kind not in ("trial", "confirm", "rerun"):
        return Selection(run, metric)
    if run.kind == "rerun":
        return Selection(run, metric, repeated=selection_of(parent, tracker))
    confirmation = recorded_confirmation(parent, tracker)
    return Selection(
        run,
        metric,
        sweep=parent,
        trials=trials or Trials.of_sweep(parent, metric, tracker),
        confirmed=_confirmed(run, parent, confirmation, tracker) if run.kind == "confirm" else None,
        confirmation=confirmation,
    )


def _parent(run: RunRecord, tracker: Tracker) -> RunRecord | None:
    try:
        return tracker.get(run.parent) if run.parent else None
    except InputError:  # deleted for good
        return None


def _confirmed(
    run: RunRecord, sweep: RunRecord, confirmation: Confirmation | None, tracker: Tracker
) -> Confirmed | None:
    """The fresh run's configuration: as the latest confirmation compared it, else with all its fresh runs."""
    if confirmation and (place := confirmation.place_of(run.run_id)):
        return confirmation.ranked[place - 1]
    found_by = completed_trials(sweep, [run.trial], tracker)
    return Confirmed(found_by[-1], tuple(fresh_runs_of(found_by[-1], tracker)), run.metric) if found_by else None


# --- in words ---------------------------------------------------------------------------------------------------


def story(selection: Selection, subject: str = "This run") -> Iterator[str]:
    """The selection of a run in sentences: how it came to be chosen, or that it was not.

    Args:
        selection: of the run.
        subject: what the run is called at the beginning of a sentence.
    """
    kind = selection.run.kind
    if kind == "fold":
        yield f"{subject} is the model of fold {selection.run.tags.get(Tag.FOLD)} of run `{selection.run.parent}`."
    elif kind == "rerun":
        yield from _story_of_a_repeat(selection, subject)
    elif kind not in ("trial", "confirm"):
        yield f"{subject} is a single one: no sweep chose its configuration."
    elif selection.sweep is None:
        yield f"{subject} is part of a sweep that is not in this store any more, so how it was chosen is not known."
    else:
        of_kind = _story_of_a_trial if kind == "trial" else _story_of_a_fresh_run
        yield from of_kind(selection, f"the sweep `{selection.sweep.run_id}`", subject)
    if num_folds := selection.run.num_folds:
        yield scored_by_folds(num_folds)


def _story_of_a_repeat(selection: Selection, subject: str) -> Iterator[str]:
    original = f"run `{selection.run.tags.get(Tag.REPEATED_RUN_ID, 'unknown')}`"
    verified = selection.run.tags.get(Tag.VERIFIED)
    yield f"{subject} repeats {original}" + (f" (verified: {verified})." if verified else ".")
    yield f"Its own scores selected {'nothing' if selection.has_fixed_epoch else 'nothing but its epoch'}."
    if selection.repeated is not None:
        yield from story(selection.repeated, f"{original[0].upper()}{original[1:]}")


def _story_of_a_trial(selection: Selection, sweep: str, subject: str) -> Iterator[str]:
    number, metric = selection.run.trial, selection.metric
    so_far = "" if selection.winner_id else ", which had not ended"
    comma = "," if selection.after else ""
    yield f"{subject} is trial {number} of {sweep}{so_far}."
    if epochs := selection.run.tags.get(Tag.ENDED_EARLY):
        yield f"It was not trained to its end ({epochs}), because the budget of the sweep was over and no trial was."
    if selection.place is None:
        yield f"It was not completed ({selection.run.outcome}), so it was not chosen."
    elif selection.place == 1 and selection.trials.num == 1 and not selection.num_earlier:
        yield "; ".join(filter(None, ("It is the only trial of the sweep", were_wanted(1, selection.num_wanted)))) + "."
    elif selection.place == 1 and selection.trials.others_failed and not selection.num_earlier:
        yield f"It is the only one of {selection.tried} that was completed."
    elif selection.place == 1:
        yield (
            f"Its configuration was the best of {selection.tried}{comma} by {metric}. The best of several trials is "
            f"partly the luckiest, so its {metric} is optimistic."
        )
    else:
        best = next(iter(selection.trials.ranked.values()))
        yield (
            f"By {metric} it came in place {selection.place} of the {len(selection.trials.ranked)} trials that were "
            f"completed, of {selection.trials.num} in all; trial {best} came first. It was not chosen."
        )
    if selection.winner_id not in ("", selection.run.run_id):
        again = "It was not chosen in the end: the" if selection.place == 1 else "The"
        yield f"{again} sweep's winner is {_winner(selection)}."


def _story_of_a_fresh_run(selection: Selection, sweep: str, subject: str) -> Iterator[str]:
    confirmation, place = selection.confirmation, selection.place_of_mean
    yield (
        f"{subject} trained the configuration of trial {selection.run.trial} of {sweep} again with a "
        f"fresh seed, up to epoch {selection.run.params['train.score_epoch']}, which that trial had fixed."
    )
    if confirmation is None or place is None:
        yield "It is not part of the sweep's latest confirmation. It was not chosen."
    else:
        yield from _place_of_configuration(selection, confirmation, place)
    if selection.winner_id == selection.run.run_id:
        if confirmation is not None and confirmation.num_seeds > 1:
            yield "Of the fresh seeds it is the first; it was chosen by this place and not by its own score."
        yield from _fall(selection)
    elif selection.winner_id and place is not None:
        yield f"{'It was not chosen: the' if place == 1 else 'The'} sweep's winner is {_winner(selection)}."


def _place_of_configuration(selection: Selection, confirmation: Confirmation, place: int) -> Iterator[str]:
    num_configurations, metric = len(confirmation.ranked), selection.metric
    seeds = counted(confirmation.num_seeds, "fresh seed")
    over = f"its mean {metric} over {seeds}" if confirmation.num_seeds > 1 else f"its {metric} with one fresh seed"
    extreme = "highest" if metric_named(metric).higher_is_better else "lowest"
    among = f"which val had picked as the best of {selection.tried}"
    if place > 1:
        yield (
            f"By {over} the configuration came in place {place} of {num_configurations} that were confirmed; that of "
            f"trial {confirmation.winner.trial} came first. It was not chosen."
        )
    elif num_configurations == 1:
        yield f"The configuration is the only one that was confirmed, {among}; {over} chose nothing."
    else:
        yield (
            f"The configuration was chosen by {over}, the {extreme} of {num_configurations} configurations that were "
            f"confirmed, {among}. A {'mean' if confirmation.num_seeds > 1 else 'score'} which was the {extreme} of "
            "several is itself a little lucky "
            "(docs/selection.md says by how much)."
        )
        if (best := confirmation.best_trial) is not confirmation.winner:
            place_of_best = confirmation.ranked.index(best) + 1
            yield (
                f"The best trial on val was trial {best.trial}, whose configuration came in place {place_of_best} "
                "with fresh seeds."
            )


def _fall(selection: Selection) -> Iterator[str]:
    """Where the winner's own val score is worse than that of the trial whose place it takes."""
    best = selection.confirmation.best_trial.found_by if selection.confirmation else None
    if best is None:
        return
    metric = metric_named(selection.metric)
    if metric.rank(selection.run.best(selection.metric)) > metric.rank(best.best(selection.metric)):
        own, taken = val_score(selection.run, selection.metric), val_score(best, selection.metric)
        worse = ("a little " if own == taken else "") + ("below" if metric.higher_is_better else "above")
        yield (
            f"Its own {selection.metric}, {own}, is {worse} that of trial "
            f"{best.trial}, {taken}, whose place it takes: that score was "
            f"the best of {selection.compared}{',' if selection.after else ''} and so partly luck."
        )


def _winner(selection: Selection) -> str:
    winner = f"run `{selection.winner_id}`"
    if (number := selection.trials.ranked.get(selection.winner_id)) is not None:
        return f"{winner}, trial {number}"
    if (confirmation := selection.confirmation) and (place := confirmation.place_of(selection.winner_id)):
        return f"{winner}, a fresh seed of trial {confirmation.ranked[place - 1].trial}'s configuration"
    return winner
