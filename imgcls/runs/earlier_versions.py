"""Runs that earlier versions recorded: what was made otherwise in them, so that it is never mixed silently."""

from collections.abc import Iterable, Sequence

from imgcls.config.keys import Experiment
from imgcls.data.splits import SQUARES_FORMAT, Dataset
from imgcls.errors import InputError
from imgcls.record import Tag
from imgcls.run_record import RunRecord
from imgcls.training.loss import LOSS_DEFINITION


def recorded_squares(record: RunRecord) -> int:
    """An earlier version's format, in which a run's images became squares, to prepare its data again.

    Raises:
        InputError: a format of a later version.
    """
    if not 1 <= record.squares <= SQUARES_FORMAT:
        raise InputError(
            f"run {record.run_id} has {Tag.SQUARES} = {record.squares}, and this version of imgcls knows 1 to "
            f"{SQUARES_FORMAT}; use the version that recorded it, or a later one"
        )
    return record.squares


def is_kept_larger(dataset: Dataset) -> bool:
    """Whether an earlier version's val images may be other ones: where train's squares are larger than val's."""
    return dataset.squares > 2 or bool(dataset.train.stored.shape[-1] > dataset.val.stored.shape[-1])


def other_squares(record: RunRecord, dataset: Dataset) -> str:
    """An earlier version's val images: how those of a run differ from those that are made now, or ""."""
    if record.squares == dataset.squares or not is_kept_larger(dataset):
        return ""
    return (
        f"its val images were made from train's larger squares ({Tag.SQUARES} = {record.squares}), and are now made "
        f"straight from the source ({Tag.SQUARES} = {dataset.squares})"
    )


def other_loss(record: RunRecord, experiment: Experiment) -> str:
    """An earlier version's loss: how that of a run differs from that of today, in words; "" where it does not."""
    train, augment = experiment.train, experiment.augment
    is_softened = train.label_smoothing or augment.mixup or augment.cutmix
    if record.loss == LOSS_DEFINITION or train.class_weights == "none" or not is_softened:
        return ""
    return (
        f"its loss multiplied every class's share of a smoothed or mixed label by that class's weight ({Tag.LOSS} = "
        f"{record.loss}), and now weighs each image by its own class ({Tag.LOSS} = {LOSS_DEFINITION})"
    )


def same_work(records: Sequence[RunRecord], experiment: Experiment, ignored: Iterable[str]) -> RunRecord | None:
    """The newest run with the same settings except the `ignored` keys, if an earlier version recorded it.

    A key that is new since then, which its record lacks, must have its default. The oldest of `records` comes first.
    """
    unset = Experiment(name=experiment.name).params()
    asked = {key: value for key, value in experiment.params().items() if key not in ignored}
    for record in reversed(records):
        if record.params and all(record.params.get(key, unset.get(key)) == value for key, value in asked.items()):
            return None if Tag.SQUARES in record.tags else record
    return None
