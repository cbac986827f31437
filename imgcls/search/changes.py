"""What a sweep that is asked for changed since the newest one of its experiment, so that it is a new study."""

from collections.abc import Collection

from imgcls.config.keys import Experiment
from imgcls.data.splits import Dataset
from imgcls.errors import ImgclsError
from imgcls.run_record import RunRecord
from imgcls.runs.rebuild import recorded_experiment
from imgcls.tracking.store import Tracker

MOST_NAMED = 6
"""Number of changes that are named; of more, the others are counted."""

ABSENT = "not there"
"""What is said of a key of `[search.space]` that one of the two sweeps does not have."""


def changes_in_words(
    sweep: RunRecord, experiment: Experiment, dataset: Dataset, tracker: Tracker, ignored: Collection[str]
) -> str:
    """What changed since a sweep, such as ` in train.epochs (was 3, is 2) and the images of train and val`.

    Args:
        sweep: an earlier sweep of the experiment.
        experiment: as the user has it now.
        dataset: its images.
        tracker: the record of the earlier sweep.
        ignored: keys that do not matter.

    Returns:
        "" where the earlier sweep left no config that this version can read, and has the same images.
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
