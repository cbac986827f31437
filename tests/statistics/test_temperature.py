"""The temperature against scikit-learn's and SciPy's own losses and densities."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import chi2, gamma
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import LEAST_GAIN, PRIOR_SD, probabilities, temperature_fit


def fit_temperature(of):
    return temperature_fit(of).temperature


def drawn(num, num_classes, temperature, seed=0):
    """Logits that are `temperature` times too large, with labels drawn from the right probabilities."""
    rng = np.random.default_rng(seed)
    right = 2 * rng.normal(size=(num, num_classes))
    labels = (right + rng.gumbel(size=right.shape)).argmax(axis=1)
    return (temperature * right).astype(np.float32), labels


def all_right(num, num_classes, margin):
    labels = np.arange(num) % num_classes
    return margin * np.eye(num_classes)[labels], labels


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_without_a_prior_it_is_that_of_scikit_learn(num_classes, temperature, monkeypatch):
    monkeypatch.setattr("imgcls.statistics.temperature.PRIOR_SD", 1e6)
    logits, labels = drawn(5_000, num_classes, temperature)
    # A linear model whose decision function is the logits themselves.
    model = LogisticRegression()
    model.classes_ = np.arange(num_classes)
    model.coef_, model.intercept_ = np.eye(num_classes), np.zeros(num_classes)
    if num_classes == 2:
        model.coef_, model.intercept_ = np.array([[-0.5, 0.5]]), np.zeros(1)
    found = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(logits, labels)
    (beta,) = [one.beta_ for of in found.calibrated_classifiers_ for one in of.calibrators]
    assert temperature_fit(Predictions(logits, labels)).best == pytest.approx(1 / beta, rel=1e-5)
    assert 1 / beta == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        drawn(150, 4, 1.5), drawn(40, 2, 3.0), drawn(500, 10, 0.5), drawn(60, 3, 1.0), drawn(5, 3, 2.0),
        all_right(200, 10, 3.0), all_right(30, 2, 1.0),
    ],
)  # fmt: skip
def test_the_best_temperature_is_the_most_probable_one(logits, labels):
    """Scikit-learn's loss and SciPy's gamma density of 1 / T, as a density of log T, on a fine grid."""
    strength = PRIOR_SD**-2
    logits = logits.astype(np.float64)
    classes = np.arange(logits.shape[1])

    def likelihood(inverse):
        return -log_loss(labels, softmax(inverse * logits, axis=1), labels=classes, normalize=False)

    best = temperature_fit(Predictions(logits, labels)).best
    log_inverse = -np.log(best) + np.linspace(-0.02, 0.02, 41)
    posterior = [likelihood(np.exp(u)) + gamma.logpdf(np.exp(u), strength, scale=1 / strength) + u for u in log_inverse]
    assert abs(int(np.argmax(posterior)) - 20) <= 1
    gain = 2 * (likelihood(1 / best) - likelihood(1.0))
    assert temperature_fit(Predictions(logits, labels)).gain == pytest.approx(gain, abs=1e-9)
    assert fit_temperature(Predictions(logits, labels)) == (best if gain > chi2.ppf(0.95, 1) else 1.0)


def test_a_gain_is_significant_at_5_percent():
    assert chi2.sf(LEAST_GAIN, 1) == pytest.approx(0.05, abs=1e-4)


def test_what_is_calibrated_is_left_alone():
    found = [fit_temperature(Predictions(*drawn(300, 5, 1.0, seed))) for seed in range(100)]
    assert np.mean([temperature == 1 for temperature in found]) >= 0.9


@pytest.mark.parametrize(
    ("predictions", "low", "high"),
    [
        (all_right(200, 10, 4.0), 0.5, 1.0),
        (all_right(5_000, 10, 4.0), 0.2, 1.0),
        (all_right(5_000, 10, 1e-6), 1.0, 1.0),
        (all_right(200, 10, 1e4), 1.0, 1.0),
        (all_right(1, 2, 1.0), 1.0, 1.0),
        ((np.zeros((50, 3)), np.zeros(50, np.int64)), 1.0, 1.0),
        ((np.array([[2.0, 0.0]]), np.array([1])), 1.0, 1.0),
        ((np.tile([3.0, 0.0], (400, 1)), np.zeros(400, np.int64)), 0.2, 1.0),  # one class
        ((1e4 * drawn(300, 4, 1.0)[0], np.arange(300) % 4), 1e3, 1e6),  # no better than chance, and sure of it
        ((np.array([[1e4, -1e4]]), np.array([1])), 1e2, 1e5),
    ],
)
def test_no_predictions_drive_it_to_a_bound(predictions, low, high):
    found = fit_temperature(Predictions(*predictions))
    assert low <= found <= high
    assert found == fit_temperature(Predictions(*predictions))
    assert np.isfinite(probabilities(predictions[0], found)).all()


def test_groups_count_as_units():
    """Every image ten times is no more evidence than once, if its copies are a group."""
    logits, labels = drawn(60, 3, 1.4)
    once = temperature_fit(Predictions(logits, labels))
    copies = np.repeat(logits, 10, axis=0), np.repeat(labels, 10), [str(i // 10) for i in range(600)]
    grouped = temperature_fit(Predictions(*copies))
    assert (grouped.best, grouped.gain) == pytest.approx((once.best, once.gain), rel=1e-6)
    assert temperature_fit(Predictions(*copies[:2])).gain > 5 * once.gain


def test_constants_added_to_an_image_change_nothing():
    logits, labels = drawn(200, 4, 2.0)
    shifted = logits.astype(np.float64) + 1000 * np.arange(200)[:, None]
    assert fit_temperature(Predictions(shifted, labels)) == pytest.approx(fit_temperature(Predictions(logits, labels)))


def test_a_model_that_diverged_is_refused():
    with pytest.raises(ValueError, match="1 of 2 images have values that are not finite"):
        fit_temperature(Predictions(np.array([[np.nan, 0.0], [1.0, 0.0]]), np.array([0, 1])))


def test_blocks_change_nothing(monkeypatch):
    predictions = drawn(1_000, 7, 1.5)
    whole = fit_temperature(Predictions(*predictions))
    monkeypatch.setattr("imgcls.statistics.temperature.VALUES_AT_ONCE", 100)
    assert fit_temperature(Predictions(*predictions)) == pytest.approx(whole, rel=1e-8)


def test_the_predicted_classes_stay():
    logits, labels = drawn(500, 6, 1.0)
    assert (probabilities(logits, 2.3).argmax(axis=1) == Predictions(logits, labels).classes).all()
