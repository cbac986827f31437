"""What the record holds of a trial: its values, what it reported, and how it ended."""

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from imgcls.config.keys import Experiment
from imgcls.config.ranges import Options, Range, Scalar
from imgcls.config.toml import as_toml
from imgcls.errors import TrainingError
from imgcls.metrics import ACCURACY, reported
from imgcls.record import Tag
from imgcls.reporting.run_scores import best_interval
from imgcls.run_record import RunRecord
from imgcls.runs.folds import mean_of
from imgcls.runs.rebuild import recorded_epochs
from imgcls.runs.record_writer import Finished
from imgcls.search.space import Space, Values, as_written
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EpochResult


def values_in_words(values: Values) -> str:
    """The values of a trial as its record has them, such as `train.lr = 0.02, model.depth = 18`."""
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def recorded_values(record: RunRecord, space: Space) -> Values:
    """The values that a trial had for the keys of its search space.

    Raises:
        TrainingError: its record does not say.
    """
    text, found = record.tags.get(Tag.VALUES, ""), {}
    begins = [*re.finditer(f"(?:^|, )({'|'.join(map(re.escape, space))}) = ", text)]
    ends = [*(match.start() for match in begins[1:]), len(text)]
    said = {match[1]: text[match.end() : end] for match, end in zip(begins, ends, strict=True)}
    for key, options in space.items():
        value = _value(options, said.get(key, record.params.get(key, "")))
        if value is None:
            raise TrainingError(
                f"the study has lost trial {record.trial}, and its run {record.run_id} does not say which {key} it had"
            )
        found[key] = value
    return found


def _value(options: Options, text: str) -> Scalar | None:
    if not isinstance(options, Range):
        return next((option for option in options if text in (str(option), as_toml(option))), None)
    try:
        return as_written(options, int(text) if options.whole else float(text))
    except ValueError:
        return None


def recorded_steps(
    record: RunRecord, epochs: Sequence[EpochResult], num_folds: int, tracker: Tracker
) -> Sequence[EpochResult]:
    """What a trial reported a value after: its `epochs`, or where it has folds the kept epochs of these, in order."""
    if not num_folds:
        return epochs
    folds = {int(fold.tags[Tag.FOLD]): fold for fold in tracker.children(record.run_id, "fold")}
    done = [folds[number] for number in sorted(folds) if folds[number].outcome == "completed"]
    return [recorded_epochs(fold, tracker)[fold.best_epoch - 1] for fold in done]


def reported_values(steps: Sequence[EpochResult], experiment: Experiment) -> dict[int, float]:
    """The values that a trial reported, by epoch, except after its last one; in folds by fold.

    After a fold it is the mean over those so far. Wilcoxon's test pairs the folds of two trials, and is told the value
    of each alone.

    Args:
        steps: its epochs, or the kept epochs of its folds.
        experiment: with the trial's own values.
    """
    search, values = experiment.search, [step.value(experiment.search.metric) for step in steps]
    if experiment.data.num_models == 1:
        last = experiment.train.last_epoch
        return {step.epoch: value for step, value in zip(steps, values, strict=True) if step.epoch < last}
    of_folds = values if search.pruner == "wilcoxon" else [fmean(values[: n + 1]) for n in range(len(values))]
    return dict(enumerate(of_folds, 1))


def recorded_end(record: RunRecord, epochs: Sequence[EpochResult], metric: str) -> Finished:
    """How a trial ended that was completed or pruned, after `epochs`; `metric` selects."""
    kept = next(epoch for epoch in epochs if epoch.epoch == record.best_epoch)
    of_all = {name: record.best(name) for name in reported(metric)}  # of folds, those of all images together
    intervals = {name: best_interval(record, name) for name in (ACCURACY.on_val, metric)}
    return Finished(
        record.run_id, record.outcome, replace(kept, val={**kept.val, **of_all}), epochs[-1].epoch,
        {name: interval for name, interval in intervals.items() if interval is not None},
    )  # fmt: skip


def recorded_pause(record: RunRecord, steps: Sequence[EpochResult], experiment: Experiment) -> Finished:
    """How a trial stands that is paused; the intervals of its scores are not recorded before its end."""
    if experiment.data.num_models > 1:
        kept = mean_of(steps)
    elif experiment.train.score_epoch:
        kept = steps[-1]
    else:
        kept = min(steps, key=lambda step: step.rank(experiment.search.metric))
    return Finished(record.run_id, "paused", kept, steps[-1].epoch, {})
