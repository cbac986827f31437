"""A run as it is read from the record: params, metrics, and its tags by typed accessors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcls.record import MetricName, Tag, best_name
from imgcls.stored_names import process_of


class _Text:
    """A tag as an attribute of a run's record; "" where the run does not have it."""

    def __init__(self, tag: str) -> None:
        self._tag = tag

    def __get__(self, run: RunRecord, owner: type[RunRecord]) -> str:
        return run.tags.get(self._tag, "")


class _Number:
    """A tag that holds a number; KeyError where the run does not have it, unless absence has a meaning."""

    def __init__(self, tag: str, absent: str | None = None) -> None:
        self._tag, self._absent = tag, absent

    def __get__(self, run: RunRecord, owner: type[RunRecord]) -> int:
        return int(run.tags[self._tag] if self._absent is None else run.tags.get(self._tag, self._absent))


@dataclass(frozen=True)
class RunRecord:
    """The record of a run, as the tracker holds it: params, metrics, and its tags by typed accessors.

    Attributes:
        run_id: MLflow's id.
        experiment: name of the MLflow experiment.
        name: the run's name.
        status: MLflow's status, such as FINISHED.
        started: milliseconds since 1970.
        params: as logged.
        metrics: last value of each, by its name in `MetricName`, however it is stored.
        tags: as logged.
        ended: milliseconds since 1970; None of a run that goes on.
        is_deleted: whether somebody deleted it; MLflow keeps it until `mlflow gc`.
        folder: of its artifacts; None where they are not on this machine.
    """

    run_id: str
    experiment: str
    name: str
    status: str
    started: int
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    ended: int | None = None
    is_deleted: bool = False
    folder: Path | None = None

    kind = _Text(Tag.KIND)
    outcome = _Text(Tag.OUTCOME)
    reason = _Text(Tag.REASON)
    parent = _Text(Tag.PARENT)
    study = _Text(Tag.STUDY)
    device = _Text(Tag.DEVICE)
    fingerprint = _Text(Tag.DATA_FINGERPRINT)
    test_fingerprint = _Text(Tag.TEST_FINGERPRINT)
    best_run_id = _Text(Tag.BEST_RUN_ID)
    best_trial_run_id = _Text(Tag.BEST_TRIAL_RUN_ID)
    confirmed_run_id = _Text(Tag.CONFIRMED_RUN_ID)
    compared_after = _Text(Tag.COMPARED_AFTER)
    evaluated_run_id = _Text(Tag.EVALUATED_RUN_ID)
    trial = _Number(Tag.TRIAL)
    num_trials_wanted = _Number(Tag.NUM_TRIALS_WANTED, absent="0")
    num_losses = _Number(Tag.NUM_LOSSES, absent="0")
    engine = _Text(Tag.ENGINE)
    num_workers = _Number(Tag.NUM_WORKERS, absent="1")
    num_processes = _Number(Tag.NUM_PROCESSES, absent="1")
    num_earlier_trials = _Number(Tag.NUM_EARLIER_TRIALS, absent="0")
    num_val = _Number(Tag.NUM_VAL)
    num_test = _Number(Tag.NUM_TEST)
    look = _Number(Tag.TEST_LOOK)
    squares = _Number(Tag.SQUARES, absent="1")
    loss = _Number(Tag.LOSS, absent="1")

    @property
    def confirmed_trials(self) -> list[int]:
        """Of a sweep: the trials whose configurations its latest confirmation compared, the best first."""
        numbers = self.tags.get(Tag.CONFIRMED_TRIALS, "")
        return [int(number) for number in numbers.split(",")] if numbers else []

    @property
    def process(self) -> dict[str, Any]:
        """What is recorded about the process that writes it; see `imgcls.stored_names.process_of`."""
        return process_of(self.tags)

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version; empty where they are not recorded."""
        versions: dict[str, str] = self.process.get("versions", {})
        return versions

    @property
    def num_folds(self) -> int:
        """Folds that have run, each val of a model of its own; 0 of a run with one val split, and of one fold."""
        if self.params.get("data.fold", "0") != "0":
            return 0
        return int(self.tags.get(Tag.NUM_FOLDS) or self.params.get("data.folds", "0"))

    @property
    def has_groups(self) -> bool:
        """Whether its images come in groups and are not independent."""
        return Tag.NUM_VAL_GROUPS in self.tags or bool(self.params.get("data.groups"))

    @property
    def has_test_scores(self) -> bool:
        """Whether it is an evaluation that ended with scores; a look for predictions alone has none."""
        return MetricName.TEST_ACCURACY in self.metrics

    @property
    def metric(self) -> str:
        """What selects on val, such as `val/accuracy`."""
        return self.params.get("search.metric", "val/accuracy")

    @property
    def temperature(self) -> float | None:
        """By which its logits are divided for calibrated probabilities; None where an earlier version recorded it."""
        return self.metrics.get(MetricName.BEST_TEMPERATURE)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept."""
        return int(self.metrics[MetricName.BEST_EPOCH])

    def best(self, metric: str) -> float:
        """A val metric, such as `val/accuracy`, at that epoch."""
        return self.metrics[best_name(metric)]
