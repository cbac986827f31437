"""The sampler of a trial."""

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from imgcls.config.keys import Experiment
from imgcls.rng import derive_seed


def make_sampler(experiment: Experiment, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by the study's seed and the trial's number."""
    seed = derive_seed(experiment.search.seed, "sampler", number) % 2**32
    if experiment.search.sampler == "tpe":
        return TPESampler(seed=seed)
    return RandomSampler(seed=seed)  # a grid's trials are planned beforehand and never drawn
