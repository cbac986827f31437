"""Results of the library's calls: the run that each left, its scores under the record's names, and a text to read."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imgcls.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Result:
    """A result of the library: what a call gave. It can stand for its run in a further call.

    Attributes:
        scores: the record's names -> values, as the verb's `--json` prints them: shares in [0, 1], losses in nats.
            docs/record.md explains each name.
        cautions: whole sentences that belong beside every score, such as that splits leak; mostly none.
        text: what the verb prints, in short. It is also what a notebook shows.
        root: folder of the project in whose record the run is.
    """

    scores: Mapping[str, object]
    cautions: tuple[str, ...]
    text: str
    root: Path

    @property
    def run_to_use(self) -> str:
        """Id of the run for which this result stands in a further call."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join((self.text, *(f"Caution: {sentence}" for sentence in self.cautions)))

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


@dataclass(frozen=True, repr=False)
class TrainResult(Result):
    """The result of `train`.

    Attributes:
        run_id: of the run.
        best_epoch: the epoch whose weights are kept, from 1.
    """

    run_id: str
    best_epoch: int

    @property
    def run_to_use(self) -> str:
        """Id of the run."""
        return self.run_id


@dataclass(frozen=True, repr=False)
class SweepResult(Result):
    """The result of `sweep`, which stands for its winner in a further call.

    Attributes:
        run_id: of the sweep.
        best_run_id: of the winner.
        leaderboard: a row for each trial, the best first: its number, outcome, scores, values and run_id.
    """

    run_id: str
    best_run_id: str
    leaderboard: pd.DataFrame = field(compare=False)

    @property
    def run_to_use(self) -> str:
        """Id of the winner."""
        return self.best_run_id


@dataclass(frozen=True, repr=False)
class EvaluateResult(Result):
    """The result of `evaluate`, which stands for the run that was judged in a further call.

    Attributes:
        run_id: of the evaluation, a run of its own below the one that it judges.
        judged_run_id: of the run that was judged.
        look: ordinal of this opening of the test split, from 1.
        is_recorded: whether these are the scores of an earlier evaluation, for which no split was opened again.
        report: the whole report, as Markdown.
    """

    run_id: str
    judged_run_id: str
    look: int
    is_recorded: bool
    report: str

    @property
    def run_to_use(self) -> str:
        """Id of the run that was judged."""
        return self.judged_run_id


@dataclass(frozen=True, repr=False)
class CompareResult:
    """The result of `compare`.

    Attributes:
        run_ids: of the runs, in the order asked for; a sweep's winner stands for it.
        scores: names as `imgcls compare --json` prints them -> values; `_1`, `_2` and so on are the runs.
        report: the comparison as Markdown, which a notebook shows.
    """

    run_ids: tuple[str, ...]
    scores: Mapping[str, object]
    report: str

    def __repr__(self) -> str:
        return self.report

    def _repr_markdown_(self) -> str:
        return self.report


Run = str | TrainResult | SweepResult | EvaluateResult
"""What names a run: its id, six characters of its beginning or more, `last`, `best`, or a result."""


def place_of(run: Run) -> tuple[str, Path | None]:
    """The id, or whatever else names a run, and the root of its project where the result of a call tells it.

    Raises:
        InputError: neither text nor the result of a call.
    """
    if isinstance(run, str):
        return run, None
    if not isinstance(run, Result):
        raise InputError(
            f"{run!r} names no run; give its id or the first six characters of it, `last`, `best`, or the result of a "
            "call of imgcls"
        )
    return run.run_to_use, run.root
