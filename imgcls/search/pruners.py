"""The pruners of a sweep: who ends a trial that looks hopeless, and from which epoch or fold on."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner

from imgcls.config.keys import Experiment
from imgcls.errors import ConfigError


def make_pruner(experiment: Experiment, warmup: int) -> BasePruner:
    """The study's pruner, which judges no trial before `warmup` completed epochs; with folds its steps are folds."""
    if experiment.search.pruner == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # that its interface may change
            return WilcoxonPruner(p_threshold=P_THRESHOLD)
    num_folds = experiment.data.num_models
    steps, warmup = (num_folds, 0) if num_folds > 1 else (experiment.train.epochs, warmup)
    if experiment.search.pruner in ("none", "halving") or warmup >= steps:
        return NopPruner()
    if experiment.search.pruner == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
    return HyperbandPruner(min_resource=max(1, warmup), max_resource=steps, reduction_factor=3)


P_THRESHOLD = 0.1
"""The p-value of Wilcoxon's signed-rank test below which a study's trial in folds is worse than the best one so far.

Four folds that are all worse give 1/16, and three give 1/8, so a trial ends after four folds at the earliest.
"""


def check_pruner(experiment: Experiment) -> None:
    """Refuses a pruner whose steps these trials do not have.

    Raises:
        ConfigError: naming the key.
    """
    pruner = experiment.search.pruner
    if pruner == "wilcoxon" and experiment.data.num_models == 1:
        keys = "data.fold is set" if experiment.data.fold else "data.folds = 0"
        raise ConfigError(
            f"search.pruner = {pruner!r} compares the folds of two trials, and {keys}; train in folds "
            '(--set data.folds=5), or set search.pruner = "median"'
        )
