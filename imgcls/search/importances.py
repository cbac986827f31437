"""How much each searched key matters for the metric, and how far that depends on the trials that there are."""

import numpy as np
from optuna.importance import get_param_importances
from optuna.study import Study, create_study
from optuna.trial import FrozenTrial, TrialState

from imgcls.rng import derive_seed
from imgcls.statistics.intervals import Interval

MIN_TRIALS = 20
"""Least number of completed trials: PED-ANOVA compares the best tenth of them with the others."""

MOST_RESAMPLES, FEWEST_RESAMPLES, MOST_DRAWN = 100, 25, 20_000
"""Limits of how often the trials are drawn again, with replacement, and of the trials drawn in all: the more trials
there are, the less their shares vary."""


def importances(study: Study) -> dict[str, float]:
    """The importances of the searched keys: shares of the metric's variation, in [0, 1]; empty with too few trials."""
    return _shares(study) if len(_completed(study)) >= MIN_TRIALS else {}


def importance_ranges(study: Study) -> dict[str, Interval]:
    """The importances' ranges in nine of ten resamples of the trials, one a key; empty where `importances` is.

    The percentile bootstrap over trials (Efron and Tibshirani 1993, chapter 13). It shows how much the shares depend on
    the trials that were drawn, and nothing of how the metric would vary with the seed.
    """
    trials = _completed(study)
    if len(trials) < MIN_TRIALS:
        return {}
    rng = np.random.default_rng(derive_seed(0, "importances", study.study_name))
    num_resamples = max(FEWEST_RESAMPLES, min(MOST_RESAMPLES, MOST_DRAWN // len(trials)))
    draws = [_shares(_study_of(study, rng.choice(len(trials), len(trials)), trials)) for _ in range(num_resamples)]
    ranges = {key: np.quantile([draw.get(key, 0.0) for draw in draws], (0.05, 0.95)) for key in _shares(study)}
    return {key: Interval(float(low), float(high)) for key, (low, high) in ranges.items()}


def _completed(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _shares(study: Study) -> dict[str, float]:
    return {key: float(share) for key, share in get_param_importances(study).items()}


def _study_of(study: Study, rows: np.ndarray[tuple[int], np.dtype[np.int64]], trials: list[FrozenTrial]) -> Study:
    resampled = create_study(direction=study.direction)
    resampled.add_trials([trials[row] for row in rows])
    return resampled
