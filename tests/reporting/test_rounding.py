import math

import pytest

from imgcls.reporting.rounding import ends, rounded, score_text, with_interval
from imgcls.statistics.intervals import NO_INTERVAL, Interval


@pytest.mark.parametrize(
    ("value", "half_width", "shown"),
    [
        (0.8742, 0.025, "0.87"),
        (0.8742, 0.0031, "0.874"),
        (0.8742, 0.2, "0.9"),
        (0.8742, 0.00004, "0.8742"),  # never more than four decimals
        (0.8742, 0.0, "0.8742"),
        (0.8742, 0.0096, "0.87"),  # 0.0096 is 0.01 to one digit
        (0.8742, 0.01, "0.87"),
        (0.8742, 0.0094, "0.874"),
        (1.0, 0.02, "1.00"),
        (0.999, 0.02, "0.999"),  # nothing is rounded up to perfection
        (0.966, 0.2, "0.97"),
        (0.99999, 0.00004, "0.99999"),
        (12.34, 3.0, "12"),
        (12.34, 30.0, "12"),
        (-0.001, 0.02, "0.00"),  # no minus in front of nothing
        (-0.013, 0.02, "-0.01"),
        (math.nan, 0.02, "–"),
    ],
)
def test_rounded(value, half_width, shown):
    assert rounded(value, Interval(-half_width, half_width)) == shown


def test_rounded_knows_the_width_alone():
    assert rounded(0.8742, Interval(0.8492, 0.8992)) == rounded(0.8742, Interval(0, 0.05)) == "0.87"


def test_a_score_without_an_interval_says_so():
    assert with_interval(0.8742, NO_INTERVAL) == "0.87 (–)"
    assert ends(NO_INTERVAL) == "–"


def test_rounded_never_says_0_of_what_is_more():
    assert rounded(0.003, Interval(0.0001, 0.06)) == "0.003"
    assert rounded(0.003, Interval(-0.06, 0.06)) == "0.00"  # a difference: no more than its interval supports


def test_a_score_borrows_the_digits_of_the_accuracy_where_it_has_no_interval():
    of_accuracy = Interval(0.84, 0.91)
    assert score_text(0.3512, None, of_accuracy) == "0.35"
    assert score_text(0.3512, Interval(0.349, 0.353), of_accuracy) == "0.351 (0.349 to 0.353)"
    assert score_text(0.8734, NO_INTERVAL, NO_INTERVAL) == "0.87 (–)"
