import pytest

from imgcls.reporting.rounding import with_interval
from imgcls.reporting.run_scores import score_of, val_score
from imgcls.reporting.tables import markdown_table, terminal_table
from imgcls.statistics.intervals import Interval
from tests.reporting.records import trained


def test_with_interval_has_the_digits_of_the_interval():
    assert with_interval(0.8512, Interval(0.8079, 0.8861)) == "0.85 (0.81 to 0.89)"


@pytest.mark.parametrize(("metric", "words"), [("val/accuracy", "0.88 (0.84 to 0.91)"), ("val/loss", "0.35")])
def test_a_val_score_has_the_digits_of_its_images(metric, words):
    run = trained("run1", "train", 264 / 300, 0.3512)
    assert val_score(run, metric) == words
    assert score_of(run) == "val/accuracy 0.88 (0.84 to 0.91)"


def test_tables_escape_what_markdown_would_read():
    table = markdown_table(("a|b", "c"), [("*x*", "_y_ my_name"), ("<b>", "two\nlines")])
    assert table.splitlines() == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| \*x\* | \_y\_ my_name |",
        r"| \<b\> | two lines |",
    ]
    assert markdown_table(("&lt;", "R&D"), []).splitlines()[0] == r"| \&lt; | R&D |"


def test_terminal_table_aligns_values():
    assert terminal_table([("run", "abc"), ("test/accuracy", "0.87"), ("note", "two\nlines"), ("none", "")]) == (
        "run            abc\ntest/accuracy  0.87\nnote           two\n               lines\nnone"
    )


def test_terminal_table_of_nothing():
    assert terminal_table([]) == ""
