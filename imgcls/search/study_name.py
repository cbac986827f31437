"""The name of a study, by which a sweep finds it again: it tells what all of its trials are."""

from imgcls.config.key_names import NOT_COUNTED
from imgcls.config.keys import Experiment
from imgcls.data.splits import SQUARES_FORMAT
from imgcls.rng import derive_seed
from imgcls.runs.prepare import Prepared
from imgcls.training.loss import LOSS_DEFINITION

NOT_IDENTITY = (
    "search.trials", "search.timeout", "search.workers", "search.max_paused", "search.keep_pruned",
    "search.confirm.top", "search.confirm.seeds", *NOT_COUNTED,
)  # fmt: skip
"""Keys that may change between two sittings of the same study."""


def newest_squares(prepared: Prepared) -> int:
    """The newest format that trials may have: 3 where earlier versions kept some of their images larger, else 2."""
    is_capped = prepared.dataset.squares > 2 or "data.image_size" in prepared.experiment.search.space
    return SQUARES_FORMAT if is_capped else 2


def study_name(experiment: Experiment, prepared: Prepared, squares: int) -> str:
    """The name of a study, which two sweeps share if their trials are the same work, with squares of this format."""
    if experiment.train.threads == "auto":  # earlier versions had 0
        train = experiment.train.model_copy(update={"threads": 0})
        experiment = experiment.model_copy(update={"train": train})
    test = prepared.dataset.test
    formats = f"squares {squares}", f"loss {LOSS_DEFINITION}"
    of_data = prepared.dataset.fingerprint, test and test.fingerprint()
    parts = experiment.config_hash(without=NOT_IDENTITY), *of_data, *formats
    digest = f"{derive_seed(0, *map(str, parts)):016x}"[:8]
    return f"{experiment.name}-{digest}"
