"""Sums first, one division last: a ragged batch counts by its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


def lower_is_better(metric: str) -> bool:
    """Whether the smaller value of a metric is the better one."""
    return metric == "val/loss"


@dataclass(frozen=True)
class EpochResult:
    """What one completed epoch gave.

    Attributes:
        epoch: number of completed epochs, from 1.
        train_loss: mean loss in nats over the epoch's train images, as optimised (smoothed, weighted, mixed).
        val_loss: mean cross-entropy in nats over val, without smoothing or weights.
        val_accuracy: in [0, 1].
        lr: learning rate of the epoch's last step.
        seconds: wall time of the epoch, validation included.
        images_per_second: train images per second of the epoch's training part.
        ended: when it was complete, in milliseconds since 1970.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    ended: int

    METRICS: ClassVar = {
        "train/loss": "train_loss",
        "val/loss": "val_loss",
        "val/accuracy": "val_accuracy",
        "train/lr": "lr",
        "epoch_seconds": "seconds",
        "images_per_second": "images_per_second",
    }
    """The record's names, and those here."""

    @classmethod
    def recorded(cls, epoch: int, metrics: Mapping[str, float]) -> EpochResult:
        """As the record holds it: `metrics` by the record's names; when it ended is not known."""
        return cls(epoch, **{attribute: metrics[name] for name, attribute in cls.METRICS.items()}, ended=0)

    def metrics(self) -> dict[str, float]:
        """Under the record's names."""
        return {name: getattr(self, attribute) for name, attribute in self.METRICS.items()}

    def rank(self, metric: str) -> tuple[float, float, int]:
        """Sorts ascending from best to worst: by the metric, then lower val loss, then the earlier epoch."""
        first = self.val_loss if lower_is_better(metric) else -self.val_accuracy
        return first, self.val_loss, self.epoch
