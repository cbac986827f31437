"""Who opened which test images, when, and how often before: the looks, as the tracker remembers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from imgcls.metrics import ACCURACY, Scores
from imgcls.record import TEST, MetricName, Tag
from imgcls.reporting.cautions import cautions, flat_cautions
from imgcls.reporting.rounding import UNDEFINED, with_interval
from imgcls.run_record import RunRecord
from imgcls.tracking.store import Tracker


@dataclass(frozen=True)
class PastLook:
    """A line of the ledger: one past opening of a test split.

    Attributes:
        evaluation: its run, deleted or not.
        number: ordinal of this opening of these images, from 1; None if it crashed before it was counted.
        test: its scores; None where the look crashed, or was for predictions alone.
    """

    evaluation: RunRecord
    number: int | None
    test: Scores | None

    def flat(self) -> dict[str, object]:
        """The look for programs, under the record's names; what is not known is None."""
        record, tags = self.evaluation, self.evaluation.tags
        return {
            "run_id": record.run_id,
            Tag.EVALUATED_RUN_ID: tags.get(Tag.EVALUATED_RUN_ID),
            "experiment": record.experiment,
            "start_time": datetime.fromtimestamp(record.started / 1000, UTC).isoformat(),
            Tag.TEST_FINGERPRINT: tags.get(Tag.TEST_FINGERPRINT),
            Tag.TEST_LOOK: self.number,
            Tag.LOOK_FOR: tags.get(Tag.LOOK_FOR),
            Tag.OUTCOME: record.outcome,
            Tag.USER: tags.get(Tag.USER),
            Tag.HOST: tags.get(Tag.HOST),
            "is_deleted": record.is_deleted,
            **{name: value for name, value in record.metrics.items() if name.startswith(TEST)},
            **flat_cautions(tags),
        }


def past_looks(tracker: Tracker) -> list[PastLook]:
    """The ledger: every past look in the store, oldest first."""
    looks = []
    for record in tracker.find({Tag.KIND: "evaluation"}, with_deleted=True):
        number = record.tags.get(Tag.TEST_LOOK)
        scores = Scores.from_metrics(record.metrics, "test") if record.has_test_scores else None
        looks.append(PastLook(record, int(number) if number else None, scores))
    return looks


def as_text(looks: Sequence[PastLook]) -> str:
    """The ledger of looks as a table for the shell."""
    if not looks:
        return "no test split was ever opened in this store"
    return pd.DataFrame([_row(look) for look in looks]).to_string(index=False)


def _row(look: PastLook) -> dict[str, str]:
    record, tags = look.evaluation, look.evaluation.tags
    began = datetime.fromtimestamp(record.started / 1000, UTC)
    return {
        "when (UTC)": f"{began:%Y-%m-%d %H:%M:%S}",
        "experiment": record.experiment,
        "test split": tags.get(Tag.TEST_FINGERPRINT, ""),
        "look": UNDEFINED if look.number is None else str(look.number),
        MetricName.TEST_ACCURACY: _score(look),
        "who": f"{tags.get(Tag.USER, '')}@{tags.get(Tag.HOST, '')}",
        "evaluated run": tags.get(Tag.EVALUATED_RUN_ID, ""),
        "evaluation": record.run_id + (" (deleted)" if record.is_deleted else ""),
        "cautions": " ".join(cautions(tags)),
    }


def _score(look: PastLook) -> str:
    if look.test is None:
        return f"{UNDEFINED} ({look.evaluation.tags.get(Tag.LOOK_FOR) or look.evaluation.outcome})"
    return with_interval(look.test[ACCURACY.name], look.test.interval(ACCURACY.name))
