"""What a sweep that is asked for changed since the newest one of its experiment, so that it is a new study."""

from collections.abc import Collection

from imgcls.config.keys import Experiment
from imgcls.data.splits import Dataset
from imgcls.errors import ImgclsError
from imgcls.record import Tag
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import same_work
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import recorded_experiment
from imgcls.runs.unfinished import MADE_BY_THE_MACHINE, MEASURED
from imgcls.tracking.store import Tracker
from imgcls.training.loss import LOSS_DEFINITION

MOST_NAMED = 6
"""Number of changes that are named; of more, the others are counted."""

ABSENT = "not there"
"""What is said of a key of `[search.space]` that one of the two sweeps does not have."""


def why_new(
    sweep: RunRecord, prepared: Prepared, squares: int, experiment: Experiment, tracker: Tracker,
    not_identity: Collection[str],
) -> str:  # fmt: skip
    """Why a sweep is a new study, in words.

    Args:
        sweep: the newest earlier sweep of the experiment.
        prepared: the experiment, with its images.
        squares: number of the format in which val and test of the new study become squares.
        experiment: as the user has it now.
        tracker: the record of the earlier sweep.
        not_identity: keys that may change within a study.
    """
    has_same_data = sweep.fingerprint == prepared.dataset.fingerprint
    ignored = [*MADE_BY_THE_MACHINE, *not_identity, *MEASURED]
    if not has_same_data or same_work([sweep], prepared.experiment, ignored) is None:
        changes = _changes_in_words(sweep, experiment, prepared.dataset, tracker, not_identity)
        return f"the experiment or its data differ from those of sweep {sweep.run_id}{changes}"
    return (
        f"sweep {sweep.run_id} of the same experiment was begun by an earlier version of imgcls, and does not go "
        f"on, because its trials would be mixed with others ({Tag.SQUARES} = {sweep.squares}, {Tag.LOSS} = "
        f"{sweep.loss}; now {squares} and {LOSS_DEFINITION})"
    )


def _changes_in_words(
    sweep: RunRecord, experiment: Experiment, dataset: Dataset, tracker: Tracker, ignored: Collection[str]
) -> str:
    """What changed since a sweep, such as ` in train.epochs (was 3, is 2) and the images of train and val`.

    It is "" where the earlier sweep left no config that this version can read, and has the same images.
    """
    found = [*_changed_keys(sweep, experiment, tracker, ignored), *_changed_images(sweep, dataset)]
    if len(found) > MOST_NAMED:
        found = [*found[:MOST_NAMED], f"{len(found) - MOST_NAMED} more"]
    return f" in {' and '.join(filter(None, (', '.join(found[:-1]), found[-1])))}" if found else ""


def _changed_keys(sweep: RunRecord, experiment: Experiment, tracker: Tracker, ignored: Collection[str]) -> list[str]:
    """The config counts, not the params of the record: in these, `auto` is replaced by what it stood for."""
    try:
        before = recorded_experiment(sweep.run_id, tracker).params()
    except ImgclsError:
        return []
    now = experiment.params()
    pairs = {key: (before.get(key, ABSENT), now.get(key, ABSENT)) for key in {**before, **now} if key not in ignored}
    return [f"{key} (was {was}, is {value})" for key, (was, value) in pairs.items() if was != value]


def _changed_images(sweep: RunRecord, dataset: Dataset) -> list[str]:
    test = "" if dataset.test is None else dataset.test.fingerprint()
    found = [] if sweep.fingerprint == dataset.fingerprint else ["the images of train and val"]
    return found if (sweep.test_fingerprint or "") == test else [*found, "the images of test"]
