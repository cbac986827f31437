"""The words of the record, and what is read of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["sweep", "trial", "train", "confirm", "evaluation", "rerun"]
Outcome = Literal["running", "completed", "pruned", "interrupted", "failed"]

STATUS: dict[Outcome, str] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
UNKNOWN = "unknown"
"""Value of a tag whose fact could not be found out, such as `imgcls.git_commit`; `imgcls.git_unknown` says why."""

NUM_VAL_GROUPS, NUM_TEST_GROUPS = "imgcls.num_val_groups", "imgcls.num_test_groups"
"""Tags of a run whose images come in groups (`data.groups`): how many groups its val and its test images are in."""

ACCURACY_ENDS = ("best/val/accuracy_low", "best/val/accuracy_high")
"""Metrics of such a run: the ends of the 95 % interval of `best/val/accuracy`, where there are enough groups."""

LEAKS = "imgcls.leaks"
"""Tag of a run whose splits share images or groups: which, in one line."""

SPLIT_ORIGINS = "imgcls.split_origins"
"""Tag: JSON, split -> where it came from in words; a split that the source has always had is left out."""

NUM_NEAR_LEAKED = "imgcls.num_near_leaked"
"""Tag and metric: val and test images that look like an image of another split without being the same pixels."""

SQUARES = "imgcls.squares"
"""Tag: format in which val and test became squares, as `imgcls.data.splits` has it. Runs of earlier versions: 1."""

LOSS = "imgcls.loss"
"""Tag: definition of the loss that was optimised, as `imgcls.training.loss` has it. Runs of earlier versions: 1."""

NUM_TEST_ALIKE = "imgcls.num_test_alike"
"""Tag of an evaluation: its test images that look like images opened by earlier looks which `test_look` leaves out."""

NUM_NOT_COMPARED = "imgcls.num_not_compared"
"""Tag: val and test images too plain to be compared with others; `num_near_leaked` does not count them."""

NUM_OPENED_BEFORE = "imgcls.num_opened_before"
"""Tag: train and val images that an earlier evaluation in this store opened as test images, or that look like one."""


@dataclass(frozen=True)
class RunRecord:
    """What the tracker holds of a run.

    Attributes:
        run_id: MLflow's id.
        experiment: name of the MLflow experiment.
        name: the run's name.
        status: MLflow's status, such as FINISHED.
        started: milliseconds since 1970.
        params: as logged.
        metrics: last value of each.
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

    @property
    def has_groups(self) -> bool:
        """Whether its images come in groups and are not independent."""
        return NUM_VAL_GROUPS in self.tags or bool(self.params.get("data.groups"))

    @property
    def kind(self) -> str:
        """`imgcls.kind`, or "" for a run that imgcls did not write."""
        return self.tags.get("imgcls.kind", "")

    @property
    def squares(self) -> int:
        """`imgcls.squares`."""
        return int(self.tags.get(SQUARES, "1"))

    @property
    def loss(self) -> int:
        """`imgcls.loss`."""
        return int(self.tags.get(LOSS, "1"))

    @property
    def outcome(self) -> str:
        """`imgcls.outcome`."""
        return self.tags.get("imgcls.outcome", "")
