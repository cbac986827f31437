"""Which run of the same work has not ended yet, so that it goes on where a new one would begin."""

import logging
from collections.abc import Mapping

from imgcls.record import Tag
from imgcls.rng import derive_seed
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import is_kept_larger, other_loss, other_squares, same_work
from imgcls.runs.prepare import Prepared
from imgcls.runs.used_params import keys_without_effect
from imgcls.stored_names import EARLIER_PROCESS
from imgcls.tracking.store import Tracker
from imgcls.training.loss import LOSS_DEFINITION

log = logging.getLogger(__name__)

MADE_BY_THE_MACHINE = ("train.device", "train.precision", "train.threads")
"""Keys that are resolved by what the machine has: a run begun with others is still the same work."""

ENDED_WELL = ("completed", "pruned")
"""Outcomes of runs that are never taken up again."""

MEASURED = ("data.mean", "data.std")
"""Keys that earlier versions measured on train's larger squares."""


def unfinished(prepared: Prepared, tracker: Tracker, tags: Mapping[str, str], identity: str) -> RunRecord | None:
    """The newest run of the same work, if it has not ended; an earlier version's only if it would end the same."""
    name, dataset = prepared.experiment.name, prepared.dataset

    def newest_with(identity: str) -> list[RunRecord]:
        return [
            *tracker.find({**tags, EARLIER_PROCESS["identity"]: identity}, experiment=name, newest=1),
            *tracker.find(tags, identity=identity, experiment=name, newest=1),
        ]

    same = newest_with(identity)
    if dataset.squares > 2:  # earlier versions kept these images larger, in squares of format 2
        same += newest_with(identity_of(prepared, squares=2))
    newest = max(same, key=lambda record: record.started, default=None)
    if newest and newest.outcome not in ENDED_WELL:
        return newest
    of_any_version = {**tags, Tag.DATA_FINGERPRINT: dataset.fingerprint}
    ignored = [*MADE_BY_THE_MACHINE, *keys_without_effect(prepared.experiment.params())]
    if is_kept_larger(dataset):
        ignored += MEASURED
    earlier = same_work(tracker.find(of_any_version, experiment=name), prepared.experiment, ignored)
    if earlier is None or earlier.outcome in ENDED_WELL:
        return None
    if others := [*filter(None, (other_squares(earlier, dataset), other_loss(earlier, prepared.experiment)))]:
        log.warning(
            "run %s of the same experiment was begun by an earlier version of imgcls and cannot go on: %s; a new run "
            "begins", earlier.run_id, "; ".join(others),
        )  # fmt: skip
        return None
    return earlier


def identity_of(prepared: Prepared, squares: int = 0) -> str:
    """A name that two runs share if they do the same work; `squares` is their format, by default the prepared one."""
    experiment = prepared.experiment
    config_hash = experiment.config_hash(without=[*MADE_BY_THE_MACHINE, *keys_without_effect(experiment.params())])
    formats = f"squares {squares or prepared.dataset.squares}", f"loss {LOSS_DEFINITION}"
    return f"{derive_seed(0, config_hash, prepared.dataset.fingerprint, *formats):016x}"
