"""Reports in Markdown and tables for the shell: plain facts in, text out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from imgcls.reporting.cautions import cautions
from imgcls.reporting.statistics import (
    UNDEFINED,
    Interval,
    Scores,
    accuracy_interval,
    difference_interval,
    ends,
    rounded,
    wilson,
    with_interval,
)
from imgcls.tracking.record import RunRecord

SCORE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
    "ece": "calibration error (ECE)",
    "loss": "loss (nats)",
}
"""Fields of `Scores` in the order of the report, with the words for them."""


ABSENT_CLASSES = (
    "The macro-F1 is the mean of the column F1. As in scikit-learn with zero_division=0, a share with nothing to "
    "divide by counts 0, and a class that is neither present nor predicted is left out (–)."
)
"""What the class table says of a class without images or without predictions."""


@dataclass(frozen=True)
class Selection:
    """How the run judged came to be chosen; None where unknown.

    Attributes:
        metric: what val selected by, such as `val/accuracy`; "" where unknown.
        fixed_epoch: whether the epoch was fixed before the run began, so that val did not choose it.
        num_trials: that val chose among.
        best_trial_value: the metric of the best trial.
        confirmed_mean: mean of the metric over fresh seeds of the best trial's configuration.
        confirmed_std: its sample standard deviation.
        num_seeds: fresh seeds behind the mean.
        confirmed_interval: of the mean, as `statistics.mean_interval` gives it.
    """

    metric: str = ""
    fixed_epoch: bool = False
    num_trials: int | None = None
    best_trial_value: float | None = None
    confirmed_mean: float | None = None
    confirmed_std: float | None = None
    num_seeds: int | None = None
    confirmed_interval: Interval | None = None

    @property
    def optimism(self) -> float | None:
        """The best trial's val score minus the confirmed mean; of a loss, below 0 where the best one was lucky."""
        if self.best_trial_value is None or self.confirmed_mean is None:
            return None
        return self.best_trial_value - self.confirmed_mean

    @property
    def chosen(self) -> str:
        """What val selected, in words; "" for nothing."""
        parts = [] if self.fixed_epoch else ["the epoch"]
        if self.num_trials is not None and self.num_trials > 1:
            parts.append(f"the best of {self.num_trials} trials")
        return " and ".join(parts)


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
        val_intervals: field of `Scores` -> its 95% interval on val; the accuracy's is there without.
        test_intervals: the same on test.
        selection: how the run came to be chosen.
        image_size: side of the images in pixels.
        training: optimiser and schedule in words that may follow "trained with"; "" where unknown.
        cautions: sentences that stand beside every score, as `cautions.cautions` gives them.
        again_command: opens the test split once more for this run; "" for the plain one.
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
    val_intervals: Mapping[str, Interval] = field(default_factory=dict)
    test_intervals: Mapping[str, Interval] = field(default_factory=dict)
    selection: Selection = Selection()
    image_size: int | None = None
    training: str = ""
    cautions: tuple[str, ...] = ()
    again_command: str = ""


@dataclass(frozen=True)
class Confirmed:
    """One configuration of a sweep, trained again with fresh seeds.

    Attributes:
        trial: number of the trial that found it.
        epoch: at which each of these runs was scored, fixed before they began.
        mean: of the sweep's metric over the seeds.
        std: its sample standard deviation; NaN for a single seed.
        num_seeds: at least 1.
        interval: of the mean, as `statistics.mean_interval` gives it; None for a single seed.
        difference: mean, paired by seed, of this configuration's metric minus the best one's; None for the best.
        difference_interval: of `difference`, likewise.
    """

    trial: int
    epoch: int
    mean: float
    std: float
    num_seeds: int
    interval: Interval | None
    difference: float | None = None
    difference_interval: Interval | None = None


@dataclass(frozen=True)
class SweepFacts:
    """What the report of a sweep says.

    Attributes:
        name: of the study.
        run_id: the sweep's own run.
        num_trials: of every outcome.
        outcomes: outcome -> number of trials.
        metric: what was searched for, such as `val/accuracy`.
        leaderboard: a row per trial, best first; any columns. With `num_val`, `val/accuracy` has intervals.
        best_run_id: the winner; None where no trial completed.
        best_value: the winner's metric; None where no trial completed.
        searched: dotted key -> its range in words.
        evaluate_command: opens the test split for the winner.
        num_val: images behind the metric.
        importances: dotted key -> its share of the metric's variation, in [0, 1]; empty where unknown.
        confirmation: the best configurations with fresh seeds, best first.
        optimism: the best trial's metric minus the confirmed mean of its configuration.
        cautions: sentences that stand beside every score, as `cautions.cautions` gives them.
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
    importances: Mapping[str, float] = field(default_factory=dict)
    confirmation: Sequence[Confirmed] = ()
    optimism: float | None = None
    cautions: tuple[str, ...] = ()


def evaluation_markdown(facts: EvaluationFacts) -> str:
    """The report of one held-out evaluation.

    A score carries no more digits than its 95% interval supports, one without an interval no more than the accuracy's
    on the same images; those of a class, no more than its recall's.
    """
    return _document(
        f"# {_escaped(facts.experiment)}: held-out evaluation",
        f"Run `{facts.run_id}` ({_escaped(facts.model)}) judged on {facts.num_test} test images. {_look(facts.look)}",
        "## Scores",
        _score_table(facts),
        "Intervals are Wilson's for the accuracy and from a stratified bootstrap for the other scores; the calibration "
        "error has none.",
        *warning(facts.cautions),
        "## From val to test",
        markdown_table(("step", "value"), _steps(facts)),
        _gap(facts),
        *warning(facts.cautions),
        "## For a methods section",
        _evaluation_methods(facts),
        "## Classes, on test",
        _class_table(facts.per_class),
        ABSENT_CLASSES,
        *warning(facts.cautions),
        "## Settings",
        markdown_table(("setting", "value"), _evaluation_settings(facts)),
        "## How to repeat it",
        "From the root of the repository. Judging again opens the test split again, which counts as a further look:",
        _shell(facts.again_command or f"python evaluate.py --run-id {facts.run_id}"),
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
        *_confirmation(facts),
        "## Leaderboard",
        *_leaderboard(facts),
        "## Searched",
        markdown_table(("key", "range"), facts.searched.items()) if facts.searched else "No key was searched.",
        *_importances(facts.importances),
        *_sweep_methods(facts),
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


def score_of(record: RunRecord) -> str:
    """A run's accuracy for people: on test where it was judged there, else on val; empty where it has none.

    With its 95% interval, and with the run's cautions.
    """
    metrics = record.metrics
    if "test/accuracy" in metrics:
        test = Scores.from_metrics(metrics, "test")
        score = f"test/accuracy {with_interval(test.accuracy, test.accuracy_interval)}"
    elif "best/val/accuracy" in metrics and "imgcls.num_val" in record.tags:
        accuracy = metrics["best/val/accuracy"]
        interval = accuracy_interval(accuracy, int(record.tags["imgcls.num_val"]))
        score = f"val/accuracy {with_interval(accuracy, interval)}"
    else:
        return ""
    said = cautions(record.tags)
    return f"{score}. {' '.join(said)}" if said else score


def warning(sentences: Sequence[str]) -> tuple[str, ...]:
    """The paragraph of cautions that stands beside a score, or none where there are no sentences."""
    return (f"**Warning:** {_escaped(' '.join(sentences))}",) if sentences else ()


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


def _warned(paragraph: str, sentences: Sequence[str]) -> str:
    return " ".join((paragraph, *warning(sentences)))


def _score_table(facts: EvaluationFacts) -> str:
    def cells(scores: Scores, name: str, intervals: Mapping[str, Interval]) -> tuple[str, str]:
        own = {"accuracy": scores.accuracy_interval, **intervals}.get(name)
        shown = rounded(getattr(scores, name), own or scores.accuracy_interval)
        return shown, UNDEFINED if own is None else ends(own)

    def row(name: str, words: str) -> tuple[str, ...]:
        val, val_interval = cells(facts.val, name, facts.val_intervals)
        chosen = facts.selection.chosen if facts.selection.metric == f"val/{name}" else ""
        note = f"; this score selected {chosen}" if chosen else ""
        return words, *cells(facts.test, name, facts.test_intervals), val, val_interval + note

    return markdown_table(
        ("score", "test", "95% interval", "val", "95% interval"), [row(*item) for item in SCORE_NAMES.items()]
    )


def _steps(facts: EvaluationFacts) -> list[tuple[str, str]]:
    """From the score that selected to the score that counts."""
    selection = facts.selection
    confirmed = _confirmed_words(facts)
    gap = facts.val.accuracy - facts.test.accuracy
    return [
        (f"selected by {selection.metric or 'val'}", _selecting_score(facts)),
        ("confirmed mean", confirmed or UNDEFINED),
        ("optimism, the first minus the second", _shown_score(selection.optimism, None, _confirmed_digits(facts))),
        ("test accuracy", with_interval(facts.test.accuracy, facts.test.accuracy_interval)),
        ("val_test_gap, accuracy on val minus on test", with_interval(gap, _gap_interval(facts))),
        ("trials", UNDEFINED if selection.num_trials is None else str(selection.num_trials)),
        ("looks at the test split", str(facts.look)),
    ]


def _selecting_score(facts: EvaluationFacts) -> str:
    selection, name = facts.selection, facts.selection.metric.removeprefix("val/")
    if name not in SCORE_NAMES:
        return UNDEFINED
    own = getattr(facts.val, name)
    value = own if selection.best_trial_value is None else selection.best_trial_value
    interval = facts.val_intervals.get(name) if value == own else None
    if name == "accuracy":
        interval = accuracy_interval(value, facts.num_val)
    shown = _shown_score(value, interval, _val_interval(facts))
    return f"{shown}; this score selected {selection.chosen}" if selection.chosen else shown


def _confirmed_words(facts: EvaluationFacts) -> str:
    selection = facts.selection
    if selection.confirmed_mean is None:
        return ""
    digits = _confirmed_digits(facts)
    words = [_shown_score(selection.confirmed_mean, selection.confirmed_interval, digits)]
    if selection.confirmed_std is not None:
        words.append(f"standard deviation {rounded(selection.confirmed_std, digits)}")
    if selection.num_seeds is not None:
        words.append(_counted(selection.num_seeds, "fresh seed"))
    return ", ".join(words)


def _confirmed_digits(facts: EvaluationFacts) -> Interval:
    return facts.selection.confirmed_interval or _val_interval(facts)


def _val_interval(facts: EvaluationFacts) -> Interval:
    """Of the metric that selected, or the one to borrow for it."""
    return facts.val_intervals.get(facts.selection.metric.removeprefix("val/"), facts.val.accuracy_interval)


def _gap_interval(facts: EvaluationFacts) -> Interval:
    val, test = facts.val, facts.test
    return difference_interval(val.accuracy, val.accuracy_interval, test.accuracy, test.accuracy_interval)


def _gap(facts: EvaluationFacts) -> str:
    interval = _gap_interval(facts)
    chosen = facts.selection.chosen
    expected = f" Val selected {chosen}, so some gap is to be expected." if chosen else ""
    return (
        f"`val_test_gap`, accuracy on val minus accuracy on test: "
        f"{rounded(facts.val.accuracy - facts.test.accuracy, interval)} "
        f"({ends(interval)}, Newcombe's 95% interval).{expected}"
    )


def _evaluation_methods(facts: EvaluationFacts) -> str:
    """One paragraph that reads without the rest of the report."""
    size = f" of {facts.image_size} x {facts.image_size} pixels" if facts.image_size else ""
    recipe = f" with {_escaped(facts.training)}" if facts.training else ""
    sentences = [
        f"The model ({_escaped(facts.model)}) was trained{recipe} on {facts.num_train} images{size} in "
        f"{len(facts.class_names)} classes; {facts.num_val} further images served for validation.",
        *_how_selected(facts),
        f"The test split of {facts.num_test} images was opened {_nth_time(facts.look)} for this evaluation.",
        f"Test accuracy was {_stated('accuracy', facts.test, facts.test.accuracy_interval)}{_other_scores(facts)}",
    ]
    return _warned(" ".join(sentences), facts.cautions)


def _how_selected(facts: EvaluationFacts) -> list[str]:
    selection = facts.selection
    by = f" by {selection.metric.removeprefix('val/')}" if selection.metric else ""
    epoch = f"epoch {facts.best_epoch}"
    sentences = [
        f"The weights are those of {epoch}, which was fixed before training."
        if selection.fixed_epoch
        else f"The weights are those of {epoch}, the best one on validation{by}."
    ]
    if selection.num_trials is not None and selection.num_trials > 1:
        sentences.append(f"The configuration was the best of {selection.num_trials} trials on validation{by}.")
    optimistic = "; measured on the images that selected, it is optimistic" if selection.chosen else ""
    accuracy = _stated("accuracy", facts.val, facts.val.accuracy_interval)
    sentences.append(f"Validation accuracy was {accuracy}{optimistic}.")
    if confirmed := _confirmed_words(facts):
        name = selection.metric.removeprefix("val/") or "score"
        sentences.append(f"The configuration trained again had a mean validation {name} of {confirmed}.")
    return sentences


def _other_scores(facts: EvaluationFacts) -> str:
    stated = [
        f", {words} {_stated(name, facts.test, interval)}"
        for name, words in SCORE_NAMES.items()
        if name != "accuracy" and (interval := facts.test_intervals.get(name)) is not None
    ]
    method = " The intervals of all but the accuracy are from a stratified bootstrap." if stated else ""
    return f"{''.join(stated)}.{method}"


def _stated(name: str, scores: Scores, interval: Interval) -> str:
    value = rounded(getattr(scores, name), interval)
    return f"{value} (95% {'Wilson ' if name == 'accuracy' else ''}interval {ends(interval)})"


def _nth_time(look: int) -> str:
    return "for the first time" if look == 1 else f"for time number {look}"


def _class_table(per_class: pd.DataFrame) -> str:
    columns = per_class[["class", "precision", "recall", "f1", "num_images"]]
    return markdown_table(
        ("class", "precision", "recall", "95% interval", "F1", "images"),
        [_class_row(*row) for row in columns.itertuples(index=False, name=None)],
    )


def _class_row(name: str, precision: float, recall: float, f1: float, num_images: int) -> tuple[str, ...]:
    if math.isnan(f1):
        return name, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, "0"
    if not num_images:  # every image predicted as this class is another's
        return name, "0", UNDEFINED, UNDEFINED, "0", "0"
    interval = wilson(round(recall * num_images), num_images)
    shown = rounded(precision, interval), rounded(recall, interval), ends(interval), rounded(f1, interval)
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
    won = (
        f"Run `{facts.best_run_id}` with `{facts.metric}` {_best(facts.best_value, facts)}. This score selected the "
        "run and its epoch: the best of several trials is partly the luckiest, so expect less of it on test."
    )
    return _warned(won, facts.cautions), "This opens the test split for it:", _shell(facts.evaluate_command)


def _best(value: float, facts: SweepFacts) -> str:
    if facts.metric == "val/accuracy" and (interval := _accuracy_interval(value, facts.num_val)) is not None:
        return f"{rounded(value, interval)} (95% interval {ends(interval)}, {facts.num_val} images)"
    accuracies = facts.leaderboard.get("val/accuracy", pd.Series())
    borrowed = _accuracy_interval(accuracies.iloc[0], facts.num_val) if len(accuracies) else None
    return _shown(value) if borrowed is None else rounded(value, borrowed)


def _accuracy_interval(accuracy: float | None, num_images: int | None) -> Interval | None:
    """Wilson's, or None where it is unknown or NaN."""
    if accuracy is None or num_images is None or math.isnan(accuracy):
        return None
    return accuracy_interval(accuracy, num_images)


def _confirmation(facts: SweepFacts) -> tuple[str, ...]:
    if not facts.confirmation:
        return ()
    header = ("trial", "epoch", "seeds", facts.metric, "95% interval", "std", "minus the best", "95% interval")
    return (
        "## Confirmation with fresh seeds",
        markdown_table(header, [_confirmed_row(row, facts) for row in facts.confirmation]),
        "Each epoch was fixed beforehand by the trial that found the configuration, since choosing it again in each "
        "run would bias these scores upwards. Intervals are of the mean over seeds; differences are paired by seed.",
        *_optimism(facts),
        _warned(
            "Fresh seeds do not remove the luck of the val images, which selected these configurations.", facts.cautions
        ),
    )


def _optimism(facts: SweepFacts) -> tuple[str, ...]:
    if facts.optimism is None:
        return ()
    best_trial = next(row for row in facts.confirmation if row.trial == facts.leaderboard.iloc[0]["trial"])
    value = rounded(facts.optimism, best_trial.interval or Interval(best_trial.mean, best_trial.mean))
    return (
        f"Optimism {value}: the {facts.metric} of the best trial, {best_trial.trial}, minus its configuration's "
        "confirmed mean.",
    )


def _confirmed_row(row: Confirmed, facts: SweepFacts) -> tuple[str, ...]:
    digits = row.interval or _accuracy_interval(row.mean if facts.metric == "val/accuracy" else None, facts.num_val)

    def cells(value: float | None, interval: Interval | None) -> tuple[str, str]:
        shown = _shown(value) if value is None or digits is None else rounded(value, interval or digits)
        return shown, UNDEFINED if interval is None else ends(interval)

    std, _ = cells(row.std, None)
    mean, difference = cells(row.mean, row.interval), cells(row.difference, row.difference_interval)
    return str(row.trial), str(row.epoch), str(row.num_seeds), *mean, std, *difference


def with_intervals(leaderboard: pd.DataFrame, num_val: int) -> pd.DataFrame:
    """A leaderboard for people: accuracies with their intervals, losses with as many digits.

    Args:
        leaderboard: a row a trial, any columns.
        num_val: images behind its scores.
    """
    if "val/accuracy" not in leaderboard:
        return leaderboard
    intervals = [_accuracy_interval(accuracy, num_val) for accuracy in leaderboard["val/accuracy"]]
    shown = leaderboard.astype(object)
    for column, show in (("val/accuracy", with_interval), ("val/loss", rounded)):
        if column in shown:
            pairs = zip(leaderboard[column], intervals, strict=True)
            shown[column] = [_shown(value) if interval is None else show(value, interval) for value, interval in pairs]
    return shown


def _leaderboard(facts: SweepFacts) -> tuple[str, ...]:
    board = facts.leaderboard
    if board.empty:
        return ("No trial has a score.",)
    if facts.num_val is None or "val/accuracy" not in board:
        return _frame_table(board), *warning(facts.cautions)
    note = (
        f"Accuracies with Wilson's 95% interval over {facts.num_val} val images. Each score is that of the epoch which "
        "val selected, and it selected the first row too."
    )
    return _frame_table(with_intervals(board, facts.num_val)), _warned(note, facts.cautions)


def _importances(importances: Mapping[str, float]) -> tuple[str, ...]:
    if not importances:
        return ()
    ordered = sorted(importances.items(), key=lambda item: -item[1])
    return (
        "How much of the metric's variation each key explains, as estimated from these trials alone:",
        markdown_table(("key", "importance"), [(key, f"{share:.0%}") for key, share in ordered]),
    )


def _sweep_methods(facts: SweepFacts) -> tuple[str, ...]:
    """One paragraph that reads without the rest of the report."""
    if facts.best_run_id is None or facts.best_value is None:
        return ()
    images = f" on {facts.num_val} validation images" if facts.num_val is not None else ""
    ranges = "; ".join(f"{key}: {words}" for key, words in facts.searched.items())
    paragraph = (
        f"The configuration was chosen by {facts.metric.removeprefix('val/')}{images} among "
        f"{_counted(facts.num_trials, 'trial')}{f' ({_escaped(ranges)})' if ranges else ''}, each at its best epoch. "
        f"The best trial reached {_best(facts.best_value, facts)}; measured on the images that selected, it is "
        "optimistic. The test split was not opened."
    )
    return "## For a methods section", _warned(paragraph, facts.cautions)


def _frame_table(frame: pd.DataFrame) -> str:
    rows = frame.astype(object).itertuples(index=False, name=None)
    return markdown_table([str(column) for column in frame.columns], [[_shown(cell) for cell in row] for row in rows])


def _shown_score(value: float | None, interval: Interval | None, borrowed: Interval) -> str:
    if value is None:
        return UNDEFINED
    return rounded(value, borrowed) if interval is None else with_interval(value, interval)


def _shown(value: object) -> str:
    if value is None or value is pd.NA or value != value:  # NaN alone differs from itself
        return UNDEFINED
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _fetch_config(run_id: str) -> str:
    return f"mlflow artifacts download --run-id {run_id} --artifact-path config.toml --dst-path ."


def _shell(command: str) -> str:
    return f"```sh\n{command}\n```"


def _escaped(text: str) -> str:
    """One line in which Markdown finds no markup; underscores within a word are none."""
    line = " ".join(text.split())
    return re.sub(r"[\\`*<>\[\]|]|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", line)
