"""The page on what a sweep searched: which values the best trials have, which keys mattered, and each key by itself."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from imgcls.evaluation.selection import were_wanted
from imgcls.metrics import Metric
from imgcls.record import Artifact
from imgcls.reporting import training_figures, value_figures
from imgcls.reporting.cautions import cautions, warned
from imgcls.reporting.drawing import save_png
from imgcls.reporting.report import Block, Headline, Link, Picture, Report, Section
from imgcls.reporting.run_scores import best_interval, val_number
from imgcls.reporting.tables import frame_table, markdown_table
from imgcls.reporting.value_figures import SearchedKey
from imgcls.run_record import RunRecord
from imgcls.search import space as spaces
from imgcls.search.importances import MIN_TRIALS
from imgcls.search.leaderboard import with_intervals
from imgcls.search.space import Space
from imgcls.statistics.intervals import NO_INTERVAL, Interval
from imgcls.text import counted, short

NUM_BEST, FEWEST_FOR_BEST = 5, 10
"""Number of best trials whose values are told, and of completed trials from which on they are."""

NEAR_AN_END, MANY_NEAR_AN_END = 0.1, 3
"""Share of a range that counts as near its end, and number of the best trials there from which the page says so. If
values were drawn evenly, that would happen by chance in 2 of 100 sweeps for each key."""

Importances = Mapping[str, tuple[float, Interval]]
"""Dotted key -> its share of the metric's variation, and the range of that in resamples; empty where unknown."""

NUM_ROWS = 50
"""Most trials of the table."""


@dataclass(frozen=True, eq=False)
class SearchFacts:
    """What the page on a search is made from.

    Attributes:
        sweep: its own record.
        best_trial: that val ranked first.
        board: a row a trial, best first, as `search.leaderboard` makes it.
        space: dotted key -> the values in which it was searched.
        importances: of the keys.
        metric: what ranks the trials.
        links: to the runs.
    """

    sweep: RunRecord
    best_trial: RunRecord
    board: pd.DataFrame
    space: Space
    importances: Importances
    metric: Metric
    links: Sequence[Link] = ()

    @cached_property
    def completed(self) -> pd.DataFrame:
        """The rows of the trials that were completed."""
        return self.board[self.board["outcome"] == "completed"]

    @property
    def num_best(self) -> int:
        """Number of best trials whose values are told beside those of the first."""
        return NUM_BEST if len(self.completed) >= FEWEST_FOR_BEST else 1

    @property
    def keys(self) -> list[str]:
        """The searched keys, the most important first where that is known, else in the order of the file."""
        return sorted(self.space, key=lambda key: -self.importances[key][0] if key in self.importances else 0.0)

    def key(self, name: str, board: pd.DataFrame) -> SearchedKey:
        """A key with the values of the trials of `board`."""
        values = board[name].tolist() if name in board else [None] * len(board)
        return SearchedKey(name, self.space[name], values)


def search_report(of: SearchFacts) -> Report:
    """The page on a search, as a report."""
    sections = [
        Section("Values of the best trials", [*_best_values(of), *of.links]),
        Section("Which keys mattered", list(_mattered(of))),
        Section("Each key by itself", list(_each_key(of))),
        Section("All keys at once", list(_together(of))),
        Section("Trials", list(_trials(of))),
    ]
    return Report(f"{of.sweep.study}: searched values", _headline(of), sections)


def _headline(of: SearchFacts) -> Headline:
    number, interval = val_number(of.best_trial, of.metric.on_val)
    what = f"{of.metric.words} on {counted(of.sweep.num_val, 'validation image')}"
    num = len(of.board)
    missing = f" ({note})" if (note := were_wanted(num, of.sweep.num_trials_wanted)) else ""
    if num == 1:
        meaning = f"{what}, of the only trial{missing}."
    else:
        meaning = (
            f"{what}, of trial {of.best_trial.trial}, the best of {counted(num, 'trial')}{missing}. "
            "The same images selected this trial, so the score is optimistic."
        )
    return Headline(number, interval, meaning, " ".join(cautions(of.sweep.tags)))


# --- the best ---


def _best_values(of: SearchFacts) -> Iterator[str]:
    rows, num = [], of.num_best
    for name in of.keys:
        best = of.key(name, of.completed[:num])
        row = (name, spaces.describe(of.space[name]), short(best.values[0]))
        rows.append((*row, _in_words(best)) if num > 1 else row)
    header = ("key", "searched", f"in trial {of.best_trial.trial}, the best", f"in the {num} best trials")
    yield markdown_table(header[: 4 if num > 1 else 3], rows)
    yield from filter(None, [_told_apart(of), *(_near_an_end(of.key(name, of.completed[:num])) for name in of.keys)])


def _in_words(key: SearchedKey) -> str:
    """What several trials drew of a key, such as `0.008 to 0.02`, or `14 (4 trials), 8 (1 trial)`."""
    if not key.choices:
        numbers = sorted(key.values)  # type: ignore[type-var]  # a range holds numbers
        return f"{short(numbers[0])} to {short(numbers[-1])}"
    return ", ".join(f"{short(value)} ({counted(num, 'trial')})" for value, num in Counter(key.values).most_common())


def _told_apart(of: SearchFacts) -> str:
    """How many trials are as good as the best one, as far as its interval tells."""
    interval, num = best_interval(of.best_trial, of.metric.on_val), len(of.completed)
    if interval is None or np.isnan(interval.low) or num == 1:
        return ""
    scores = of.completed[of.metric.on_val].astype(float)
    inside = int(scores.between(interval.low, interval.high).sum())
    if inside == 1:
        others = (
            "The other completed trial does not have"
            if num == 2
            else f"None of the other {num - 1:,} completed trials has"
        )
        words = f"{others} a {of.metric.on_val} in the 95% interval of the best."
    else:
        words = (
            f"{inside} of {num} completed trials, the best included, have a {of.metric.on_val} in the 95% interval of "
            "the best. These val images hardly tell them apart."
        )
    return warned(words, cautions(of.sweep.tags))


def _near_an_end(key: SearchedKey) -> str:
    """A hint that better values may lie outside of a range."""
    if key.choices:
        return ""
    for end, num, direction in (
        ("lower", int((key.shares <= NEAR_AN_END).sum()), "smaller"),
        ("upper", int((key.shares >= 1 - NEAR_AN_END).sum()), "larger"),
    ):
        if num >= MANY_NEAR_AN_END:
            return (
                f"`{key.name}` of {num} of the {len(key.values)} best trials lies near the {end} end of its range. If "
                f"{direction} values are possible, they may be better: widen the range."
            )
    return ""


# --- what mattered ---


def importance_words(importances: Importances, after: str) -> tuple[str, ...]:
    """Importances as a sentence and a table, the most important key first; nothing where there are none.

    Args:
        importances: of the keys.
        after: the epoch or fold after which the trials are compared, such as `epoch 3`; "" if they do not pause.
    """
    if not importances:
        return ()
    ordered = sorted(importances.items(), key=lambda item: -item[1][0])
    compared = f"The trials are compared by their scores up to {after}, which all of them have. " if after else ""
    return (
        f"{compared}How much of the metric's variation each key explains, as estimated from these trials alone, with "
        "the range of the estimate in nine of ten resamples of them:",
        markdown_table(
            ("key", "importance", "in 90% of resamples"),
            [(key, f"{share:.0%}", f"{range_.low:.0%} to {range_.high:.0%}") for key, (share, range_) in ordered],
        ),
    )


def _mattered(of: SearchFacts) -> Iterator[Block]:
    if not of.importances:
        if after := of.sweep.compared_after:
            yield f"This needs {MIN_TRIALS} trials that came to {after}, and fewer did. Raise search.trials."
        else:
            yield (
                f"This needs {MIN_TRIALS} completed trials, and {len(of.completed)} "
                f"{'was' if len(of.completed) == 1 else 'were'} completed."
            )
        return
    yield from importance_words(of.importances, of.sweep.compared_after)
    first, *others = (key for key in of.keys if key in of.importances)
    rivals = [key for key in others if of.importances[key][1].high >= of.importances[first][1].low]
    if rivals:
        yield (
            f"The range of `{first}` overlaps with that of {' and '.join(f'`{key}`' for key in rivals)}, so these "
            "trials do not settle which of them matters most."
        )
    figure = training_figures.importances(of.importances)
    yield Picture(save_png(figure), "Bars of the importances that the table above lists.")


# --- the keys ---


def _each_key(of: SearchFacts) -> Iterator[Block]:
    better = "Higher" if of.metric.higher_is_better else "Lower"
    yield f"Each point is a trial at its best epoch. {better} is better. A line across is the median of one value."
    scores, outcomes = of.board[of.metric.on_val].astype(float).tolist(), of.board["outcome"].tolist()
    interval = best_interval(of.best_trial, of.metric.on_val) or NO_INTERVAL
    for name in of.keys:
        key = of.key(name, of.board)
        figure = value_figures.values_of_key(key, scores, outcomes, of.metric, interval)
        yield Picture(save_png(figure, cut=False), f"{of.metric.on_val} of each trial against {name}. {_alt(of, name)}")


def _alt(of: SearchFacts, name: str) -> str:
    """What the figure of a key shows, for those who cannot see it."""
    key = of.key(name, of.completed)
    if not key.choices:
        best = of.key(name, of.completed[: of.num_best])
        trials = "the best trial" if of.num_best == 1 else f"the {of.num_best} best trials"
        return f"Values of {trials}: {_in_words(best)}."
    scores = of.completed[of.metric.on_val].astype(float).to_numpy()
    medians = [
        f"{np.median(here):.3g} at {short(choice)}"
        for place, choice in enumerate(key.choices)
        if len(here := scores[key.places == place])
    ]
    return f"Medians of the completed trials: {', '.join(medians)}."


def _together(of: SearchFacts) -> Iterator[Block]:
    num = min(of.num_best, len(of.completed))
    others = f"Blue are the other {num - 1} of the {num} best ones. " if num > 1 else ""
    yield (
        "Each line is a completed trial through its values, from the low end of each range to the high one. Orange is "
        f"the best trial. {others}Grey are all others."
    )
    keys = [of.key(name, of.completed) for name in of.keys]
    alt = f"A line for each of {counted(len(of.completed), 'completed trial')}, whose values the table below lists."
    yield Picture(save_png(value_figures.values_together(keys, of.num_best), cut=False), alt)


def _trials(of: SearchFacts) -> Iterator[Block]:
    numbers, outcomes = of.board["trial"].tolist(), of.board["outcome"].tolist()
    scores = of.board[of.metric.on_val].astype(float).tolist()
    figure = training_figures.search_history(numbers, scores, outcomes, of.metric)
    alt = f"{of.metric.on_val} of each of {counted(len(of.board), 'trial')}, in the order in which they ran."
    yield Picture(save_png(figure, cut=False), alt, "What each trial reached. The line is the best so far.")
    if len(of.board) > NUM_ROWS:
        yield f"The best {NUM_ROWS} of {len(of.board)} trials; `{Artifact.LEADERBOARD}` of the sweep lists all."
    yield frame_table(with_intervals(of.board[:NUM_ROWS], of.sweep.num_val))
    yield warned("Each score is that of the epoch which val selected.", cautions(of.sweep.tags))
