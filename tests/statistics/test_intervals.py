"""Intervals against published ones."""

import math

import pytest

from imgcls.metrics import METRICS
from imgcls.statistics.intervals import SHARES, difference_interval, interval_over_seeds, mean_interval, wilson


# Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("num_correct", "num_images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_intervals(num_correct, num_images, low, high):
    interval = wilson(num_correct, num_images)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_solves_its_own_equation():
    # Each end is a proportion from which the observed one lies exactly 1.96 standard errors away (Wilson 1927).
    for end in (wilson(37, 90).low, wilson(37, 90).high):
        assert abs(37 / 90 - end) / math.sqrt(end * (1 - end) / 90) == pytest.approx(1.959963984540054)


@pytest.mark.parametrize(("num_correct", "num_images"), [(0, 1), (1, 1), (5, 5), (0, 10**6), (10**6, 10**6)])
def test_wilson_stays_within_0_and_1_at_the_edges(num_correct, num_images):
    interval = wilson(num_correct, num_images)
    assert 0 <= interval.low <= num_correct / num_images <= interval.high <= 1
    assert interval.half_width > 0


def test_wilson_widens_with_the_quantile_and_narrows_with_images():
    assert wilson(80, 100, 2.58).half_width > wilson(80, 100).half_width > wilson(800, 1000).half_width


@pytest.mark.parametrize(("num_correct", "num_images"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(num_correct, num_images):
    with pytest.raises(ValueError, match=f"{num_correct} right of {num_images} images"):
        wilson(num_correct, num_images)


# Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_difference_gives_newcombes_published_intervals(first, second, low, high):
    interval = difference_interval(first[0] / first[1], wilson(*first), second[0] / second[1], wilson(*second))
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_mean_interval_gives_students_published_interval():
    # Student 1908: extra sleep, first drug minus second; R prints this for t.test(extra ~ group, sleep, paired = TRUE).
    interval = mean_interval([-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4])
    assert (interval.low, interval.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_mean_interval_of_two_seeds_is_wide():
    # Mean 0.88, standard error 0.01, and 12.706 in every table of t with one degree of freedom.
    interval = mean_interval([0.87, 0.89])
    assert (interval.low, interval.high) == pytest.approx((0.88 - 0.12706, 0.88 + 0.12706), abs=5e-6)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
def test_seeds_that_agree_claim_no_certainty(num_seeds):
    interval = mean_interval([36 / 66] * num_seeds, step=1 / 66, bounds=SHARES)
    # Where a count is the next one with probability p, its mean is p / n further and k seeds agree in (1 - p)^k.
    needed = (1 - 0.025 ** (1 / num_seeds)) / 66
    assert interval.low <= 36 / 66 - needed and interval.high >= 36 / 66 + needed
    assert interval.half_width > 0


def test_equal_values_without_a_step_have_no_interval():
    assert mean_interval([0.1, 0.1, 0.1]) is None


@pytest.mark.parametrize(
    ("values", "bounds", "ends"),
    [
        ([0.2, 1.0], SHARES, (0, 1)),
        ([1.0, 1.0], SHARES, (None, 1)),
        ([0.0, 0.0], SHARES, (0, None)),
        ([-0.9, 0.9], (-1, 1), (-1, 1)),
    ],
)
def test_means_of_shares_stay_shares(values, bounds, ends):
    interval = mean_interval(values, step=1 / 60, bounds=bounds)
    assert bounds[0] <= interval.low < interval.high <= bounds[1]
    assert all(end is None or end == found for end, found in zip(ends, (interval.low, interval.high), strict=True))


def test_values_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="leave the bounds"):
        mean_interval([0.5, 1.5], bounds=SHARES)


def test_each_metric_over_seeds_has_its_own_interval():
    assert interval_over_seeds([0.9], is_share=True, num_counted=60) is None
    assert interval_over_seeds([0.9, 0.9], is_share=True, num_counted=60).half_width > 0
    assert interval_over_seeds([0.9, 1.7], is_share=False).high > 1
    assert interval_over_seeds([-0.9, 0.1], is_share=True, num_counted=60, of_differences=True).low == -1


def test_only_a_count_of_images_has_a_spread_where_all_seeds_agree():
    """An image of a rare class moves a balanced accuracy more than an accuracy: nothing is known of its spread."""
    assert interval_over_seeds([0.85] * 3, is_share=True) is None
    assert [metric.name for metric in METRICS if metric.is_count] == ["accuracy"]


@pytest.mark.parametrize("values", [[], [0.9], [0.9, math.nan], [0.9, math.inf]])
def test_mean_interval_refuses_values_without_a_spread(values):
    with pytest.raises(ValueError, match="at least two finite numbers"):
        mean_interval(values)
