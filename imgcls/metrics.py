"""The scores of a classifier: how each is computed, which way is better, and what reports call it.

This file alone decides that. A metric that is added to `METRICS` may be named by `search.metric` and is then tracked,
ranked, searched by, drawn and reported like the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING

from imgcls.errors import InputError

if TYPE_CHECKING:
    from imgcls.statistics.intervals import Interval
    from imgcls.statistics.predictions import Predictions


@dataclass(frozen=True)
class Metric:
    """A metric: one score of a classifier on the images of a split, and how it is computed.

    Attributes:
        name: in the record, below the split: `macro_f1` of `val/macro_f1`.
        words: its name in reports and figures, with the unit where it is not a share, such as `loss (nats)`.
        higher_is_better: whether a higher value is the better one.
        compute: predictions -> value; NaN where it is undefined.
        explained_interval: predictions -> its 95% interval, or in words why there is none; None where no method is
            known.
        method: of that interval, in words for a report.
        is_share: whether values lie in [0, 1]; else a value is at least 0.
        is_count: whether a value is a number of images over the number of all, so that it moves in whole images.
        may_select: whether `search.metric` may name it.
        each_epoch: whether every run tracks it on val; the others are tracked where they select.
        needs_every_class: whether it is undefined where a class has no images.
        of_probabilities: whether it judges the probabilities themselves, so that it is also given of those with
            temperature.
    """

    name: str
    words: str
    higher_is_better: bool
    compute: Callable[[Predictions], float]
    explained_interval: Callable[[Predictions], Interval | str] | None = None
    method: str = ""
    is_share: bool = True
    is_count: bool = False
    may_select: bool = True
    each_epoch: bool = False
    needs_every_class: bool = False
    of_probabilities: bool = False

    @property
    def on_val(self) -> str:
        """Its name in the record on val, which is also its name in `search.metric`."""
        return f"val/{self.name}"

    def interval(self, of: Predictions) -> Interval | None:
        """Its 95% interval, or None where none holds."""
        found = self.explained_interval(of) if self.explained_interval else None
        return None if isinstance(found, str) else found

    def rank(self, value: float) -> float:
        """Sorts values from best to worst."""
        return -value if self.higher_is_better else value


def _intervals() -> ModuleType:
    """NumPy and SciPy are imported when the first score is computed, so that a wrong key is answered at once."""
    from imgcls.statistics import score_intervals

    return score_intervals


def _balanced_accuracy(of: Predictions) -> float:
    """Mean recall of the classes that have images."""
    hits, images, _ = of.counts
    there = images > 0
    return float((hits[there] / images[there]).mean())


def _macro_f1(of: Predictions) -> float:
    """Mean F1 of the classes that are present or predicted; one that is predicted without being present counts 0."""
    hits, images, called = of.counts
    there = images + called > 0
    return float((2 * hits[there] / (images + called)[there]).mean())


def _auroc(of: Predictions) -> float:
    """Area under the ROC curve: of class 1 for two classes, else the mean of each class against the rest."""
    from imgcls.statistics.auroc import auroc

    return auroc(of)


def _auroc_interval(of: Predictions) -> Interval | str:
    from imgcls.statistics.auroc import auroc_interval

    return auroc_interval(of)


def _calibration_error(of: Predictions) -> float:
    """Expected calibration error over 15 bins."""
    from imgcls.statistics.calibration import expected_calibration_error, reliability

    return expected_calibration_error(reliability(of.confidence, of.hits))


def _loss(of: Predictions) -> float:
    """Mean cross-entropy in nats, in float64, exact where a probability rounds to 0."""
    import torch
    import torch.nn.functional as F

    logits, labels = torch.tensor(of.logits, dtype=torch.float64), torch.tensor(of.labels)
    return float(F.cross_entropy(logits, labels, reduction="sum")) / len(labels)


ACCURACY = Metric(
    "accuracy", "accuracy", higher_is_better=True, is_count=True, each_epoch=True,
    compute=lambda of: int(of.hits.sum()) / len(of.labels),
    explained_interval=lambda of: _intervals().of_accuracy(of), method="Wilson's score interval",
)  # fmt: skip

LOSS = Metric(
    "loss", "loss (nats)", higher_is_better=False, is_share=False, each_epoch=True, compute=_loss,
    explained_interval=lambda of: _intervals().of_loss(of), method="Hall's (1992) skewness-corrected t interval",
    of_probabilities=True,
)  # fmt: skip

METRICS = (
    ACCURACY,
    Metric(
        "balanced_accuracy", "balanced accuracy", higher_is_better=True, each_epoch=True, compute=_balanced_accuracy,
        explained_interval=lambda of: _intervals().of_balanced_accuracy(of),
        method="Wilson's score interval of each class's recall, joined to that of their mean",
    ),
    Metric(
        "macro_f1", "macro-F1", higher_is_better=True, each_epoch=True, compute=_macro_f1,
        explained_interval=lambda of: _intervals().of_macro_f1(of),
        method="Wilson's score interval of each class's F1, joined to that of their mean",
    ),
    Metric(
        "auroc", "AUROC", higher_is_better=True, needs_every_class=True, compute=_auroc,
        explained_interval=_auroc_interval,
        method="Newcombe's method 5 (2006), with DeLong's variance where images suffice",
    ),
    Metric(
        "ece", "calibration error (ECE)", higher_is_better=False, may_select=False, compute=_calibration_error,
        of_probabilities=True,
    ),
    LOSS,
)  # fmt: skip
"""All of them, in the order of a report."""

CALIBRATED = tuple(
    replace(
        one, name=f"calibrated_{one.name}", words=f"{one.words}, with temperature", may_select=False, each_epoch=False
    )
    for one in METRICS
    if one.of_probabilities
)
"""Those of the probabilities with temperature. The others are the same with it, or (the AUROC) nearly so."""

BY_NAME = {metric.on_val: metric for metric in METRICS if metric.may_select}
"""Value of `search.metric` -> the metric."""


def metric_named(name: str) -> Metric:
    """Finds the metric that `search.metric` names, such as `val/accuracy`.

    Raises:
        InputError: a name that this version does not know, which a record of a later version may have.
    """
    if name not in BY_NAME:
        raise InputError(f"search.metric = {name!r} is not known to this version, which has {', '.join(BY_NAME)}")
    return BY_NAME[name]


def reported(selecting: str) -> tuple[str, ...]:
    """The metrics to show of every run, by name: accuracy, loss, and the one that selects."""
    return tuple(dict.fromkeys((ACCURACY.on_val, LOSS.on_val, selecting)))


def val_scores(of: Predictions, selecting: str) -> dict[str, float]:
    """The metrics that are tracked on val, computed by names such as `val/loss`; one of them selects."""
    tracked = [metric for metric in METRICS if metric.each_epoch or metric.on_val == selecting]
    return {metric.on_val: metric.compute(of) for metric in tracked}


@dataclass(frozen=True)
class Scores:
    """All metrics of a classifier on one split, with their intervals.

    Attributes:
        values: name of a metric -> its value; one that is undefined is left out.
        intervals: name of a metric -> its 95% interval, where one holds.
        missing: name of a metric -> why it has no interval, in words for a report; not part of the record.
        num_groups: groups that the images come in, which are then the independent units; None for images alone.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    missing: Mapping[str, str] = field(default_factory=dict, compare=False)
    num_groups: int | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> float:
        """A value; NaN where it is undefined."""
        return self.values.get(name, math.nan)

    def interval(self, name: str) -> Interval:
        """Of a metric; `NO_INTERVAL` where none holds."""
        from imgcls.statistics.intervals import NO_INTERVAL

        return self.intervals.get(name, NO_INTERVAL)

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float], split: str) -> Scores:
        """What `metrics` gave, read back from the record."""
        from imgcls.statistics.intervals import Interval

        names = [metric.name for metric in (*METRICS, *CALIBRATED)]
        ends = {name: [metrics.get(f"{split}/{name}_{end}", math.nan) for end in ("low", "high")] for name in names}
        return cls(
            {name: metrics[f"{split}/{name}"] for name in names if f"{split}/{name}" in metrics},
            {name: Interval(low, high) for name, (low, high) in ends.items() if not math.isnan(low + high)},
        )

    def metrics(self, split: str) -> dict[str, float]:
        """The scores and the ends of their intervals under their names in the record, such as `test/accuracy_low`."""
        values = {f"{split}/{name}": value for name, value in self.values.items()}
        for name, interval in self.intervals.items():
            values |= {f"{split}/{name}_low": interval.low, f"{split}/{name}_high": interval.high}
        return values


def score(of: Predictions, temperature: float | None = None) -> Scores:
    """Computes all metrics of the predictions on a split, with their intervals.

    `Metric.method` names the methods, and docs/intervals.md shows what each of them covers. The calibration error gets
    no interval, since it is biased upwards.

    Args:
        of: N images.
        temperature: by which logits are divided for the metrics of `CALIBRATED`; None leaves these out.

    Raises:
        ValueError: logits or labels of other shapes or ranges, no images, values that are not finite.
    """
    of.check()
    computed = [(metric, of) for metric in METRICS]
    if temperature is not None:
        with_temperature = of.at(temperature)
        computed += [(metric, with_temperature) for metric in CALIBRATED]
    values = {metric.name: metric.compute(given) for metric, given in computed}
    found = {one.name: one.explained_interval(given) for one, given in computed if one.explained_interval}
    return Scores(
        {name: value for name, value in values.items() if not math.isnan(value)},
        {name: one for name, one in found.items() if not isinstance(one, str)},
        {name: one for name, one in found.items() if isinstance(one, str)},
        of.units.num if of.units.are_groups else None,
    )
