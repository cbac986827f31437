"""Who opened which test images, when, and how often before: the looks, as the tracker remembers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from imgcls.record import RunRecord
from imgcls.reporting.cautions import cautions, flat
from imgcls.reporting.rounding import UNDEFINED, with_interval
from imgcls.statistics.scores import Scores
from imgcls.tracking.store import Tracker


@dataclass(frozen=True)
class PastLook:
    """One opening of a test split.

    Attributes:
        evaluation: its run, deleted or not.
        number: ordinal of this opening of these images, from 1; None if it crashed before it was counted.
        test: its scores; None where the look crashed and so has no result.
    """

    evaluation: RunRecord
    number: int | None
    test: Scores | None

    def flat(self) -> dict[str, object]:
        """For programs, under the record's names; what is not known is None."""
        record, tags = self.evaluation, self.evaluation.tags
        return {
            "run_id": record.run_id,
            "imgcls.evaluated_run_id": tags.get("imgcls.evaluated_run_id"),
            "experiment": record.experiment,
            "start_time": datetime.fromtimestamp(record.started / 1000, UTC).isoformat(),
            "imgcls.test_fingerprint": tags.get("imgcls.test_fingerprint"),
            "imgcls.test_look": self.number,
            "imgcls.outcome": record.outcome,
            "mlflow.user": tags.get("mlflow.user"),
            "imgcls.host": tags.get("imgcls.host"),
            "is_deleted": record.is_deleted,
            **{name: value for name, value in record.metrics.items() if name.startswith("test/")},
            **flat(tags),
        }


def past_looks(tracker: Tracker) -> list[PastLook]:
    """Every look in the store, oldest first."""
    looks = []
    for record in _evaluations(tracker):
        number, metrics = record.tags.get("imgcls.test_look"), record.metrics
        scores = Scores.from_metrics(metrics, "test") if "test/accuracy" in metrics else None
        looks.append(PastLook(record, int(number) if number else None, scores))
    return looks


def as_text(looks: Sequence[PastLook]) -> str:
    """The looks as a table for the shell."""
    if not looks:
        return "no test split was ever opened in this store"
    return pd.DataFrame([_row(look) for look in looks]).to_string(index=False)


def _row(look: PastLook) -> dict[str, str]:
    record, tags = look.evaluation, look.evaluation.tags
    began = datetime.fromtimestamp(record.started / 1000, UTC)
    return {
        "when (UTC)": f"{began:%Y-%m-%d %H:%M:%S}",
        "experiment": record.experiment,
        "test split": tags.get("imgcls.test_fingerprint", ""),
        "look": UNDEFINED if look.number is None else str(look.number),
        "test/accuracy": _score(look),
        "who": f"{tags.get('mlflow.user', '')}@{tags.get('imgcls.host', '')}",
        "evaluated run": tags.get("imgcls.evaluated_run_id", ""),
        "evaluation": record.run_id + (" (deleted)" if record.is_deleted else ""),
        "cautions": " ".join(cautions(tags)),
    }


def _score(look: PastLook) -> str:
    if look.test is None:
        return f"{UNDEFINED} ({look.evaluation.outcome})"
    return with_interval(look.test.accuracy, look.test.accuracy_interval)


def _evaluations(tracker: Tracker) -> list[RunRecord]:
    return tracker.find({"imgcls.kind": "evaluation"}, with_deleted=True)
