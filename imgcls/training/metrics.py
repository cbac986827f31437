"""Sums first, one division last: a ragged batch counts by its images."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float
    images_per_second: float

    def metrics(self) -> dict[str, float]:
        """Under the record's names."""
        return {
            "train/loss": self.train_loss,
            "val/loss": self.val_loss,
            "val/accuracy": self.val_accuracy,
            "train/lr": self.lr,
            "epoch_seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }

    def rank(self, metric: str) -> tuple[float, float, int]:
        """Sorts ascending from best to worst: by the metric, then lower val loss, then the earlier epoch."""
        first = -self.val_accuracy if metric == "val/accuracy" else self.val_loss
        return first, self.val_loss, self.epoch
