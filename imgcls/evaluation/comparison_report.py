"""The report of a comparison: what runs differ by on the same images, and their curves."""

from collections.abc import Iterator, Sequence

from imgcls.evaluation.compare import Comparison, Pair, Split
from imgcls.metrics import ACCURACY, LOSS
from imgcls.reporting import training_figures
from imgcls.reporting.cautions import cautions, warning
from imgcls.reporting.drawing import save_png
from imgcls.reporting.report import Headline, Link, Picture, Report, Section, markdown
from imgcls.reporting.rounding import UNDEFINED, ends, rounded, score_text, with_interval
from imgcls.reporting.tables import markdown_table
from imgcls.run_record import RunRecord
from imgcls.statistics.groups import TOO_FEW
from imgcls.statistics.intervals import NO_INTERVAL

SMALLEST_P = 1e-4
"""Least p-value that is shown as it is; a smaller one is shown as being below it."""


SIGNIFICANT = 0.05
"""Largest p-value at which two runs count as different."""


def comparison_report(comparison: Comparison, pictures: Sequence[Picture] = (), links: Sequence[Link] = ()) -> Report:
    """The comparison report: what to show as a page and as Markdown.

    Args:
        comparison: of two runs or more.
        pictures: as `comparison_pictures` gives them.
        links: to the runs.
    """
    runs, test = comparison.runs, comparison.test
    table = markdown_table(
        ("", "run", "name", "experiment", "kind", "epoch", "val selected its"),
        [_run_row(i, run, comparison) for i, run in enumerate(runs, 1)],
    )
    on_val = [*_split_blocks(comparison.val), _caution(comparison), *_cautions(runs)]
    sections = [
        Section("Runs", [table, *links]),
        Section(f"On val, {comparison.val.num_images} images", on_val),
        *([Section("Curves", [CURVES, *pictures])] if pictures else []),
        Section("On test" + (f", {test.num_images} images" if test else ""), _on_test(comparison)),
        Section("What differs in their configs", [_differences(comparison)]),
    ]
    return Report(f"Comparison of {len(runs)} runs", _headline(comparison.val), sections)


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison report as Markdown."""
    return markdown(*comparison_report(comparison))


def comparison_pictures(comparison: Comparison) -> list[Picture]:
    """The comparison report's figures: the curves of all runs, overlaid."""
    named = zip(comparison.runs, comparison.histories, strict=True)
    curves = {f"{i} {run.name}": history for i, (run, history) in enumerate(named, 1)}
    metric = ACCURACY if comparison.val.metric is LOSS else comparison.val.metric
    caption = f"{metric.words[0].upper()}{metric.words[1:]} and loss on val over the epochs"
    alt = f"{caption}, of {', '.join(f'run {name}' for name in curves)}."
    return [Picture(save_png(training_figures.overlaid_curves(curves, metric)), alt, f"{caption}.")]


CURVES = "Each run's curves over its epochs, on val. They show whether a run was still getting better when it ended."
"""What the comparison report says of its figure."""


def _headline(val: Split) -> Headline:
    """The two runs that are right most often on val, against each other."""
    best = sorted(sorted(val.num_right, key=lambda run: -val.num_right[run])[:2])
    pair = next(pair for pair in val.pairs if [pair.first, pair.second] == best)
    number = rounded(pair.difference, pair.interval or NO_INTERVAL)
    which = "The two best runs" if len(val.num_right) > 2 else "The runs"
    told = f" {which} {_verdict(pair, val)}." if pair.interval else ""
    meaning = f"accuracy of run {pair.first} minus that of run {pair.second}, on the same {val.num_images} val images."
    sign = "+" if pair.difference > 0 else ""
    return Headline(f"{sign}{number}", ends(pair.interval) if pair.interval else "", f"{meaning}{told}")


def _verdict(pair: Pair, split: Split) -> str:
    """Whether a pair differs, by the p-value that the table shows, which counts all pairs that were compared."""
    assert pair.interval is not None
    p_value = split.holm_p_values[split.pairs.index(pair)]
    shown = f"p is {_shown_p(p_value)}{' after Holm' if len(split.pairs) > 1 else ''}"
    includes = pair.interval.low <= 0 <= pair.interval.high
    interval = f"the interval of this pair {'includes' if includes else 'excludes'} 0"
    if p_value > SIGNIFICANT:
        return f"cannot be told apart by these images: {shown}, {'and' if includes else 'although'} {interval}"
    joined = "although" if includes else "and"
    return f"differ by more than the luck of these images explains: {shown}, {joined} {interval}"


def _on_test(comparison: Comparison) -> list[str]:
    blocks = []
    if comparison.test:
        blocks = [
            *_split_blocks(comparison.test),
            "If you choose a run by these numbers, test becomes a second val.",
            *_cautions(comparison.runs),
        ]
    return [*blocks, comparison.test_note] if comparison.test_note else blocks


def _differences(comparison: Comparison) -> str:
    header = [f"run {i}" for i, _ in enumerate(comparison.runs, 1)]
    rows = [(key, *values) for key, values in comparison.differences.items()]
    return markdown_table(("key", *header), rows) if rows else "Nothing."


def _run_row(number: int, run: RunRecord, comparison: Comparison) -> tuple[str, ...]:
    epoch, chosen = f"{run.best_epoch}", ", ".join(comparison.selected_by_val(run)) or UNDEFINED
    return f"run {number}", run.run_id, run.name, run.experiment, run.kind, epoch, chosen


def _split_blocks(split: Split) -> Iterator[str]:
    accuracies = [
        (f"run {i}", with_interval(right / split.num_images, split.intervals[i] or NO_INTERVAL), str(right))
        for i, right in split.num_right.items()
    ]
    yield markdown_table(("", "accuracy, 95% interval", "images right"), accuracies)
    if split.scores:
        scores = [
            (f"run {i}", score_text(value, interval, split.intervals[i] or NO_INTERVAL))
            for i, (value, interval) in split.scores.items()
        ]
        yield markdown_table(("", f"{split.metric.words}, which selected on val, 95% interval"), scores)
    header = ("pair", "difference, 95% interval", "both right", "first alone", "second alone", "neither", "McNemar p")
    rows = [_pair_row(pair) for pair in split.pairs]
    test = "McNemar's exact one" if split.num_groups is None else "Fisher's of the sign changes of whole groups (mid-p)"
    about = (
        "The difference is the accuracy of the first minus that of the second on the same images, with Newcombe's "
        f"interval for paired proportions; the test is {test}"
    )
    if split.num_groups is not None:
        yield _about_groups(split)
    if len(rows) == 1:
        yield markdown_table(header, rows)
        yield f"{about}."
        return
    corrected = [(*row, _shown_p(p)) for row, p in zip(rows, split.holm_p_values, strict=True)]
    yield markdown_table((*header, "after Holm"), corrected)
    yield f"{about}, corrected for {len(rows)} pairs by Holm's method in the last column."


def _about_groups(split: Split) -> str:
    said = "each interval counts groups, not images, as independent: a design effect (Rao and Scott 1992), Student's t"
    if None in split.intervals.values():
        said = f"no interval is given, because there are {TOO_FEW}"
    return f"The images come in {split.num_groups} groups: {said}."


def _pair_row(pair: Pair) -> tuple[str, ...]:
    return (
        f"run {pair.first} and run {pair.second}",
        with_interval(pair.difference, pair.interval or NO_INTERVAL),
        *map(str, (pair.both, pair.only_first, pair.only_second, pair.neither)),
        _shown_p(pair.p_value),
    )


def _caution(comparison: Comparison) -> str:
    numbered = enumerate(comparison.runs, 1)
    chosen = [(i, words) for i, run in numbered if (words := comparison.selected_by_val(run))]
    named = "; ".join(f"the {' and the '.join(words)} of run {i}" for i, words in chosen)
    selected = (
        f"These images also selected {named}: the intervals and the test take no account of that. " if named else ""
    )
    return f"{selected}Each run was trained once, so the luck of its seed is in the difference as well."


def _cautions(runs: Sequence[RunRecord]) -> Iterator[str]:
    for i, run in enumerate(runs, 1):
        if said := cautions(run.tags):
            yield from warning((f"run {i}:", *said))


def _shown_p(p_value: float) -> str:
    return f"below {SMALLEST_P:g}" if p_value < SMALLEST_P else f"{p_value:.2g}"
