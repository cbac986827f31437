"""The samplers of a sweep: who draws a trial's values, and from what.

A draw depends on the study's seed, on the trial's number and on what the trials before it have come to, and on nothing
else: a sampler is made for each trial, and draws in a copy of the study. So a sweep that was killed draws the same
values again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import qmc

from imgcls.config.keys import Experiment
from imgcls.config.ranges import Range
from imgcls.config.search_keys import SearchConfig
from imgcls.errors import ConfigError, InputError
from imgcls.metrics import metric_named
from imgcls.rng import derive_seed
from imgcls.search.space import Space, Values, distributions, draw, known, share_of, value_at

NUM_SPACE_FILLING = 5
"""Number of the first trials, trial 0 included, whose values fill the search space evenly; later ones learn."""

MOST_WITHOUT_LEARNING = 50
"""Most trials for which `auto` takes points that fill the space, where trials pause: in so many, samplers that learn
found nothing better in the replay of recorded trainings (docs/searching.md)."""

MOST_FOR_GP = 100
"""Most trials for which `auto` takes the Gaussian process; each of its draws takes longer than the one before."""

MOST_POINTS = 256
"""Number of points among which values are looked for that no trial has had, where a sampler repeats some."""

LEARNING = ("gp", "tpe", "cmaes")
"""Samplers that learn from the trials before."""

FROM_COMPLETED = ("gp", "cmaes")
"""Samplers that learn from completed trials alone, so that a pruned one counts with the best value that it had."""


def resolved_sampler(search: SearchConfig) -> str:
    """The sampler that `search.sampler` stands for: `auto` is decided by the pruner, the trials and the kind of space.

    What the replay of recorded trainings says of it stands in docs/searching.md.

    Raises:
        ConfigError: a sampler that cannot search this space.
    """
    has_range = any(isinstance(options, Range) for options in search.space.values())
    if search.sampler == "cmaes" and not has_range:
        raise ConfigError(
            'search.sampler = "cmaes" searches ranges of numbers alone, and search.space has only lists; give a key a '
            'range, such as { low = 1e-4, high = 1e-2, log = true }, or set search.sampler = "tpe"'
        )
    if search.sampler != "auto":
        return search.sampler
    if search.pruner == "halving":
        return "qmc" if search.trials <= MOST_WITHOUT_LEARNING else "tpe"
    return "gp" if has_range and search.trials <= MOST_FOR_GP else "tpe"


def make_sampler(experiment: Experiment, number: int, sampler: str = "", *, first_rung: int = 0) -> BaseSampler:
    """Makes the sampler of one trial, seeded by the study's own seed and the trial's number.

    Args:
        experiment: that is searched.
        number: of the trial in its study, from 0.
        sampler: what `search.sampler` was resolved to; by default that is decided here.
        first_rung: epoch, or fold, at which trials pause first; 0 where they do not pause. Where they do, every other
            trial fills the space, because a sampler that learns sees only the first epochs of most trials.

    Raises:
        InputError: the sampler's package is not installed.
    """
    search = experiment.search
    name = sampler or resolved_sampler(search)
    seed = derive_seed(search.seed, "sampler", number) % 2**32
    space_filling = SpaceFillingSampler(search.space, search.seed, number)
    if name in ("random", "grid"):  # a grid's trials are planned beforehand and never drawn
        return RandomSampler(seed=seed)
    if name == "qmc" or number < NUM_SPACE_FILLING or (first_rung and number % 2):
        return space_filling
    if name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=1)
    if name == "cmaes":
        return CmaEsSampler(search.space, seed, otherwise=space_filling)
    return GPSampler(seed=seed, n_startup_trials=1, independent_sampler=space_filling, warn_independent_sampling=False)


def drawn_values(experiment: Experiment, sampler: str, trials: Sequence[FrozenTrial], *, first_rung: int = 0) -> Values:
    """Draws the sampler's values for the trial that follows `trials`.

    They are drawn whole, in a copy of the study: a study killed between two values would draw the second one again,
    with a sampler that has not drawn the first.

    Args:
        experiment: that is searched.
        sampler: what `search.sampler` was resolved to.
        trials: all trials of the study, in any state.
        first_rung: epoch, or fold, at which trials pause first; the sampler compares the scores that they had there.
            0: they do not pause.
    """
    space = experiment.search.space
    copy = optuna.create_study(
        direction="maximize" if _best_of(experiment) is max else "minimize",
        sampler=make_sampler(experiment, len(trials), sampler, first_rung=first_rung),
    )
    if first_rung:
        trials = [at_first_rung(trial, first_rung, experiment) if teaches(trial, space) else trial for trial in trials]
    elif sampler in FROM_COMPLETED:
        trials = [_as_completed(trial, _best_of(experiment)) for trial in trials]
    if sampler in LEARNING:
        in_space = distributions(space)
        copy.add_trials([_in_space(trial, space, in_space) for trial in trials if teaches(trial, space)])
    return _not_tried(draw(copy.ask(), space), experiment.search, trials)


def _not_tried(drawn: Values, search: SearchConfig, trials: Sequence[FrozenTrial]) -> Values:
    """What was drawn, or else the next of the space-filling points that no trial has had.

    Trials share their seed, so one with the values of another would only repeat it.
    """
    tried = [known(trial.params, search.space) for trial in trials]
    if drawn not in tried:
        return drawn
    for point in space_filling_points(search.space, search.seed, len(trials) + 1, MOST_POINTS):
        values = {key: value_at(options, point[key]) for key, options in search.space.items()}
        if values not in tried:
            return values
    return drawn  # a small space of which everything was tried


def at_first_rung(trial: FrozenTrial, rung: int, experiment: Experiment) -> FrozenTrial:
    """A trial that came to the first rung, completed with the score that it had there; any other one as it is.

    So all trials of a sweep that pauses them can be compared: most of them were not trained any longer.

    Args:
        trial: with its values, in any state.
        rung: epochs that every trial was trained for, or folds.
        experiment: that is searched.
    """
    values = [value for step, value in sorted(trial.intermediate_values.items()) if step <= rung]
    if trial.state == TrialState.FAIL or max(trial.intermediate_values, default=0) < rung:
        return trial
    # Of epochs the best one counts; after a fold, the value is the mean over all folds until then.
    score = values[-1] if experiment.data.num_models > 1 else _best_of(experiment)(values)
    return create_trial(value=score, params=trial.params, distributions=trial.distributions)


def _best_of(experiment: Experiment) -> Callable[[Iterable[float]], float]:
    return max if metric_named(experiment.search.metric).higher_is_better else min


def _as_completed(trial: FrozenTrial, best: Callable[[Iterable[float]], float]) -> FrozenTrial:
    """A pruned trial with the best value that it had; any other one as it is."""
    if trial.state != TrialState.PRUNED or not trial.intermediate_values:
        return trial
    value = best(trial.intermediate_values.values())
    return create_trial(value=value, params=trial.params, distributions=trial.distributions)


def teaches(trial: FrozenTrial, space: Space) -> bool:
    """Whether a trial teaches anything: not one that failed, or to which somebody gave values outside the space."""
    return (
        trial.state not in (TrialState.FAIL, TrialState.WAITING) and known(trial.params, space).keys() == space.keys()
    )


def _in_space(trial: FrozenTrial, space: Space, in_space: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial whose values are told as the space is now written."""
    return create_trial(
        state=trial.state, value=trial.value, params=known(trial.params, space), distributions=in_space,
        intermediate_values=trial.intermediate_values,
    )  # fmt: skip


def space_filling_points(space: Space, seed: int, first: int, num: int) -> list[dict[str, float]]:
    """Points of Sobol's scrambled sequence, which the sampler of the first trials takes: each key's share, in [0, 1).

    Args:
        space: that is searched.
        seed: of the study; it scrambles the sequence.
        first: number of the first point, from 0.
        num: of points, a power of 2.
    """
    sequence = qmc.Sobol(len(space), rng=derive_seed(seed, "space-filling"))
    if first:  # SciPy cannot go forward by nothing
        sequence.fast_forward(first)
    return [dict(zip(sorted(space), point, strict=True)) for point in sequence.random(num).tolist()]


# --- samplers of our own --------------------------------------------------------------------------------------------


class PointSampler(BaseSampler):
    """A sampler that draws points of the unit cube: each coordinate is a share of one key's range, or list."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._points: dict[int, Mapping[str, float]] = {}

    def shares(self, trials: Sequence[FrozenTrial], *, maximize: bool) -> Mapping[str, float]:
        """The point: key -> share in [0, 1].

        Args:
            trials: the completed ones of the study.
            maximize: whether the greater values are the better ones.
        """
        raise NotImplementedError

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Gives no space: each key is drawn by itself, as its coordinate says."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:  # fmt: skip
        """Gives no values, for the same reason."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of one key."""
        if trial.number not in self._points:
            completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._points[trial.number] = self.shares(completed, maximize=study.direction == StudyDirection.MAXIMIZE)
        return value_at(self._space[param_name], self._points[trial.number][param_name])


class SpaceFillingSampler(PointSampler):
    """The sampler of the first trials: the point of Sobol's scrambled sequence that has the trial's number.

    It depends on the seed and the number alone. Optuna's `QMCSampler` counts its points in the study instead.

    Args:
        space: that is searched.
        seed: of the study; it scrambles the sequence.
        number: of the trial in its study, from 0.
    """

    def __init__(self, space: Space, seed: int, number: int) -> None:
        super().__init__(space)
        self._seed, self._number = seed, number

    def shares(self, trials: Sequence[FrozenTrial], *, maximize: bool) -> Mapping[str, float]:
        """The point, whatever the trials came to."""
        return space_filling_points(self._space, self._seed, self._number, 1)[0]


class CmaEsSampler(PointSampler):
    """The sampler that adapts a normal distribution to the better of the completed trials: CMA-ES, of `cmaes`.

    Its state is what the completed trials make of it, told in lots by their numbers; Optuna's `CmaEsSampler` keeps its
    state pickled in the study instead. Only ranges are searched so; another sampler draws from the lists.

    Args:
        space: that is searched, with at least one range.
        seed: of this draw.
        otherwise: draws what is not in a range.
    """

    def __init__(self, space: Space, seed: int, otherwise: PointSampler) -> None:
        super().__init__(space)
        self._seed, self._otherwise = seed, otherwise
        self._ranges = {key: options for key, options in sorted(space.items()) if isinstance(options, Range)}

    def shares(self, trials: Sequence[FrozenTrial], *, maximize: bool) -> Mapping[str, float]:
        """The point that is drawn from the distribution as the trials have left it."""
        optimizer = self._new_optimizer()
        lot: list[tuple[NDArray[np.float64], float]] = []
        for trial in sorted(trials, key=lambda trial: trial.number):
            point = [share_of(options, trial.params[key]) for key, options in self._ranges.items()]
            assert trial.value is not None
            lot.append((np.array(point), -trial.value if maximize else trial.value))
            if len(lot) == optimizer.population_size:
                optimizer.tell(lot)
                lot = []
                if optimizer.should_stop():
                    optimizer = self._new_optimizer()
        drawn = dict(zip(self._ranges, optimizer.ask().tolist(), strict=True))
        return {**self._otherwise.shares(trials, maximize=maximize), **drawn}

    def _new_optimizer(self) -> Any:
        try:
            from cmaes import CMA
        except ImportError as error:
            raise InputError(
                'search.sampler = "cmaes" needs cmaes; run: pip install cmaes, or set search.sampler = "tpe"'
            ) from error
        num = len(self._ranges)
        return CMA(np.full(num, 0.5), SPREAD, np.tile([0.0, 1.0], (num, 1)), seed=self._seed)


SPREAD = 0.3
"""Standard deviation, as a share of a range, with which CMA-ES begins: that of points which fill the range evenly."""
