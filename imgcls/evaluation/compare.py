"""Runs against each other, paired image by image, from the predictions that they left. No test split is opened."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.errors import InputError
from imgcls.evaluation.selection import selection_of
from imgcls.metrics import ACCURACY, Metric, Scores, metric_named
from imgcls.record import Artifact, Tag, ends_of
from imgcls.reporting.cautions import flat_cautions
from imgcls.reporting.rounding import UNDEFINED
from imgcls.reporting.run_scores import best_interval, history_table
from imgcls.run_record import RunRecord
from imgcls.runs.used_params import used_params, with_added
from imgcls.statistics.intervals import Interval
from imgcls.statistics.paired import holm, mcnemar, paired_interval
from imgcls.statistics.score_intervals import hits_interval
from imgcls.tracking.find_run import trained_record
from imgcls.tracking.store import Tracker


@dataclass(frozen=True)
class Pair:
    """Two runs compared: how many of the same images both, one or neither of them predicts right.

    Attributes:
        first: its number in the comparison, from 1.
        second: its number.
        both: images that both predict right.
        only_first: images that the first alone predicts right.
        only_second: images that the second alone predicts right.
        neither: images that both predict wrong.
        interval: 95% interval of `difference` (Newcombe 1998, method 10 for paired proportions), with a design effect
            where images come in groups. None where there are too few groups for one.
        p_value: of the exact McNemar test, two-sided; for images in groups, of the sign changes of whole groups.
    """

    first: int
    second: int
    both: int
    only_first: int
    only_second: int
    neither: int
    interval: Interval | None
    p_value: float

    @property
    def difference(self) -> float:
        """Accuracy of the first minus accuracy of the second."""
        num_images = self.both + self.only_first + self.only_second + self.neither
        return (self.only_first - self.only_second) / num_images

    def flat(self, prefix: str) -> dict[str, float]:
        """The two compared runs under names for programs."""
        return {
            **_with_ends(f"{prefix}accuracy_difference", self.difference, self.interval),
            f"{prefix}mcnemar_p": self.p_value,
            f"{prefix}both_right": self.both,
            f"{prefix}only_first_right": self.only_first,
            f"{prefix}only_second_right": self.only_second,
            f"{prefix}neither_right": self.neither,
        }


@dataclass(frozen=True)
class Split:
    """Runs compared on one split: what it says about each and about every two of them.

    Attributes:
        name: `val` or `test`.
        num_images: in it.
        num_right: number of a run -> images that it predicts right.
        intervals: number of a run -> 95% interval of its accuracy; None where there are too few groups for one.
        num_groups: groups that the images come in; None where every image stands for itself.
        pairs: every two of the runs.
        metric: what selected all of the runs; the accuracy where they were selected by different ones.
        scores: number of a run -> that metric with its 95% interval, or None; empty where it is the accuracy.
    """

    name: str
    num_images: int
    num_right: dict[int, int]
    intervals: dict[int, Interval | None]
    num_groups: int | None
    pairs: tuple[Pair, ...]
    metric: Metric
    scores: Mapping[int, tuple[float, Interval | None]]

    @property
    def holm_p_values(self) -> list[float]:
        """The p-value of each pair after Holm's correction for their number."""
        return holm([pair.p_value for pair in self.pairs])

    def flat(self) -> dict[str, float]:
        """The runs compared on this split, under names for programs; of several pairs, each name says which."""
        facts: dict[str, float] = {f"{self.name}/num_images": self.num_images}
        facts |= {} if self.num_groups is None else {f"{self.name}/num_groups": self.num_groups}
        facts |= {f"{self.name}/accuracy_{run}": right / self.num_images for run, right in self.num_right.items()}
        for run, (value, interval) in self.scores.items():
            own = _with_ends(f"{self.name}/{self.metric.name}", value, interval)
            facts |= {f"{name}_{run}": number for name, number in own.items()}
        if len(self.pairs) == 1:
            return facts | self.pairs[0].flat(f"{self.name}/")
        for pair, holm_p in zip(self.pairs, self.holm_p_values, strict=True):
            prefix = f"{self.name}/{pair.first}_vs_{pair.second}/"
            facts |= pair.flat(prefix) | {f"{prefix}mcnemar_p_holm": holm_p}
        return facts


def _with_ends(name: str, value: float, interval: Interval | None) -> dict[str, float]:
    low, high = ends_of(name)
    return {name: value} | ({low: interval.low, high: interval.high} if interval else {})


@dataclass(frozen=True)
class Comparison:
    """Runs compared: what came of it.

    Attributes:
        runs: their records, in the order asked for; a sweep's winner stands for it. Numbers count from 1.
        val: on the validation images.
        test: on the test images of evaluations that were there already; None where fewer than two runs have one.
        test_note: which runs take no part in `test`, and why; "" where all do.
        differences: config key -> its value in each run, for keys that differ; a dash where a run has no such key.
            Beside the keys, `imgcls.squares` and `imgcls.loss`.
        chosen: run id -> what val chose of it besides its epoch, `trial` or `configuration`; "" for nothing.
        histories: a table for each run with `epoch`, `val/accuracy`, `val/loss` and the metric.
    """

    runs: tuple[RunRecord, ...]
    val: Split
    test: Split | None
    test_note: str
    differences: dict[str, tuple[str, ...]]
    histories: tuple[pd.DataFrame, ...]
    chosen: Mapping[str, str]

    def selected_by_val(self, run: RunRecord) -> list[str]:
        """What the val images chose of a run before it is compared on them."""
        epoch = [] if run.params.get("train.score_epoch", "0") != "0" else ["epoch"]
        chosen = self.chosen.get(run.run_id, "")
        return [*epoch, chosen] if chosen else epoch

    def flat(self) -> dict[str, float | str]:
        """The comparison under names for programs; `_1`, `_2` and so on are the runs in the order asked for."""
        facts: dict[str, float | str] = {f"run_id_{i}": run.run_id for i, run in enumerate(self.runs, 1)}
        facts |= {f"val_selected_{i}": ", ".join(self.selected_by_val(run)) for i, run in enumerate(self.runs, 1)}
        facts |= self.val.flat()
        facts |= self.test.flat() if self.test else {}
        for i, run in enumerate(self.runs, 1):
            facts |= {f"{name}_{i}": value for name, value in flat_cautions(run.tags).items()}
        return facts | {"test_note": self.test_note, "differing_keys": ", ".join(self.differences)}


def compare(run_ids: Sequence[str], tracker: Tracker) -> Comparison:
    """Compares runs image by image on their common val split, and on test where it was already opened for them.

    Args:
        run_ids: two or more completed runs; a sweep stands for its winner.
        tracker: where they are.

    Raises:
        InputError: fewer than two runs, an unknown or unfinished one, one twice, one without predictions, or runs that
            were validated on different images.
    """
    if len(run_ids) < 2:
        raise InputError(f"a comparison takes at least two runs, and {len(run_ids)} came; name another")
    runs = tuple(trained_record(run_id, tracker) for run_id in run_ids)
    _refuse_repeats(run_ids, runs)
    _refuse_other_splits(runs)
    metric = metric_named(runs[0].metric) if len({run.metric for run in runs}) == 1 else ACCURACY
    name, numbered = metric.on_val, dict(enumerate(runs, 1))
    tables = {
        i: hits_by_image(run, Artifact.VAL_PREDICTIONS, tracker, has_groups=run.has_groups)
        for i, run in numbered.items()
    }
    selecting = {} if metric is ACCURACY else numbered
    scores = {i: (run.best(name), best_interval(run, name)) for i, run in selecting.items()}
    val = _split("val", tables, numbered, metric, scores)
    test, test_note = _test(numbered, metric, tracker)
    histories = tuple(history_table(run.run_id, metric, tracker) for run in runs)
    chosen = {run.run_id: _chosen_by_val(run, tracker) for run in runs}
    return Comparison(runs, val, test, test_note, _differences(runs), histories, chosen)


# --- which runs -------------------------------------------------------------------------------------------------


def _refuse_repeats(run_ids: Sequence[str], runs: Sequence[RunRecord]) -> None:
    first_as: dict[str, str] = {}
    for asked, run in zip(run_ids, runs, strict=True):
        if run.run_id in first_as:
            raise InputError(
                f"{first_as[run.run_id]} and {asked} are the same run, {run.run_id}; name each run once "
                "(a sweep stands for its winner)"
            )
        first_as[run.run_id] = asked


def _refuse_other_splits(runs: Sequence[RunRecord]) -> None:
    first, *others = runs
    fingerprint = first.fingerprint
    for run in others:
        if (other := run.fingerprint) != fingerprint:
            raise InputError(
                f"runs {first.run_id} and {run.run_id} have different train and val splits (fingerprints {fingerprint} "
                f"and {other}), so their images cannot be paired; compare runs of the same images, data.seed and "
                "data.val_fraction, or train one again with the other's [data]"
            )


# --- their predictions ------------------------------------------------------------------------------------------


def hits_by_image(run: RunRecord, name: str, tracker: Tracker, *, has_groups: bool) -> pd.DataFrame:
    """What runs are compared by: `hit` and `group` of each image, by (digest, label, occurrence).

    Equal images count one by one. Without groups, `group` is empty.

    Args:
        run: whose predictions they are.
        name: of the artifact with the predictions of a split.
        tracker: where it is.
        has_groups: whether the images come in groups.

    Raises:
        InputError: no such predictions, or groups of which an earlier version left no names.
    """
    table = pd.read_csv(io.StringIO(tracker.read_text(run.run_id, name)), dtype=str, keep_default_na=False)
    if "group" not in table:
        if has_groups:
            raise InputError(
                f"the images of run {run.run_id} come in groups, which its {name} of an earlier version does not name, "
                "so nothing can be said of how certain its scores are; train that run again"
            )
        table["group"] = ""
    table = table.sort_values(["digest", "label", "group"], kind="stable")
    table["occurrence"] = table.groupby(["digest", "label"]).cumcount()
    table["hit"] = table["label"] == table["prediction"]
    return table.set_index(["digest", "label", "occurrence"])[["hit", "group"]].sort_index()


def _split(
    name: str,
    tables: dict[int, pd.DataFrame],
    runs: dict[int, RunRecord],
    metric: Metric,
    scores: Mapping[int, tuple[float, Interval | None]],
) -> Split:
    number, reference = next(iter(tables.items()))
    for other, table in tables.items():
        if num_alone := len(reference.index.symmetric_difference(table.index)):
            raise InputError(
                f"the {name} predictions of runs {runs[number].run_id} and {runs[other].run_id} name different images "
                f"or labels ({num_alone} without a counterpart of {len(reference)} and {len(table)}) although their "
                "splits are the same: one of the files was changed; train that run again"
            )
    hits = {run: table["hit"].to_numpy(bool) for run, table in tables.items()}
    groups = tuple(reference["group"]) if reference["group"].any() else ()
    return Split(
        name=name,
        num_images=len(reference),
        num_right={run: int(right.sum()) for run, right in hits.items()},
        intervals={run: hits_interval(right, groups) for run, right in hits.items()},
        num_groups=len(set(groups)) or None,
        pairs=tuple(
            paired(first, second, hits[first], hits[second], groups) for first, second in combinations(hits, 2)
        ),
        metric=metric,
        scores=scores,
    )


def paired(
    first: int, second: int, hits: NDArray[np.bool_], other_hits: NDArray[np.bool_], groups: Sequence[str]
) -> Pair:
    """Compares two runs, numbered `first` and `second`, by which of the same images each predicts right.

    Args:
        first: number of the first run.
        second: number of the second.
        hits: bool (N,) of the first.
        other_hits: bool (N,) of the second, the same images in the same order.
        groups: name of each image's group; none where every image stands for itself.
    """
    test = mcnemar(hits, other_hits, groups)
    both, neither = int((hits & other_hits).sum()), int((~hits & ~other_hits).sum())
    interval = paired_interval(hits, other_hits, groups)
    return Pair(first, second, both, test.only_first, test.only_second, neither, interval, test.p_value)


def _test(runs: dict[int, RunRecord], metric: Metric, tracker: Tracker) -> tuple[Split | None, str]:
    """On the predictions of evaluations that are there already; and which runs have none."""
    evaluations = {i: found for i, run in runs.items() if (found := evaluation_of(run, tracker)) is not None}
    missing = [f"run {i}" for i in runs if i not in evaluations]
    note = f"Not evaluated yet: {', '.join(missing)}; a comparison opens no test split." if missing else ""
    if len(evaluations) < 2:
        return None, note
    fingerprints = {run.test_fingerprint for run in evaluations.values()}
    if len(fingerprints) > 1:
        return None, f"Evaluated on different test splits (fingerprints {', '.join(sorted(fingerprints))})."
    selecting = {} if metric is ACCURACY else evaluations
    on_test = {i: Scores.from_metrics(run.metrics, "test") for i, run in selecting.items()}
    scores = {i: (one[metric.name], one.intervals.get(metric.name)) for i, one in on_test.items()}
    tables = {
        i: hits_by_image(run, Artifact.TEST_PREDICTIONS, tracker, has_groups=runs[i].has_groups)
        for i, run in evaluations.items()
    }
    return _split("test", tables, evaluations, metric, scores), note


def evaluation_of(run: RunRecord, tracker: Tracker) -> RunRecord | None:
    """What runs are compared by on test: the latest evaluation of a run; None where it was not judged."""
    found = tracker.find({Tag.KIND: "evaluation", Tag.EVALUATED_RUN_ID: run.run_id, Tag.OUTCOME: "completed"})
    scored = [evaluation for evaluation in found if evaluation.has_test_scores]
    return scored[-1] if scored else None


def _differences(runs: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    used = [used_params(with_added(run.params)) for run in runs]
    keys = dict.fromkeys(key for params in used for key in params)
    values = {key: tuple(params.get(key, UNDEFINED) for params in used) for key in keys}
    values |= {Tag.SQUARES: tuple(str(run.squares) for run in runs), Tag.LOSS: tuple(str(run.loss) for run in runs)}
    return {key: shown for key, shown in values.items() if len(set(shown)) > 1}


def _chosen_by_val(run: RunRecord, tracker: Tracker) -> str:
    """`trial` of a sweep's best one, `configuration` where a confirmation ranked it first; "" of any other run."""
    selection = selection_of(run, tracker)
    if selection.place == 1:
        return "trial"
    return "configuration" if selection.place_of_mean == 1 else ""
