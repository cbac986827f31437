import io
import json
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

from imgcls.errors import InputError
from imgcls.evaluation.compare import Pair, compare
from imgcls.evaluation.comparison_report import comparison_markdown, comparison_pictures, comparison_report
from imgcls.evaluation.judge import evaluate
from imgcls.reporting import drawing
from imgcls.search.sweep import Sweep
from imgcls.statistics.paired import holm, paired_difference_interval

VAL = "predictions/val.csv"


@pytest.fixture(scope="module")
def trained(make_project):
    """Two runs of one split, the second on larger images, and a sweep of one trial."""
    project = make_project()
    sweep = Sweep(project.experiment("search.trials=1", "train.epochs=2"), project.tracker)
    found = sweep.run()
    return SimpleNamespace(
        project=project,
        tracker=project.tracker,
        first=project.train("train.epochs=2").run_id,
        second=project.train("train.epochs=2", "train.lr=5e-3", "data.image_size=12").run_id,
        sweep=found.run_id,
        winner=found.best_run_id,
    )


@pytest.fixture(scope="module")
def comparison(trained):
    return compare([trained.first, trained.second], trained.tracker)


def predictions(trained, run_id, name=VAL):
    table = pd.read_csv(io.StringIO(trained.tracker.read_text(run_id, name)), dtype=str)
    return table.sort_values("digest", kind="stable", ignore_index=True)


def refused(trained, *run_ids, match):
    with pytest.raises(InputError, match=match):
        compare(run_ids, trained.tracker)


@contextmanager
def tagged(trained, run_id, key, value):
    before = trained.tracker.get(run_id).tags[key]
    trained.project.client.set_tag(run_id, key, value)
    yield
    trained.project.client.set_tag(run_id, key, before)


@contextmanager
def rewritten(trained, run_id, change):
    """The predictions of a run, changed for the length of the block."""
    with trained.tracker.fetch(run_id, VAL) as path:
        before = path.read_bytes()
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
        yield
        path.write_bytes(before)


def test_a_pair_is_what_scikit_learn_and_scipy_say_of_the_stored_predictions(trained, comparison):
    first, second = predictions(trained, trained.first), predictions(trained, trained.second)
    assert first["digest"].tolist() == second["digest"].tolist()
    assert first["digest"].is_unique
    right, other = first["label"] == first["prediction"], second["label"] == second["prediction"]
    (pair,) = comparison.val.pairs
    only_first, only_second = int((right & ~other).sum()), int((~right & other).sum())
    assert only_first + only_second > 0  # or the test below says nothing
    assert (pair.only_first, pair.only_second) == (only_first, only_second)
    assert (pair.both, pair.neither) == (int((right & other).sum()), int((~right & ~other).sum()))
    scores = [accuracy_score(table["label"], table["prediction"]) for table in (first, second)]
    assert pair.difference == pytest.approx(scores[0] - scores[1])
    assert pair.p_value == pytest.approx(binomtest(only_first, only_first + only_second).pvalue)
    assert pair.interval == paired_difference_interval(pair.both, only_first, only_second, pair.neither)
    recorded = [trained.tracker.get(run).metrics["best/val/accuracy"] for run in (trained.first, trained.second)]
    facts = comparison.flat()
    assert [facts["val/accuracy_1"], facts["val/accuracy_2"]] == recorded


def test_images_are_paired_by_content_and_not_by_their_order(trained, comparison):
    def shuffled(table):
        return table.sample(frac=1, random_state=0)

    with rewritten(trained, trained.second, shuffled):
        assert compare([trained.first, trained.second], trained.tracker).val == comparison.val


def test_equal_images_count_one_by_one(trained, comparison):
    def doubled(table):
        return pd.concat([table, table.head(40)])

    with rewritten(trained, trained.first, doubled), rewritten(trained, trained.second, doubled):
        val = compare([trained.first, trained.second], trained.tracker).val
    assert val.num_images == comparison.val.num_images + 40


def test_other_labels_are_refused(trained):
    def relabelled(table):
        return table.assign(label=np.where(table.index == 3, (table["label"].astype(int) + 1) % 10, table["label"]))

    with rewritten(trained, trained.second, relabelled):
        refused(trained, trained.first, trained.second, match="different images or labels .2 without a counterpart")


def test_missing_images_are_refused(trained):
    with rewritten(trained, trained.second, lambda table: table.iloc[:-1]):
        refused(trained, trained.first, trained.second, match=r"1 without a counterpart of \d+ and \d+")


def test_a_sweep_stands_for_its_winner_and_three_runs_are_corrected_for(trained):
    result = compare([trained.sweep, trained.first, trained.second], trained.tracker)
    assert [run.run_id for run in result.runs] == [trained.winner, trained.first, trained.second]
    assert [(pair.first, pair.second) for pair in result.val.pairs] == [(1, 2), (1, 3), (2, 3)]
    facts = result.flat()
    p_values = [facts[f"val/{a}_vs_{b}/mcnemar_p"] for a, b in combinations((1, 2, 3), 2)]
    assert [facts[f"val/{a}_vs_{b}/mcnemar_p_holm"] for a, b in combinations((1, 2, 3), 2)] == holm(p_values)
    text = comparison_markdown(result)
    assert "corrected for 3 pairs by Holm's method" in text
    assert "selected the epoch and the trial of run 1; the epoch of run 2; the epoch of run 3:" in text


def test_two_runs_need_no_correction(comparison):
    assert "Holm" not in comparison_markdown(comparison)
    assert not any("holm" in key or "_vs_" in key for key in comparison.flat())


def test_an_epoch_fixed_beforehand_was_not_selected_by_these_images(comparison):
    first, second = comparison.runs
    fixed = replace(first, params=first.params | {"train.score_epoch": "2"})
    one = comparison_markdown(replace(comparison, runs=(fixed, second)))
    assert "These images also selected the epoch of run 2:" in one
    neither = comparison_markdown(replace(comparison, runs=(fixed, replace(fixed, run_id="x"))))
    assert "also selected" not in neither


def test_a_leak_stands_beside_the_scores(comparison):
    first, second = comparison.runs
    leaking = replace(second, tags=second.tags | {"imgcls.leaks": "3 test images are also in *train*"})
    text = comparison_markdown(replace(comparison, runs=(first, leaking), test=comparison.val))
    assert text.count(r"**Warning:** run 2: Splits leak: 3 test images are also in \*train\*.") == 2
    assert "Warning" not in comparison_markdown(comparison)


def test_configs_and_curves_are_those_of_the_record(trained, comparison):
    assert comparison.differences["train.lr"] == ("0.02", "0.005")
    assert comparison.differences["data.image_size"] == ("8", "12")
    assert "train.epochs" not in comparison.differences
    assert "| train.lr | 0.02 | 0.005 |" in comparison_markdown(comparison)
    for run_id, history in zip((trained.first, trained.second), comparison.histories, strict=True):
        assert history["epoch"].tolist() == [1, 2]
        points = trained.project.client.get_metric_history(run_id, "val/loss")
        assert history["val/loss"].tolist() == [point.value for point in points]
    (picture,) = comparison_pictures(comparison)
    assert "Accuracy and loss" in picture.alt
    assert Image.open(io.BytesIO(picture.png)).width > 7 * drawing.DOTS_PER_INCH


def test_flat_facts_are_json(comparison):
    facts = json.loads(json.dumps(comparison.flat()))
    assert (
        facts["val/accuracy_difference_low"]
        <= facts["val/accuracy_difference"]
        <= facts["val/accuracy_difference_high"]
    )
    assert facts["val_selected_1"] == "epoch"


@pytest.mark.slow
def test_test_is_compared_where_every_run_was_evaluated_before(trained, comparison):
    # `comparison` was made before the evaluations here.
    runs, tracker = [trained.first, trained.second], trained.tracker
    assert comparison.test is None
    assert "Not evaluated yet: run 1, run 2; a comparison opens no test split." in comparison_markdown(comparison)
    first = evaluate(runs[0], tracker)
    assert compare(runs, tracker).test_note.startswith("Not evaluated yet: run 2;")
    second = evaluate(runs[1], tracker)
    result = compare(runs, tracker)
    assert result.test is not None
    assert result.test_note == ""
    assert len(trained.project.runs(kind="evaluation")) == 2  # comparing was no look
    tables = [predictions(trained, run, "predictions/test.csv") for run in (first.run_id, second.run_id)]
    right, other = (table["label"] == table["prediction"] for table in tables)
    (pair,) = result.test.pairs
    assert pair.difference == pytest.approx(first.test["accuracy"] - second.test["accuracy"])
    assert (pair.only_first, pair.only_second) == (int((right & ~other).sum()), int((~right & other).sum()))
    assert result.flat()["test/accuracy_2"] == second.test["accuracy"]
    with_sweep = compare([*runs, trained.sweep], tracker)
    assert with_sweep.test == result.test
    assert with_sweep.test_note.startswith("Not evaluated yet: run 3;")
    with tagged(trained, second.run_id, "imgcls.test_fingerprint", "another"):
        other_images = compare(runs, tracker)
    assert other_images.test is None
    assert "Evaluated on different test splits" in comparison_markdown(other_images)
    refused(trained, runs[0], second.run_id, match=f"itself an evaluation, of run {runs[1]}")


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_runs_are_refused(trained, num):
    refused(trained, *[trained.first][:num], match=f"at least two runs, and {num} came; name another")


def test_the_same_run_twice_is_refused(trained):
    refused(trained, trained.first, trained.first, match="are the same run")
    refused(trained, trained.sweep, trained.winner, match=f"{trained.sweep} and {trained.winner} are the same run")


def test_an_unknown_run_is_refused(trained):
    refused(trained, trained.first, "nonsense", match="no run 'nonsense'")


@pytest.mark.parametrize("outcome", ["running", "pruned", "interrupted", "failed"])
def test_a_run_that_did_not_complete_is_refused(trained, outcome):
    with tagged(trained, trained.second, "imgcls.outcome", outcome):
        refused(trained, trained.first, trained.second, match=rf"{trained.second} is not finished \({outcome}")


def test_a_sweep_without_winner_is_refused(trained):
    with tagged(trained, trained.sweep, "imgcls.best_run_id", ""):
        refused(trained, trained.first, trained.sweep, match="has no winner yet")


def test_a_run_without_predictions_is_refused(trained):
    with trained.tracker.fetch(trained.second, VAL) as path:
        hidden = path.rename(path.with_suffix(".hidden"))
    refused(trained, trained.first, trained.second, match=f"run {trained.second} has no artifact {VAL}")
    hidden.rename(path)


def test_other_splits_are_refused(trained):
    own = trained.tracker.get(trained.first).tags["imgcls.data_fingerprint"]
    with tagged(trained, trained.second, "imgcls.data_fingerprint", "another"):
        refused(trained, trained.first, trained.second, match=rf"fingerprints {own} and another\).*data.seed")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        # p of the best two alone is 0.023, as below
        ([(6, 18), (0, 1), (6, 18)], "cannot be told apart by these images: p is 0.068 after Holm, although the "
         "interval of this pair excludes 0."),
        ([(3, 30), (0, 1), (3, 30)], "differ by more than the luck of these images explains: p is below 0.0001 after "
         "Holm, and the interval of this pair excludes 0."),
        ([(6, 18)], "differ by more than the luck of these images explains: p is 0.023, and the interval of this pair "
         "excludes 0."),
        ([(9, 10)], "cannot be told apart by these images: p is 1, and the interval of this pair includes 0."),
    ],
)  # fmt: skip
def test_the_verdict_is_that_of_the_p_value_in_the_table(comparison, counts, said):
    numbers = list(combinations((1, 2, 3), 2))[: len(counts)]
    pairs = tuple(
        Pair(*of, both=60, only_first=one, only_second=other, neither=16,
             interval=paired_difference_interval(60, one, other, 16),
             p_value=binomtest(one, one + other).pvalue)
        for of, (one, other) in zip(numbers, counts, strict=True)
    )  # fmt: skip
    num_right = {1: 66, 2: 78, 3: 65} if len(counts) > 1 else {1: 66, 2: 78}
    intervals = dict.fromkeys(num_right, comparison.val.intervals[1])
    val = replace(comparison.val, num_images=100, num_right=num_right, intervals=intervals, pairs=pairs, scores={})
    runs = (comparison.runs * 2)[: len(num_right)]
    report = comparison_report(replace(comparison, val=val, runs=runs, histories=comparison.histories * 2))
    assert said in report.headline.meaning
