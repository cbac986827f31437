"""Reports in Markdown and tables for the shell: plain facts in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from imgcls.reporting.statistics import UNDEFINED, Interval, Scores, difference_interval, rounded, wilson

SCORE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
    "ece": "calibration error (ECE)",
    "loss": "loss (nats)",
}
"""Fields of `Scores` in the order of the report, with the words for them."""


@dataclass(frozen=True)
class EvaluationFacts:
    """What the report of one held-out evaluation says.

    Attributes:
        run_id: the run judged.
        evaluation_run_id: the run that holds this evaluation.
        experiment: its name.
        model: in words, such as `resnet, depth 18`.
        class_names: K names.
        num_train: images.
        num_val: images.
        num_test: images.
        look: the how-manieth opening of this test split, from 1.
        val: scores on val of the checkpoint judged.
        test: scores on test.
        best_epoch: the epoch whose weights were judged, from 1.
        per_class: on test, as `statistics.per_class` gives it.
        test_fingerprint: content hash of the test split.
    """

    run_id: str
    evaluation_run_id: str
    experiment: str
    model: str
    class_names: Sequence[str]
    num_train: int
    num_val: int
    num_test: int
    look: int
    val: Scores
    test: Scores
    best_epoch: int
    per_class: pd.DataFrame
    test_fingerprint: str


@dataclass(frozen=True)
class SweepFacts:
    """What the report of a sweep says.

    Attributes:
        name: of the study.
        run_id: the sweep's own run.
        num_trials: of every outcome.
        outcomes: outcome -> number of trials.
        metric: what was searched for, such as `val/accuracy`.
        leaderboard: a row per trial, best first; any columns.
        best_run_id: the winner; None where no trial completed.
        best_value: the winner's metric; None where no trial completed.
        searched: dotted key -> its range in words.
        evaluate_command: opens the test split for the winner.
        num_val: images behind the metric; where given, a `val/accuracy` of the winner has its interval.
    """

    name: str
    run_id: str
    num_trials: int
    outcomes: Mapping[str, int]
    metric: str
    leaderboard: pd.DataFrame
    best_run_id: str | None
    best_value: float | None
    searched: Mapping[str, str]
    evaluate_command: str
    num_val: int | None = None


def evaluation_markdown(facts: EvaluationFacts) -> str:
    """The report of one held-out evaluation.

    Scores carry no more digits than the accuracy's 95% Wilson interval on the same images supports; those of a class,
    no more than its recall's.
    """
    return _document(
        f"# {_escaped(facts.experiment)}: held-out evaluation",
        f"Run `{facts.run_id}` ({_escaped(facts.model)}) judged on {facts.num_test} test images. {_look(facts.look)}",
        "## Scores",
        _score_table(facts),
        _gap(facts),
        "## Classes, on test",
        _class_table(facts.per_class),
        "## Settings",
        markdown_table(("setting", "value"), _evaluation_settings(facts)),
        "## How to repeat it",
        "From the root of the repository. Judging again opens the test split again, which counts as a further look:",
        _shell(f"python evaluate.py --run-id {facts.run_id}"),
        "The run judged left its whole configuration, which feeds a new run as it is:",
        _shell(_fetch_config(facts.run_id)),
    )


def sweep_markdown(facts: SweepFacts) -> str:
    """The report of a sweep; every score in it is of validation."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in facts.outcomes.items() if count)
    return _document(
        f"# {_escaped(facts.name)}: sweep",
        f"Run `{facts.run_id}` searched for the best `{facts.metric}` in {facts.num_trials} trials"
        f"{f' ({_escaped(outcomes)})' if outcomes else ''}. They were compared on val alone.",
        "## Winner",
        *_winner(facts),
        "## Leaderboard",
        _frame_table(facts.leaderboard) if len(facts.leaderboard) else "No trial has a score.",
        "## Searched",
        markdown_table(("key", "range"), facts.searched.items()) if facts.searched else "No key was searched.",
        "## How to repeat it",
        "The sweep left its whole configuration, which feeds a new sweep as it is:",
        _shell(_fetch_config(facts.run_id)),
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; whatever would be read as markup in a cell is escaped.

    Args:
        header: C titles.
        rows: of C cells each.
    """
    body = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in (header, *rows)]
    return "\n".join((body[0], f"|{' --- |' * len(header)}", *body[1:]))


def terminal_table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns for the shell, without a line break at the end.

    Args:
        rows: (name, value); further lines of a value are indented to its column.
    """
    width = max((len(name) for name, _ in rows), default=0)
    line_break = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value}".rstrip().replace("\n", line_break) for name, value in rows)


def _document(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


def _look(look: int) -> str:
    if look == 1:
        return "Look 1: this test split had never been opened before."
    earlier = "once" if look == 2 else f"{look - 1} times"
    return (
        f"Look {look}: this test split had been opened {earlier} before. What was chosen after seeing its earlier "
        "scores makes these look better than they are."
    )


def _score_table(facts: EvaluationFacts) -> str:
    def cells(scores: Scores, field: str) -> tuple[str, str]:
        interval = scores.accuracy_interval
        shown = rounded(getattr(scores, field), interval)
        return shown, _shown_interval(interval) if field == "accuracy" else UNDEFINED

    return markdown_table(
        ("score", "test", "95% interval", "val", "95% interval"),
        [(words, *cells(facts.test, field), *cells(facts.val, field)) for field, words in SCORE_NAMES.items()],
    )


def _gap(facts: EvaluationFacts) -> str:
    val, test = facts.val, facts.test
    interval = difference_interval(val.accuracy, val.accuracy_interval, test.accuracy, test.accuracy_interval)
    return (
        f"`val_test_gap`, accuracy on val minus accuracy on test: {rounded(val.accuracy - test.accuracy, interval)} "
        f"({_shown_interval(interval)}, Newcombe's 95% interval). Val selected the run, so some gap is to be expected."
    )


def _class_table(per_class: pd.DataFrame) -> str:
    columns = per_class[["class", "precision", "recall", "f1", "num_images"]]
    return markdown_table(
        ("class", "precision", "recall", "95% interval", "F1", "images"),
        [_class_row(*row) for row in columns.itertuples(index=False, name=None)],
    )


def _class_row(name: str, precision: float, recall: float, f1: float, num_images: int) -> tuple[str, ...]:
    if not num_images:
        return name, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, "0"
    interval = wilson(round(recall * num_images), num_images)
    shown = rounded(precision, interval), rounded(recall, interval), _shown_interval(interval), rounded(f1, interval)
    return name, *shown, str(num_images)


def _evaluation_settings(facts: EvaluationFacts) -> list[tuple[str, str]]:
    return [
        ("experiment", facts.experiment),
        ("model", facts.model),
        ("epoch judged", str(facts.best_epoch)),
        ("classes", str(len(facts.class_names))),
        ("images", f"{facts.num_train} train, {facts.num_val} val, {facts.num_test} test"),
        ("test fingerprint", facts.test_fingerprint),
        ("look at the test split", str(facts.look)),
        ("run judged", facts.run_id),
        ("evaluation run", facts.evaluation_run_id),
    ]


def _winner(facts: SweepFacts) -> tuple[str, ...]:
    if facts.best_run_id is None or facts.best_value is None:
        return ("No trial completed, so there is no winner.",)
    return (
        f"Run `{facts.best_run_id}` with `{facts.metric}` {_best(facts.best_value, facts)}. The best of several trials "
        "is partly the luckiest: expect less of it on test. This opens the test split for it:",
        _shell(facts.evaluate_command),
    )


def _best(value: float, facts: SweepFacts) -> str:
    if facts.num_val is None or facts.metric != "val/accuracy":
        return _shown(value)
    interval = wilson(round(value * facts.num_val), facts.num_val)
    return f"{rounded(value, interval)} (95% interval {_shown_interval(interval)}, {facts.num_val} images)"


def _frame_table(frame: pd.DataFrame) -> str:
    rows = frame.astype(object).itertuples(index=False, name=None)
    return markdown_table([str(column) for column in frame.columns], [[_shown(cell) for cell in row] for row in rows])


def _shown(value: object) -> str:
    if value is None or value is pd.NA or value != value:  # NaN alone differs from itself
        return UNDEFINED
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown_interval(interval: Interval) -> str:
    return f"{rounded(interval.low, interval)} to {rounded(interval.high, interval)}"


def _fetch_config(run_id: str) -> str:
    return f"mlflow artifacts download --run-id {run_id} --artifact-path config.toml --dst-path ."


def _shell(command: str) -> str:
    return f"```sh\n{command}\n```"


def _escaped(text: str) -> str:
    """One line in which Markdown finds no markup; underscores within a word are none."""
    line = " ".join(text.split())
    return re.sub(r"[\\`*<>\[\]|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", line)
