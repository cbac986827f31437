"""What one completed epoch gave, and which of several epochs is the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgcls.errors import InputError
from imgcls.metrics import ACCURACY, BY_NAME, LOSS, metric_named
from imgcls.record import MetricName

EPOCH_METRICS = (
    MetricName.TRAIN_LOSS, MetricName.TRAIN_LR, MetricName.EPOCH_SECONDS, MetricName.IMAGES_PER_SECOND, *BY_NAME,
)  # fmt: skip
"""Names in the record of what an epoch may have; which scores on val it has depends on the run."""


@dataclass(frozen=True)
class EpochResult:
    """The result of one completed epoch of training.

    Attributes:
        epoch: number of completed epochs, from 1.
        train_loss: mean loss in nats over the epoch's train images, as optimised (smoothed, mixed, weighed, focal or
            adjusted).
        val: scores on val by their names in the record, such as `val/loss`. Epochs of earlier versions have the
            accuracy and the loss alone.
        lr: learning rate of the epoch's last step.
        seconds: wall time of the epoch, validation included.
        images_per_second: train images per second of the epoch's training part.
        ended: when it was complete, in milliseconds since 1970.
    """

    epoch: int
    train_loss: float
    val: Mapping[str, float]
    lr: float
    seconds: float
    images_per_second: float
    ended: int

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> EpochResult:
        """Result of an epoch from the fields that a checkpoint holds."""
        values = dict(values)
        if "val" not in values:  # it was written by an earlier version
            values["val"] = {LOSS.on_val: values.pop("val_loss"), ACCURACY.on_val: values.pop("val_accuracy")}
        return cls(**values)

    @classmethod
    def recorded(cls, epoch: int, metrics: Mapping[str, float]) -> EpochResult:
        """Result of an epoch from the metrics of the record; when it ended is not known."""
        return cls(
            epoch=epoch,
            train_loss=metrics[MetricName.TRAIN_LOSS],
            val={name: value for name, value in metrics.items() if name.startswith("val/")},
            lr=metrics[MetricName.TRAIN_LR],
            seconds=metrics[MetricName.EPOCH_SECONDS],
            images_per_second=metrics[MetricName.IMAGES_PER_SECOND],
            ended=0,
        )

    @property
    def val_loss(self) -> float:
        """Mean cross-entropy in nats over val, without smoothing or weights."""
        return self.val[LOSS.on_val]

    @property
    def val_accuracy(self) -> float:
        """Share of val that is classified right, in [0, 1]."""
        return self.val[ACCURACY.on_val]

    def metrics(self) -> dict[str, float]:
        """Metrics of the epoch by their names in the record, val's first: MLflow's pages open on the first one."""
        return {
            **self.val,
            MetricName.TRAIN_LOSS: self.train_loss,
            MetricName.TRAIN_LR: self.lr,
            MetricName.EPOCH_SECONDS: self.seconds,
            MetricName.IMAGES_PER_SECOND: self.images_per_second,
        }

    def value(self, metric: str) -> float:
        """A score on val, such as `val/macro_f1`.

        Raises:
            InputError: an earlier version that did not know the metric trained this epoch.
        """
        if metric not in self.val:
            raise InputError(
                f"epoch {self.epoch} has no {metric}, because an earlier version of imgcls trained it; "
                f"select by {' or '.join(self.val)}, or begin a new run"
            )
        return self.val[metric]

    def rank(self, metric: str) -> tuple[float, float, int]:
        """Sort key of epochs, the best first: by the metric, then lower val loss, then the earlier epoch."""
        return metric_named(metric).rank(self.value(metric)), self.val_loss, self.epoch
