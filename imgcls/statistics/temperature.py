"""The temperature of a classifier: one number by which its logits are divided, so that its probabilities are right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from imgcls.statistics.predictions import VALUES_AT_ONCE, Predictions

PRIOR_SD = 0.25
"""Standard deviation of 1 / T under the prior, a gamma distribution with mean 1; nearly that of log T."""

LEAST_GAIN = 3.84
"""Gain of twice the log-likelihood, in nats, above which another temperature than 1 is significant.

The 95 % quantile of chi-squared with one degree of freedom.
"""


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature that fits best, and how certain it is that one is needed.

    Attributes:
        best: the most probable temperature, above 0.
        gain: how much larger twice the log-likelihood is at `best` than at 1, in nats; at least 0.
    """

    best: float
    gain: float

    @property
    def temperature(self) -> float:
        """By which logits are divided: the best one where its gain is significant, else 1."""
        return self.best if self.gain > LEAST_GAIN else 1.0


def temperature_fit(of: Predictions) -> TemperatureFit:
    """Fits the temperature on the predictions of val, by their likelihood and a prior (docs/calibration.md).

    The loss is convex in 1 / T (Guo et al. 2017, arXiv 1706.04599), and so is the negative logarithm of the prior, so
    their sum has one minimum. Where images come in groups, groups are counted, not images.

    Args:
        of: N images of val.

    Raises:
        ValueError: predictions that cannot be scored, such as logits that are not finite.
    """
    of.check()
    loss_and_slope, num, strength = _loss_by_inverse(of), of.units.num, PRIOR_SD**-2

    def slope(inverse: float) -> float:
        """Of the negative log-posterior of log T, written as a function of 1 / T."""
        return num * loss_and_slope(inverse)[1] + strength * (1 - 1 / inverse)

    inverse = _root(slope, strength)
    gain = 2 * num * (loss_and_slope(1.0)[0] - loss_and_slope(inverse)[0])
    return TemperatureFit(1 / inverse, max(gain, 0.0))


def _root(slope: Callable[[float], float], strength: float) -> float:
    """The 1 / T > 0 at which an increasing slope is 0."""
    at_1 = slope(1.0)
    if at_1 == 0:
        return 1.0
    # Below 1 the loss is no steeper than at 1: at this `low` the prior is certainly steeper.
    low, high = (strength / (strength + at_1) / 2, 1.0) if at_1 > 0 else (1.0, 2.0)
    while slope(high) < 0:
        low, high = high, 2 * high
    return float(brentq(slope, low, high, xtol=1e-9 * low, rtol=1e-9))


def _loss_by_inverse(of: Predictions) -> Callable[[float], tuple[float, float]]:
    """1 / T -> mean loss in nats of the logits divided by T, and its derivative with respect to 1 / T."""
    rows = max(1, VALUES_AT_ONCE // of.num_classes)
    blocks = [slice(start, start + rows) for start in range(0, len(of.labels), rows)]

    @cache
    def loss_and_slope(inverse: float) -> tuple[float, float]:
        loss = slope = 0.0
        for block in blocks:
            margins = of.logits[block].astype(np.float64)
            own = margins[np.arange(len(margins)), of.labels[block]]
            highest = margins.max(axis=1)
            margins -= highest[:, None]
            own -= highest
            weights = np.exp(inverse * margins)
            sums = weights.sum(axis=1)
            weights *= margins
            loss += float((np.log(sums) - inverse * own).sum())
            slope += float((weights.sum(axis=1) / sums - own).sum())
        return loss / len(of.labels), slope / len(of.labels)

    return loss_and_slope


def log_probabilities(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits that give these probabilities (N, K): their logarithms, where 0 counts as the smallest normal number."""
    logits: NDArray[np.float64] = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    return logits


def probabilities(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """The probabilities at a temperature: float64 (N, K) of logits (N, K)."""
    probs: NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return probs
