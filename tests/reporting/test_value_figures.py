import math

import numpy as np
import pytest

from imgcls.config.ranges import Range
from imgcls.metrics import LOSS
from imgcls.reporting.value_figures import SearchedKey, values_of_key, values_together
from imgcls.statistics.intervals import Interval
from imgcls.text import short
from tests.reporting.test_figures import rendered, texts

LR = SearchedKey("train.lr", Range(low=1e-4, high=1e-2, log=True), [1e-3, 1e-2, None, 1e-4])
DROPOUT = SearchedKey("model.dropout", Range(low=0.0, high=0.3, step=0.1), [0.3, 0.0, math.nan, 0.1])
FLIP = SearchedKey("augment.vertical_flip", (False, True), [True, False, True, None])
WIDTH = SearchedKey("model.width", Range(low=8, high=64), [8, 64, 36, None])
OUTCOMES, SCORES = ["completed", "completed", "pruned", "failed"], [0.9, 0.5, 0.2, math.nan]


@pytest.mark.parametrize(
    ("key", "shares"),
    [(LR, [0.5, 1, None, 0]), (DROPOUT, [1, 0, None, 1 / 3]), (FLIP, [1, 0, 1, None]), (WIDTH, [0, 1, 0.5, None])],
    ids=lambda value: getattr(value, "name", ""),
)
def test_where_a_value_lies_in_its_range(key, shares):
    np.testing.assert_allclose(key.shares, np.array(shares, dtype=float), atol=1e-12)


@pytest.mark.parametrize("key", [LR, DROPOUT, FLIP, WIDTH], ids=lambda key: key.name)
def test_a_key_shows_each_trial_with_a_score_and_the_best_in_its_interval(key):
    figure = values_of_key(key, SCORES, OUTCOMES, LOSS, Interval(0.8, 0.95))
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert drawn == {"completed": [0.9, 0.5], "best": [0.9]} | ({} if key in (LR, DROPOUT) else {"pruned": [0.2]})
    shown = texts(figure)
    assert {"val/loss", key.name, "95% interval of the best"} <= set(shown)
    assert all(short(choice) in shown for choice in key.choices)
    assert rendered(figure).width > 300


def test_the_median_of_each_value_counts_completed_trials_alone():
    key = SearchedKey("model.depth", (8, 14), [14, 14, 14, 14, 8])
    figure = values_of_key(key, [0.9, 0.7, 0.5, 0.1, 0.4], [*["completed"] * 3, "pruned", "completed"])
    (medians,) = [lines for lines in figure.axes[0].collections if lines.get_label() == "median"]
    assert [segment[0][1] for segment in medians.get_segments()] == [0.4, 0.7]


def test_a_key_without_a_score_is_a_sentence():
    assert texts(values_of_key(FLIP, [math.nan] * 4, ["failed"] * 4)) == ["No trial has a score."]


def test_a_line_a_trial_passes_through_the_values_of_all_keys():
    keys = [SearchedKey(key.name, key.options, key.values[:2]) for key in (LR, WIDTH)]
    figure = values_together(keys)
    best, other = sorted((line.get_xdata().tolist() for line in figure.axes[0].lines), key=lambda xs: xs[1])
    assert best == pytest.approx([0.5, 0]) and other == pytest.approx([1, 1])
    assert {"train.lr", "1e-4", "0.01", "model.width", "8", "64"} <= set(texts(figure))
    assert texts(values_together([])) == ["No trial was completed."]
