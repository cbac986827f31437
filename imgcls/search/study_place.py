"""Where the study of a sweep is, and what all of its trials share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.samplers import RandomSampler

from imgcls.config.keys import Experiment
from imgcls.data.splits import SQUARES_FORMAT
from imgcls.metrics import metric_named
from imgcls.search.halving import Rungs
from imgcls.search.journal import journal_of
from imgcls.search.leases import Fence
from imgcls.search.promotion import Promotion
from imgcls.search.pruners import make_pruner
from imgcls.search.storage import open_storage, shared_address
from imgcls.tracking.guard import Guard


@dataclass(frozen=True)
class StudyPlace:
    """The study's place, and what all of its trials share.

    Attributes:
        root: the project's root.
        name: of the study.
        sweep_run_id: of the parent run.
        pruner_warmup: epochs before which no trial is judged.
        num_epochs: of a trial that is trained to its end, unless it draws another number of them. With folds, those of
            one fold.
        num_folds: of a trial in folds, which reports a value after each of them; 0: it reports one after each epoch.
        squares: newest format in which the images of its trials may become squares.
    """

    root: Path
    name: str
    sweep_run_id: str
    pruner_warmup: int
    num_epochs: int
    num_folds: int = 0
    squares: int = SQUARES_FORMAT

    def open(self, experiment: Experiment) -> optuna.Study:
        """Creates the study in its storage, which is a journal below `mlruns/` by default, or opens it.

        MLflow is the record; the storage only coordinates.

        Raises:
            ConfigError: `search.storage` names none in which a study can be kept.
            Interrupted: the storage's server did not answer in time, or a stop was requested meanwhile.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = open_storage(experiment.search.storage, journal_of(self.root, self.name))
        sampler = RandomSampler(seed=0)  # it has nothing to draw: a trial's values are enqueued
        pruner = make_pruner(experiment, self.pruner_warmup)
        try:  # first, because each trial opens it, and a database does more for a study that it refuses to create
            return optuna.load_study(study_name=self.name, storage=storage, sampler=sampler, pruner=pruner)
        except KeyError:
            return optuna.create_study(
                study_name=self.name, storage=storage, sampler=sampler, pruner=pruner,
                direction=direction(experiment), load_if_exists=True,
            )  # fmt: skip

    def promotion(self, study: optuna.Study, experiment: Experiment) -> Promotion | None:
        """The promotion of the study's paused trials; None where `search.pruner` pauses none."""
        if experiment.search.pruner != "halving":
            return None
        sign = 1 if direction(experiment) == "maximize" else -1
        return Promotion(study, self.rungs(), sign, experiment.search.max_paused, in_folds=bool(self.num_folds))

    def guard(self, fence: Fence, experiment: Experiment) -> Guard:
        """The guard of what is written to the runs of this study's sweep: its leases decide who may."""
        return Guard(fence.check, takes_over=True, is_everywhere=bool(shared_address(experiment.search.storage)))

    def rungs(self) -> Rungs:
        """The epochs at which trials pause, and that of a whole training; of trials in folds, the folds."""
        return Rungs.of_trials(self.pruner_warmup, self.num_epochs, self.num_folds)

    @property
    def step(self) -> str:
        """What a trial reports a value after: an `epoch`, or a `fold`."""
        return "fold" if self.num_folds else "epoch"

    @property
    def num_reports(self) -> int:
        """Values that a trial reports if it is trained to its end: one after each epoch, or after each fold."""
        return self.num_folds or self.num_epochs

    @property
    def epochs_a_report(self) -> int:
        """Epochs after which a trial reports a value: 1, or all those of a fold."""
        return self.num_epochs if self.num_folds else 1


@contextmanager
def verbosity_kept() -> Iterator[None]:
    """Keeps, in a block that opens a study, what Optuna says of the program's own studies afterwards as it was."""
    before = optuna.logging.get_verbosity()
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def direction(experiment: Experiment) -> Literal["minimize", "maximize"]:
    """The study's direction in Optuna's words: which way its metric gets better."""
    return "maximize" if metric_named(experiment.search.metric).higher_is_better else "minimize"
