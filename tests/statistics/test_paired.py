"""Paired tests and differences against published ones, and against scipy's permutations for groups."""

import math

import numpy as np
import pytest
from scipy import stats

from imgcls.statistics.intervals import difference_interval, wilson
from imgcls.statistics.paired import McNemar, holm, mcnemar, paired_difference_interval, paired_interval


def right_or_wrong(both, only_first, only_second, neither):
    """Which of these images the first classifier predicts right, and which the second."""
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    return first, second


@pytest.mark.parametrize(
    ("counts", "p_value", "digits"),
    [
        # Media for tuberculosis, Armitage & Berry 1994, p. 127; exact as in the manual of StatsDirect.
        ((20, 12, 2, 16), 0.0129, 4),
        # Cavo et al. 2012, in Fagerland, Lydersen & Laake 2017, chapter 8; exact as in the R package contingencytables.
        ((59, 6, 16, 80), 0.052479, 6),
    ],
)
def test_mcnemar_gives_published_p_values(counts, p_value, digits):
    test = mcnemar(*right_or_wrong(*counts))
    assert (test.only_first, test.only_second) == counts[1:3]
    assert round(test.p_value, digits) == p_value


def test_mcnemar_knows_only_the_images_on_which_one_is_right():
    # Five heads of five, or five tails: 2 / 2^5.
    assert mcnemar(*right_or_wrong(0, 5, 0, 0)) == McNemar(5, 0, 0.0625)
    assert mcnemar(*right_or_wrong(9000, 0, 5, 700)) == McNemar(0, 5, 0.0625)
    assert mcnemar(*right_or_wrong(1, 7, 7, 3)).p_value == 1


def test_mcnemar_of_a_classifier_with_itself():
    assert mcnemar(*right_or_wrong(3, 0, 0, 2)) == McNemar(0, 0, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        (np.array([True]), np.array([True, False]), "1 against 2 images"),
        (np.array([True]), np.array([1]), "second_correct is int64"),
        (np.array([[True]]), np.array([True]), "first_correct is bool .1, 1."),
        (np.zeros(0, bool), np.zeros(0, bool), "at least one image"),
    ],
)
def test_mcnemar_refuses_what_is_not_paired(first, second, complaint):
    with pytest.raises(ValueError, match=complaint):
        mcnemar(first, second)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635-2650, table III, method 10, as other projects quote it. The row
        # (1, 97, 1, 1) is left out: they quote 0.8736, and the formula in 40 digits gives 0.87367.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((0, 29, 1, 0), 0.6666, 0.9882),
        ((2, 98, 0, 0), 0.9178, 0.9945),
        ((1, 98, 0, 1), 0.9171, 0.9916),
        ((0, 30, 0, 0), 0.8395, 1.0000),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((30, 0, 0, 24), -0.0358, 0.0358),
        # Cavo et al. 2012 as above, from the tests of contingencytables. Its correlation is positive.
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_paired_difference_gives_published_intervals(counts, low, high):
    interval = paired_difference_interval(*counts)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_paired_difference_stays_in_range_around_the_difference_and_mirrors():
    for both, first, second, neither in np.ndindex(4, 4, 4, 4):
        if num_images := both + first + second + neither:
            interval = paired_difference_interval(both, first, second, neither)
            assert -1 <= interval.low <= (first - second) / num_images <= interval.high <= 1
            assert interval.half_width > 0
            mirrored = paired_difference_interval(both, second, first, neither)
            assert (-mirrored.high, -mirrored.low) == pytest.approx((interval.low, interval.high))


def test_paired_difference_is_narrower_than_that_of_independent_images():
    paired = paired_difference_interval(700, 60, 40, 200)
    independent = difference_interval(0.76, wilson(760, 1000), 0.74, wilson(740, 1000))
    assert paired.half_width < 0.6 * independent.half_width
    assert paired_difference_interval(700, 60, 40, 200, 2.58).half_width > paired.half_width


def test_groups_of_one_image_are_images():
    first, second = right_or_wrong(59, 6, 16, 80)
    names = [f"image {i}" for i in range(len(first))]
    alone, grouped = paired_interval(first, second), paired_interval(first, second, names)
    assert alone == paired_difference_interval(59, 6, 16, 80)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=0.003)  # t, and N / (N - 1)
    # The mid-p of McNemar's test: the exact p-value less the probability of what was observed.
    observed = stats.binom(22, 0.5).pmf(6)
    assert mcnemar(first, second, names).p_value == pytest.approx(mcnemar(first, second).p_value - observed)


def test_groups_flip_as_one():
    """Scipy's permutation test of the groups' balances, with every change of signs."""
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 50)) < [[0.8], [0.6]]
    groups = [f"group {i // 5}" for i in range(50)]
    balances = (first.astype(int) - second).reshape(10, 5).sum(axis=1)
    exact = stats.permutation_test(
        (balances,), lambda x, axis: np.abs(x.sum(axis=axis)), vectorized=True, permutation_type="samples",
        n_resamples=np.inf, alternative="greater",
    )  # fmt: skip
    ties = np.isclose(exact.null_distribution, exact.statistic).mean()
    assert mcnemar(first, second, groups).p_value == pytest.approx(exact.pvalue - ties / 2)


def test_a_difference_that_is_the_same_in_each_image_of_a_group_counts_by_groups():
    first, second = np.ones(200, bool), np.repeat(np.arange(20) % 4 > 0, 10)
    groups = [f"group {i // 10}" for i in range(200)]
    assert paired_interval(first, second, groups).low < 0.1 < paired_interval(first, second).low
    assert mcnemar(first, second, groups).p_value > 1000 * mcnemar(first, second).p_value


def test_too_few_groups_have_no_interval():
    first, second = right_or_wrong(30, 10, 5, 5)
    assert paired_interval(first, second, [f"group {i % 9}" for i in range(50)]) is None
    assert paired_interval(first, second, [f"group {i % 10}" for i in range(50)]) is not None


# From R's multtest, mt.rawp2adjp(proc="Holm"), as in the tests of statsmodels (test_multi.py, res_multtest1).
MULTTEST = [
    (0.838541367553, 1.0),
    (0.642193923795, 1.0),
    (0.680845947633, 1.0),
    (0.967833824309, 1.0),
    (0.71626938238, 1.0),
    (0.177096952723, 1.0),
    (5.23656777208e-05, 5.23656777208e-04),
    (0.0202732688798, 0.1419128821586),
    (0.00028140506198, 0.00253264555782),
    (0.0149877310796, 0.1199018486368),
]


def test_holm_gives_published_values_in_the_order_given():
    raw, adjusted = zip(*MULTTEST, strict=True)
    assert holm(raw) == pytest.approx(adjusted, rel=1e-12)
    # Three times 0.02 is more than twice 0.025 and once 0.04, which may not fall below it.
    assert holm([0.02, 0.04, 0.025]) == pytest.approx([0.06, 0.06, 0.06])


def test_holm_of_one_test_and_of_none():
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@pytest.mark.parametrize("p_value", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(p_value):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, p_value])
