"""The report of a held-out evaluation, from the records of the evaluation, of the run judged and of its sweep."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from imgcls.evaluation.confirmation import mean_words, optimism_words
from imgcls.evaluation.selection import Selection, story, were_wanted
from imgcls.metrics import ACCURACY, CALIBRATED, METRICS, Metric, Scores, metric_named
from imgcls.record import Artifact, MetricName, Tag
from imgcls.reporting.cautions import cautions, warned, warning
from imgcls.reporting.class_table import ABSENT_CLASSES, class_table
from imgcls.reporting.methods_section import commit_words, device_words, methods, model_words, split_words
from imgcls.reporting.report import Headline, Link, Picture, Report, Section
from imgcls.reporting.rounding import UNDEFINED, ends, rounded, score_text, with_interval
from imgcls.reporting.run_scores import val_score
from imgcls.reporting.tables import escaped, markdown_table, shell
from imgcls.reporting.where_to_look import fetch_config
from imgcls.run_record import RunRecord
from imgcls.statistics.groups import about_groups
from imgcls.statistics.intervals import Interval, difference_interval
from imgcls.statistics.temperature import LEAST_GAIN

NEWCOMBE, MOVER = "Newcombe's 95% interval", "95% interval joined from that on val and that on test"
"""How the interval of the gap is made: of an accuracy, and by the same method of other scores."""

NO_INTERVAL_OF_ECE = "The calibration error has no interval, since it is biased upwards."

SCORE_TITLES = ["score", "test", "95% interval", "val", "95% interval on val"]


def evaluation_report(
    evaluation: RunRecord,
    selection: Selection,
    classes: pd.DataFrame,
    intervals: Mapping[str, Scores] = MappingProxyType({}),
    pictures: Mapping[str, Picture] = MappingProxyType({}),
    links: Sequence[Link] = (),
) -> Report:
    """The evaluation report: what to show as a page and as Markdown.

    A score carries no more digits than its 95% interval supports, one without an interval no more than the accuracy's
    on the same images; those of a class, no more than its recall's.

    Args:
        evaluation: whose scores are recorded already.
        selection: of the run judged.
        classes: on test, as `statistics.per_class` gives it.
        intervals: of each split, which say why a score has none and what was done about groups.
        pictures: artifact's name -> figure, of test.
        links: to the runs.
    """
    judged, said = selection.run, cautions(evaluation.tags)
    num_test, command = evaluation.num_test, f"imgcls evaluate {judged.run_id} --again"
    opening = (
        f"Run `{judged.run_id}` ({escaped(model_words(judged))}) judged on {num_test} test images. "
        f"{look_words(evaluation)}"
    )

    def shown(*names: str) -> list[Picture]:
        return [pictures[name] for name in names if name in pictures]

    sections = [
        Section(
            "Scores",
            [
                opening,
                *links,
                _score_table(evaluation, selection),
                *filter(None, [temperature_words(evaluation, judged)]),
                *shown(Artifact.RELIABILITY),
                about_intervals(intervals),
                *warning(said),
            ],
        ),
        Section(
            "Classes, on test",
            [*shown(Artifact.CONFUSION_MATRIX), class_table(classes), ABSENT_CLASSES, *warning(said)],
        ),
        *([Section("Mistakes on test", [MISTAKES, *mistakes])] if (mistakes := shown(Artifact.WORST_MISTAKES)) else []),
        Section("How it was chosen", [_epoch(selection), " ".join(_chosen(evaluation, selection))]),
        Section(
            "From val to test",
            [
                markdown_table(("step", "value"), _steps(evaluation, selection)),
                _gap(evaluation, selection),
                *warning(said),
            ],
        ),
        Section("For a methods section", [warned(_methods(evaluation, selection, len(classes)), said)]),
        Section("Settings", [markdown_table(("setting", "value"), _settings(evaluation, judged, len(classes)))]),
        Section(
            "How to repeat it",
            [
                "From the root of the project. Judging again opens the test split again, which counts as a further "
                "look:",
                shell(command),
                "The run judged left its whole configuration, which feeds a new run as it is:",
                shell(fetch_config(judged.run_id)),
            ],
        ),
    ]
    return Report(f"{judged.experiment}: held-out evaluation", _headline(evaluation, selection), sections)


MISTAKES = (
    "These are the wrong predictions of the highest confidence, the surest first. Above each image stand its label, "
    "the predicted class and the probability of that class. If you change the model because of them, test becomes a "
    "second val."
)
"""What the evaluation report says of the mistakes that it shows."""


def _headline(evaluation: RunRecord, selection: Selection) -> Headline:
    metric, test = metric_named(selection.metric), Scores.from_metrics(evaluation.metrics, "test")
    own = test.intervals.get(metric.name)
    number = rounded(test[metric.name], own or test.interval(ACCURACY.name))
    meaning = f"{metric.words} on {evaluation.num_test} test images, look {evaluation.look} at this test split."
    has_interval = own is not None and not math.isnan(own.half_width)
    return Headline(number, ends(own) if own and has_interval else "", meaning, " ".join(cautions(evaluation.tags)))


def about_intervals(intervals: Mapping[str, Scores]) -> str:
    """The evaluation report's words on how its intervals are made, and why a score has none.

    Args:
        intervals: `test` or `val` -> the intervals on it.
    """
    made = "; ".join(f"{metric.words}: {metric.method}" for metric in METRICS if metric.method)
    missing = [
        f"On {split}, {metric.words} has no interval: {found.missing[metric.name]}."
        for split, found in intervals.items()
        for metric in METRICS
        if metric.name in found.missing
    ]
    groups = [
        f"On {split}: {about_groups(found.num_groups, has_intervals=bool(found.intervals))}"
        for split, found in intervals.items()
        if found.num_groups is not None
    ]
    return " ".join((f"How the intervals are made: {made}. {NO_INTERVAL_OF_ECE}", *groups, *missing))


def score_rows(evaluation: RunRecord) -> list[tuple[str, str, str, str, str]]:
    """The evaluation report's rows of scores: (score, on test, its 95% interval, on val, its 95% interval)."""
    return [
        (metric.words, *_cells(evaluation, "test", metric), *_cells(evaluation, "val", metric))
        for metric in _scored(evaluation)
    ]


def scores_text(evaluation: RunRecord, selection: Selection) -> str:
    """The evaluation report in short, for a terminal: the scores, and what they are worth."""
    judged = selection.run
    table = pd.DataFrame(score_rows(evaluation), columns=SCORE_TITLES).to_string(index=False)
    about_temperature = f"{temperature_words(evaluation, judged)}\n\n".lstrip()
    return (
        f"Run {judged.run_id} of {judged.experiment}, epoch {judged.best_epoch}\n\n{table}\n\n"
        f"{about_temperature}{look_words(evaluation)}\n"
        f"{' '.join(_chosen(evaluation, selection)).replace('`', '')}"
    )


def _scored(evaluation: RunRecord) -> tuple[Metric, ...]:
    """The metrics that an evaluation has; one that an earlier version recorded has none with temperature."""
    return (*METRICS, *(CALIBRATED if MetricName.BEST_TEMPERATURE in evaluation.metrics else ()))


def temperature_words(evaluation: RunRecord, judged: RunRecord) -> str:
    """The evaluation report's words on the temperature, or on why it is 1; "" of an earlier version's evaluation."""
    names = (MetricName.BEST_TEMPERATURE, MetricName.BEST_TEMPERATURE_GAIN)
    if any(name not in evaluation.metrics for name in names):
        return ""
    temperature, gain = (evaluation.metrics[name] for name in names)
    if judged.num_folds:
        words = (
            "The temperature is 1, so the scores with temperature are those without. None was fitted: the models of "
            "several folds together are not scored on val."
        )
    elif temperature == 1:
        words = (
            "The temperature is 1, so the scores with temperature are those without. No other temperature fits val "
            f"significantly better: the best one raises twice the log-likelihood by {gain:.2f}, and more than "
            f"{LEAST_GAIN} would be needed."
        )
    else:
        words = (
            f"With temperature, the logits are divided by {temperature:.4g} before they become probabilities. This "
            "changes no predicted class. The temperature was fitted on val, so the scores with temperature on val are "
            "better than they would be on other images."
        )
    if judged.temperature is None:
        words += (
            " The run was recorded by an earlier version, which fitted no temperature. The temperature was fitted for "
            "this evaluation, on the probabilities of val that the run recorded."
        )
    return words


def look_words(evaluation: RunRecord) -> str:
    """The evaluation report's words on which opening of the test split it was, and what follows from earlier ones."""
    look, num_alike, alike = evaluation.look, int(evaluation.tags.get(Tag.NUM_TEST_ALIKE, "0")), ""
    if num_alike:
        images = "1 of its images looks" if num_alike == 1 else f"{num_alike} of its images look"
        alike = f" {images} like images which earlier looks opened that are not counted here."
    if look == 1:
        return f"Look 1: no earlier opening of this test split is recorded in this store.{alike}"
    earlier = "once" if look == 2 else f"{look - 1} times"
    return (
        f"Look {look}: this test split had been opened {earlier} before. What was chosen after seeing its earlier "
        f"scores or predictions makes these look better than they are.{alike}"
    )


def _cells(evaluation: RunRecord, split: str, metric: Metric) -> tuple[str, str]:
    scores = Scores.from_metrics(evaluation.metrics, split)
    own = scores.intervals.get(metric.name)
    shown = rounded(scores[metric.name], own or scores.interval(ACCURACY.name))
    return shown, UNDEFINED if own is None else ends(own)


def _score_table(evaluation: RunRecord, selection: Selection) -> str:
    rows = [
        (words, *cells, interval + (_note(selection) if selection.metric == metric.on_val else ""))
        for metric, (words, *cells, interval) in zip(_scored(evaluation), score_rows(evaluation), strict=True)
    ]
    return markdown_table(("score", "test", "95% interval", "val", "95% interval"), rows)


def _note(selection: Selection) -> str:
    """What the val score of a run selected, beside it."""
    return f"; this score selected {selection.chosen}" if selection.chosen else ""


def _chosen(evaluation: RunRecord, selection: Selection) -> Iterator[str]:
    """How the run was chosen, and whether the luck of a choice is in the test scores too."""
    yield from story(selection)
    if selection.is_best_of_several and evaluation.look == 1 and not int(evaluation.tags.get(Tag.NUM_TEST_ALIKE, "0")):
        yield "No choice on record was made by test, so the test scores are not optimistic in this way."


def _epoch(selection: Selection) -> str:
    epoch = f"The weights are those of epoch {selection.run.best_epoch}"
    if selection.has_fixed_epoch:
        return f"{epoch}, which was fixed before training."
    curve = "the best one of the mean curve of the folds" if selection.run.num_folds else "the best one on validation"
    return f"{epoch}, {curve} by {_plain(selection.metric)}."


def _steps(evaluation: RunRecord, selection: Selection) -> list[tuple[str, str]]:
    """From the score that val gave to the score that counts, all of the run judged and of its configuration."""
    test, metric = Scores.from_metrics(evaluation.metrics, "test"), metric_named(selection.metric)
    on_test = score_text(test[metric.name], test.intervals.get(metric.name), test.interval(ACCURACY.name))
    own = f"{val_score(selection.run, selection.metric)}{_note(selection)}"
    return [
        *_confirmed_steps(selection),
        (f"{selection.metric} of this run", own),
        (f"test {metric.words}", on_test),
        (
            f"val_test_gap, {metric.words} on val minus on test",
            with_interval(evaluation.metrics[MetricName.VAL_TEST_GAP], _gap_interval(evaluation, metric)),
        ),
        ("trials", _num_trials(selection)),
        ("looks at the test split", str(evaluation.look)),
    ]


def _num_trials(selection: Selection) -> str:
    num = selection.trials.num
    missing = were_wanted(num, selection.num_wanted)
    return (f"{num} ({missing})" if missing else str(num or UNDEFINED)) + selection.after


def _confirmed_steps(selection: Selection) -> list[tuple[str, str]]:
    confirmed = selection.confirmed
    if confirmed is None:
        return []
    trial = f"{selection.metric} of trial {confirmed.trial}, which found the configuration"
    return [
        (trial, val_score(confirmed.found_by, selection.metric)),
        ("confirmed mean of the configuration", mean_words(confirmed)),
        ("optimism, the first minus the second", optimism_words(confirmed)),
    ]


def _gap_interval(evaluation: RunRecord, metric: Metric) -> Interval:
    val, test = (Scores.from_metrics(evaluation.metrics, split) for split in ("val", "test"))
    name = metric.name
    return difference_interval(val[name], val.interval(name), test[name], test.interval(name))


def _gap(evaluation: RunRecord, selection: Selection) -> str:
    metric = metric_named(selection.metric)
    interval = _gap_interval(evaluation, metric)
    selected = selection.chosen or selection.chosen_by_other_scores
    expected = f" Val selected {selected}, so some gap is to be expected." if selected else ""
    return (
        f"`val_test_gap`, {metric.words} on val minus {metric.words} on test: "
        f"{rounded(evaluation.metrics[MetricName.VAL_TEST_GAP], interval)} ({_about_gap(interval, metric)}).{expected}"
    )


def _about_gap(interval: Interval, metric: Metric) -> str:
    """It joins the intervals on val and on test, where both have one."""
    if math.isnan(interval.half_width):
        return "no interval: too few groups of images" if metric is ACCURACY else "no interval"
    return f"{ends(interval)}, {NEWCOMBE if metric is ACCURACY else MOVER}"


def _methods(evaluation: RunRecord, selection: Selection, num_classes: int) -> str:
    """One paragraph that reads without the rest of the report."""
    judged, metric = selection.run, _plain(selection.metric)
    size, look = judged.params["data.image_size"], evaluation.look
    val = Scores.from_metrics(evaluation.metrics, "val")
    on_val = _accuracy_stated(val, wilson=Tag.NUM_VAL_GROUPS not in evaluation.tags)
    if selection.metric != ACCURACY.on_val:
        on_val += _other_stated(metric_named(selection.metric), val)
    flattered = "; measured on the images that selected, it is optimistic" if selection.is_flattered else ""
    confirmed = ""
    if selection.confirmed:
        confirmed = f" The configuration, trained again, had a mean validation {metric} of "
        confirmed += f"{mean_words(selection.confirmed)}."
    nth = "for the first time on record" if look == 1 else f"for time number {look}"
    return " ".join(
        (
            f"The model was {escaped(model_words(judged))} on images of {size} x {size} pixels in {num_classes} "
            f"classes ({escaped(split_words(judged, evaluation))}).",
            *map(escaped, methods(judged)),
            _epoch(selection),
            *_chosen(evaluation, selection),
            f"Validation accuracy was {on_val}{flattered}.{confirmed}",
            f"The test split of {evaluation.num_test} images was opened {nth} for this evaluation.",
            _test_scores(evaluation),
        )
    )


def _test_scores(evaluation: RunRecord) -> str:
    test = Scores.from_metrics(evaluation.metrics, "test")
    stated = [_other_stated(one, test) for one in METRICS if one is not ACCURACY and one.name in test.intervals]
    calibrated = _calibrated_stated(evaluation, test)
    groups = evaluation.tags.get(Tag.NUM_TEST_GROUPS)
    counted = f" The intervals count {groups} groups of images as independent (Rao and Scott 1992)." if groups else ""
    return f"Test accuracy was {_accuracy_stated(test, wilson=groups is None)}{''.join(stated)}.{calibrated}{counted}"


def _calibrated_stated(evaluation: RunRecord, test: Scores) -> str:
    """Nothing where the temperature is 1, or an earlier version's evaluation has none."""
    temperature = evaluation.metrics.get(MetricName.BEST_TEMPERATURE, 1.0)
    if temperature == 1:
        return ""
    scores = "".join(_other_stated(metric, test) for metric in CALIBRATED).removeprefix(", ")
    return f" With the logits divided by a temperature of {temperature:.4g}, fitted on validation: {scores}."


def _other_stated(metric: Metric, scores: Scores) -> str:
    interval = scores.intervals.get(metric.name)
    value = rounded(scores[metric.name], interval or scores.interval(ACCURACY.name))
    return f", {metric.words} {value}" + (f" (95% interval {ends(interval)})" if interval else "")


def _accuracy_stated(scores: Scores, *, wilson: bool) -> str:
    interval = scores.interval(ACCURACY.name)
    value = rounded(scores[ACCURACY.name], interval)
    if math.isnan(interval.low):
        return f"{value} (no interval: too few groups of images)"
    return f"{value} (95% {'Wilson ' if wilson else ''}interval {ends(interval)})"


def _settings(evaluation: RunRecord, judged: RunRecord, num_classes: int) -> list[tuple[str, str]]:
    return [
        ("experiment", judged.experiment),
        ("model", model_words(judged)),
        ("epoch judged", f"{judged.best_epoch}"),
        ("classes", str(num_classes)),
        ("images", split_words(judged, evaluation)),
        ("test fingerprint", evaluation.test_fingerprint),
        ("look at the test split", str(evaluation.look)),
        ("run judged", f"{judged.run_id} ({judged.kind}), {commit_words(judged.tags)}"),
        ("evaluation run", f"{evaluation.run_id}, on {device_words(evaluation.device)}"),
    ]


def _plain(metric: str) -> str:
    return metric.removeprefix("val/")
