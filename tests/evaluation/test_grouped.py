"""Images in groups, from training to the reports: no interval anywhere takes them for independent."""

import io
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from imgcls.evaluation.compare import compare
from imgcls.evaluation.comparison_report import comparison_markdown
from imgcls.evaluation.judge import evaluate
from imgcls.reporting.run_scores import score_of
from imgcls.search.leaderboard import with_intervals
from imgcls.search.sweep import Sweep
from imgcls.statistics.intervals import wilson

TENS, FEW = r"data.groups='^(\d+?)\d?$'", r"data.groups='(\d)$'"
"""Groups of ten neighbours in the order of the data set, and ten groups in all."""


@pytest.fixture(scope="module")
def grouped(make_project):
    project = make_project()
    sweep = Sweep(project.experiment(TENS, "search.trials=2", "train.epochs=2"), project.tracker).run()
    other = project.train(TENS, "train.epochs=2", "train.lr=5e-3").run_id
    return SimpleNamespace(project=project, tracker=project.tracker, sweep=sweep, other=other)


def by_hand(table):
    """Wilson's interval with the design effect and Student's quantile, G - 1 degrees of freedom at most."""
    hits = (table["label"] == table["prediction"]).astype(float)
    share, num = hits.mean(), len(hits)
    balances = (hits - share).groupby(table["group"]).sum() / num
    groups = len(balances)
    effect = groups / (groups - 1) * (balances**2).sum() / (share * (1 - share) / num)
    return wilson(round(share * num / effect), round(num / effect), norm.ppf(student_t.cdf(2.1, groups - 1)))


def test_the_record_of_a_run_holds_its_groups_and_their_interval(grouped):
    run = grouped.project.client.get_run(grouped.other)
    table = pd.read_csv(io.StringIO(grouped.tracker.read_text(grouped.other, "predictions/val.csv")), dtype=str)
    assert run.data.tags["imgcls.num_val_groups"] == str(table["group"].nunique())
    low, high = (run.data.metrics[f"val/accuracy_best_{end}"] for end in ("low", "high"))
    expected = by_hand(table)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert low < run.data.metrics["val/accuracy_best"] < high
    accuracy, num = run.data.metrics["val/accuracy_best"], len(table)
    naive = wilson(round(accuracy * num), num)
    assert (low, high) != pytest.approx((naive.low, naive.high), abs=1e-6)
    assert f"{low:.2f} to {high:.2f}" in score_of(grouped.tracker.get(grouped.other))


def test_the_leaderboard_has_the_intervals_of_the_trials(grouped):
    board = grouped.sweep.leaderboard
    shown = with_intervals(board, grouped.sweep.num_val)
    for row, text in zip(board.itertuples(index=False), shown["val/accuracy"], strict=True):
        metrics = grouped.tracker.get(row.run_id).metrics
        assert f"({metrics['best/val/accuracy_low']:.2f} to {metrics['best/val/accuracy_high']:.2f})" in text
    assert "val/accuracy_low" not in shown
    report = grouped.tracker.read_text(grouped.sweep.run_id, "report/report.md")
    assert "groups, not images, as independent" in report and "Wilson" not in report


def test_an_evaluation_counts_groups_in_every_interval(grouped):
    result = evaluate(grouped.other, grouped.tracker)
    run = grouped.project.client.get_run(result.run_id)
    table = pd.read_csv(io.StringIO(grouped.tracker.read_text(result.run_id, "predictions/test.csv")), dtype=str)
    num_groups = table["group"].nunique()
    assert run.data.tags["imgcls.num_test_groups"] == str(num_groups)
    assert (run.data.metrics["test/accuracy_low"], run.data.metrics["test/accuracy_high"]) == pytest.approx(
        (by_hand(table).low, by_hand(table).high), abs=0.03
    )
    assert f"The images come in {num_groups} groups" in result.report
    assert "Wilson interval" not in result.report


def test_a_comparison_pairs_groups(grouped):
    found = compare([grouped.other, grouped.sweep.best_run_id], grouped.tracker)
    num_groups = int(grouped.tracker.get(grouped.other).tags["imgcls.num_val_groups"])
    assert found.val.num_groups == found.flat()["val/num_groups"] == num_groups
    assert f"The images come in {num_groups} groups" in comparison_markdown(found)
    metrics = grouped.tracker.get(grouped.other).metrics
    interval = found.val.intervals[1]
    assert (interval.low, interval.high) == pytest.approx(
        (metrics["best/val/accuracy_low"], metrics["best/val/accuracy_high"])
    )


@pytest.mark.slow
def test_too_few_groups_have_no_interval_anywhere(make_project, capsys):
    project = make_project()
    runs = [project.train(FEW, "train.epochs=2", f"train.lr={lr}").run_id for lr in (1e-2, 2e-2)]
    record = project.tracker.get(runs[0])
    assert int(record.tags["imgcls.num_val_groups"]) < 10
    assert "best/val/accuracy_low" not in record.metrics
    assert "(–)" in score_of(record) and "(–)" in capsys.readouterr().err
    found = compare(runs, project.tracker)
    assert found.val.pairs[0].interval is None and "fewer than 10 groups" in comparison_markdown(found)
    assert "val/accuracy_difference_low" not in found.flat()
