"""The temperature of a classifier: one number by which its logits are divided, so that its probabilities are right."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from imgcls.statistics.predictions import Predictions

PRIOR_SD = 0.25
"""Standard deviation of the normal prior on log T."""

LEAST_GAIN = 3.84
"""Gain of twice the log-likelihood, in nats, from which on another temperature than 1 is significant: the 95 % quantile
of chi-squared with one degree of freedom."""

MOST = 10.0
"""Largest temperature that is looked for; its reciprocal is the smallest."""


def fit_temperature(of: Predictions) -> float:
    """Fits the temperature on the predictions of val (Guo et al. 2017, arXiv 1706.04599), with a prior on log T.

    Returns:
        The T > 0 by which logits are divided; 1.0 where the gain in likelihood is not significant. Where images come in
        groups, the groups are counted, not the images.
    """
    logits = of.logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[np.arange(len(logits)), of.labels]
    num = of.units.num

    def loss(log_t: float) -> float:
        """Mean negative log-likelihood in nats."""
        scaled = logits / math.exp(log_t)
        return float((logsumexp(scaled, axis=1) - right / math.exp(log_t)).mean())

    def penalised(log_t: float) -> float:
        return num * loss(log_t) + 0.5 * (log_t / PRIOR_SD) ** 2

    found = minimize_scalar(penalised, bounds=(-math.log(MOST), math.log(MOST)), method="bounded")
    gain = 2 * num * (loss(0.0) - loss(found.x))
    return math.exp(found.x) if gain > LEAST_GAIN else 1.0


def probabilities(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """The probabilities at a temperature: float64 (N, K) of logits (N, K)."""
    probs: NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return probs
