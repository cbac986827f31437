"""The benchmark measures for real, on a handful of images; what is asserted is its shape, never a time."""

import json
import math
import shutil
import sys
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from scipy.stats import norm
from sklearn import metrics

from benchmarks import averages, calibration, command, coverage, long_tail, luck_of_means
from benchmarks.arena import available, in_fresh_process, players
from benchmarks.contestant import ALL, BARE, MOVED_LIMIT, PEERS
from benchmarks.coverage import of_two_classes, simulate
from benchmarks.forms import PARTS, TINY
from benchmarks.growth import fit_exponent
from benchmarks.needs import require, sources_of
from benchmarks.report import markdown, summary, write_results
from benchmarks.threads import ratios as ratios_of_threads
from benchmarks.threads import sweep_for
from benchmarks.throughput import TURNS, compare, ratios
from benchmarks.works import make_work
from imgcls.data.sources import packaged
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import LEAST_GAIN, PRIOR_SD, temperature_fit

ROOT = Path(__file__).parent.parent

MACHINE = {
    "date": "2026-01-01", "processor": "a processor", "cores": 2, "torch_threads": 2, "memory_gb": 8, "gpu": "none",
    "system": "a system", "vector_instructions": "AVX2", "load_before": 0.0, "versions": {"torch": "0"},
}  # fmt: skip


SUMMARY = {
    "of_limit", "vs_best_peer", "sweep_vs_usual", "run_kept_beside_busy", "sweep_vs_one_worker", "tracker_share",
    "help_seconds",
}  # fmt: skip


def results(**parts):
    return {"form": "tiny", "command": "python -m benchmarks --tiny", "seconds": 1.0, "machine": MACHINE, **parts}


@pytest.mark.slow
def test_a_work_is_compared_for_real(tmp_path):
    form = replace(TINY, photos=8, watch_memory=False)
    told = []
    taking_part = ("ours", "limit_nchw", MOVED_LIMIT, "usual_2", "lightning", "timm")  # of each kind one
    with players(taking_part) as contestants:
        found = compare(
            make_work("photos", form, tmp_path), form, lambda share, what: told.append((share, what)), contestants
        )
    present = {name for name in taking_part if available(name)}
    limits = present & set(BARE)
    assert set(found["images_per_second"]) == present
    assert set(found["first_epoch_seconds"]) == present - limits
    assert found["left_out"] == sorted(name for name in ALL if not available(name))
    assert all(speed > 0 for speed in found["images_per_second"].values())
    assert len(told) == len(present) + TURNS * (1 + len(limits)) + 1 + len(present - {"ours", *BARE})
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    written = results(works={"photos": found})
    write_results(written, tmp_path, "RESULTS")
    assert json.loads((tmp_path / "RESULTS.json").read_text()) == written
    assert str(tmp_path) not in (tmp_path / "RESULTS.md").read_text()
    line = summary(written)
    assert set(line) == SUMMARY
    assert set(line["of_limit"]) == set(line["vs_best_peer"]) == {"photos"}


def test_ratios_are_medians_of_each_rounds_own_limit_and_best_peer():
    warm = [
        {"ours": 90.0, "limit_nchw": 100.0, "limit_channels_last": 80.0, "usual_0": 30.0, "timm": 45.0},
        {"ours": 60.0, "limit_nchw": 50.0, "limit_channels_last": 80.0},
        {"ours": 80.0, "limit_nchw": 100.0, "limit_channels_last": 90.0, "usual_0": 20.0, "timm": 10.0},
    ]
    found = ratios(warm, [{"ours": 2.0, "usual_0": 5.0, "timm": 3.0}])
    assert found["of_limit_rounds"] == pytest.approx([0.9, 0.75, 0.8])
    assert found["of_limit"] == pytest.approx(0.8)
    assert found["vs_best_peer"] == pytest.approx(3.0)
    assert found["best_peers"] == ["timm", "usual_0"]
    assert found["first_epoch_vs_best_peer"] == pytest.approx(1.5)


def test_ratios_of_threads_are_taken_within_a_round():
    rounds = [
        {
            "quiet": {"ours_auto": 100.0, "usual_0": 50.0, "sweep": 150.0, "sweep_before": 100.0},
            "beside a busy process": {"ours_auto": 60.0, "usual_0": 20.0, "sweep": 90.0, "sweep_before": 30.0},
        },
        {
            "quiet": {"ours_auto": 80.0, "usual_0": 20.0, "sweep": 80.0, "sweep_before": 80.0},
            "beside a busy process": {"ours_auto": 64.0, "usual_0": 32.0, "sweep": 80.0, "sweep_before": 16.0},
        },
    ]
    found = ratios_of_threads(rounds)
    assert found["kept_beside_busy"] == pytest.approx(
        {"ours_auto": 0.7, "usual_0": 1.0, "sweep": 0.8, "sweep_before": 0.25}
    )
    assert found["sweep_vs_one_worker"]["quiet"]["sweep_before"] == pytest.approx(1.25)
    assert found["sweep_vs_one_worker"]["beside a busy process"]["sweep_before"] == pytest.approx(4.0)
    assert found["run_vs_each"]["beside a busy process"] == pytest.approx({"usual_0": 2.5})
    written = results(threads={"what": "a work", "left_out": [], "rounds": rounds, "sweeps": {}, **found})
    assert summary(written)["run_kept_beside_busy"] == 0.7
    assert "| imgcls, sweep | 115 | 85 | **0.80** |" in markdown(written)


@pytest.mark.slow
def test_a_sweep_is_measured_while_it_goes_on(tmp_path):
    form = replace(TINY, solar_cells=24)
    work = make_work("solar_cells", form, tmp_path)
    changes = {"search.workers": 1, "train.threads": 1, "search.pruner": "none", "search.trials": 3}
    work = replace(work, experiment=work.experiment.replace(changes))
    images_per_second, chosen = in_fresh_process(sweep_for, work, 0.5)  # which it stops by a signal
    assert images_per_second > 0 and chosen == "1 worker of 1 thread"


@pytest.mark.parametrize(("power", "linear"), [(0.5, True), (1.0, True), (1.5, False)])
def test_growth_is_the_exponent_of_the_size(power, linear):
    points = [(size, 0.01 * size**power * (1 + 0.001 * wobble)) for size in (10, 100, 1000) for wobble in (-1, 0, 1)]
    found = fit_exponent(points)
    assert found["exponent"] == pytest.approx(power, abs=1e-3)
    assert found["last_step"] == pytest.approx(power, abs=1e-3)
    assert found["no_faster_than_linearly"] is linear


def test_parts_left_out_are_left_out_of_the_report():
    assert set(summary(results())) == SUMMARY
    assert "##" not in markdown(results())
    assert set(PARTS) >= {"works", "sweep", "growth"}
    assert not set(PEERS) & set(BARE)


@pytest.mark.parametrize(("num", "highest"), [(2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))])
def test_the_luck_of_equal_configurations_is_that_of_the_highest_of_so_many_draws(num, highest):
    """Expected highest of 2 and 3 standard normal draws (David and Nagaraja 2003, Order Statistics, 3.2)."""
    luck = luck_of_means.simulate(num, 10**12, num, 4, simulations=20_000, spread=0)
    std = 100 * luck_of_means.SEED_STD
    assert luck.trial == pytest.approx(std * highest, abs=5 * 2 * luck.error)
    assert luck.seeds == pytest.approx(std * highest / 2, abs=5 * luck.error)
    assert luck.images == pytest.approx(0, abs=1e-4)


def test_what_the_parts_read_is_known_before_they_begin():
    assert sources_of(TINY, PARTS) == ["elpv", "fashion-mnist"]
    assert sources_of(TINY, ["tracker"]) == ["elpv"]
    assert sources_of(replace(TINY, works=("photos", "large_photos")), ["works", "verbs", "growth"]) == []


@pytest.fixture
def no_fashion_mnist(monkeypatch, tmp_path):
    """Neither Debian's package nor torchvision's files, and no network that brings them."""
    monkeypatch.setattr(packaged, "FASHION_FOLDER", tmp_path / "not installed")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it reads the proxies once, and is kept for later tests


@pytest.mark.usefixtures("no_fashion_mnist")
def test_a_benchmark_whose_images_are_missing_does_not_begin(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        require(["digits", "fashion-mnist"], tmp_path)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("nothing was measured") and "apt-get install dataset-fashion-mnist" in said
    assert "elpv" not in said
    require(["digits"], tmp_path)


@pytest.mark.usefixtures("no_fashion_mnist")
def test_make_bench_quick_without_fashion_mnist_ends_before_it_measures(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "require", partial(require, root=tmp_path / "repository"))
    monkeypatch.setattr(command, "measure", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--output", str(tmp_path / "results")])
    with pytest.raises(SystemExit) as left:
        command.main()
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "") and "apt-get install dataset-fashion-mnist" in said.err
    assert not (tmp_path / "results").exists()


def test_what_was_measured_before_an_error_is_kept(capsys):
    measured = results(works={}) | {"summary": {}}
    with pytest.raises(ZeroDivisionError), command._kept_where_it_fails(measured, "RESULTS"):
        raise ZeroDivisionError
    folder = Path(capsys.readouterr().err.strip().removeprefix("what was measured before is in "))
    assert json.loads((folder / "RESULTS.json").read_text()) == measured
    shutil.rmtree(folder)


def test_a_cell_without_intervals_is_listed_and_no_part_of_the_extremes():
    cell = of_two_classes(60, 0.5, 0.86)
    found = simulate(cell, 40)
    assert found["without_interval"] == ["loss"]
    assert set(found["coverage"]) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc"}
    assert found == simulate(cell, 40)


def test_the_truth_of_two_classes_is_that_of_a_large_sample():
    cell, rng = of_two_classes(60, 0.2, 0.86), np.random.default_rng(0)
    # The population as the docstring describes it, scored by scikit-learn.
    labels = (rng.random(400_000) < 0.2).astype(int)
    distance = np.sqrt(2) * norm.ppf(0.86)
    log_odds = distance * (rng.standard_normal(400_000) + (labels - 0.5) * distance) + np.log(0.2 / 0.8)
    predictions = log_odds > 0
    assert cell.truth["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predictions), abs=0.004)
    assert cell.truth["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, predictions), abs=0.004
    )
    assert cell.truth["macro_f1"] == pytest.approx(metrics.f1_score(labels, predictions, average="macro"), abs=0.004)
    assert cell.truth["auroc"] == pytest.approx(metrics.roc_auc_score(labels, log_odds), abs=0.004)
    assert cell.truth["loss"] == pytest.approx(metrics.log_loss(labels, expit(log_odds)), abs=0.004)


def test_the_tables_of_uneven_classes_are_those_that_were_measured():
    page, measured = (ROOT / "docs" / "imbalance.md").read_text(), json.loads(long_tail.RESULTS.read_text())
    for of in measured.values():
        assert long_tail.as_table(of) in page
        assert of["seeds"] == list(long_tail.SEEDS)
        assert [way["way"] for way in of["ways"]] == list(long_tail.WAYS)
        assert of["train"] == long_tail.profile(of["train"][0], 10)


def test_a_long_tail_falls_by_equal_factors_and_keeps_images_of_each_class():
    assert long_tail.profile(100, 3) == [100, 14, 2]
    labels = np.random.default_rng(0).integers(0, 4, 600)
    tails = [long_tail.long_tail(labels, np.random.default_rng(seed)) for seed in range(5)]
    for rows in tails:
        assert len(set(rows.tolist())) == len(rows)
        nums = sorted(np.bincount(labels[rows], minlength=4).tolist(), reverse=True)
        assert nums == long_tail.profile(int(np.bincount(labels).min()), 4)
    assert len({int(np.bincount(labels[rows]).argmax()) for rows in tails}) > 1


def test_scores_of_a_long_tail_are_those_of_scikit_learn():
    rng, num_train = np.random.default_rng(1), np.array([60, 3, 20, 9])
    val = Predictions(rng.normal(size=(80, 4)), rng.integers(0, 4, 80))
    found, probs = long_tail.scored(val, num_train), np.exp(val.logits) / np.exp(val.logits).sum(axis=1, keepdims=True)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(val.labels, val.classes))
    recalls = metrics.recall_score(val.labels, val.classes, average=None)
    assert found["rare_recall"] == pytest.approx(recalls[1:].mean())
    for name, weights in (("balanced", np.ones(4)), ("as_train", num_train)):
        of_image = (weights / np.bincount(val.labels))[val.labels]
        loss = metrics.log_loss(val.labels, probs, sample_weight=of_image)
        assert found[f"loss_{name}"] == pytest.approx(loss)
        if name == "as_train":
            accuracy = metrics.accuracy_score(val.labels, val.classes, sample_weight=of_image)
            assert found["accuracy_as_train"] == pytest.approx(accuracy)
            f1 = metrics.precision_recall_fscore_support(val.labels, val.classes, sample_weight=of_image)[2]
            assert found["macro_f1_as_train"] == pytest.approx(f1.mean())


def test_the_tables_of_calibration_are_those_that_were_measured():
    page, measured = (ROOT / "docs" / "calibration.md").read_text(), json.loads(calibration.RESULTS.read_text())
    assert calibration.table(measured["halves"]) in page and calibration.table(measured["test"]) in page
    assert {one["seeds"] for one in measured["halves"]} == {len(calibration.SEEDS)}


def test_the_table_of_averages_is_the_one_that_was_measured():
    page, measured = (ROOT / "docs" / "averages.md").read_text(), json.loads(averages.RESULTS.read_text())
    assert averages.table(measured["averages"]) in page
    found = {(one["data"], one["average"]) for one in measured["averages"]}
    assert found == {(name, average.words) for name in averages.EXPERIMENTS for average in averages.AVERAGES}


def test_the_changes_of_an_average_are_paired_by_seed():
    plain, other = averages.AVERAGES[:2]
    of_seeds = [
        {plain.words: {"accuracy": 0.5, "loss": 1.0}, other.words: {"accuracy": 0.6, "loss": 0.9}},
        {plain.words: {"accuracy": 0.7, "loss": 0.5}, other.words: {"accuracy": 0.9, "loss": 0.5}},
    ]
    summary = averages._summary("digits", other, of_seeds)
    differences = stats.ttest_1samp([0.1, 0.2], 0).confidence_interval(0.95)
    assert summary["accuracy"] == pytest.approx(0.75) and summary["loss"] == pytest.approx(0.7)
    assert summary["accuracy_change"] == pytest.approx([0.15, differences.low, differences.high])


def test_the_rules_that_are_compared_find_the_temperature_of_the_rule_in_use():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(200, 3))
    labels = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    rule = calibration.Rule("", calibration.gamma(PRIOR_SD), LEAST_GAIN)
    predictions = Predictions(logits, labels)
    in_use = temperature_fit(predictions).temperature
    assert rule.fit(predictions) == pytest.approx(in_use, rel=1e-3) and in_use != 1


@pytest.mark.slow
def test_coverage_ends_with_one_line_of_json(monkeypatch, capsys):
    monkeypatch.setattr(coverage, "LARGE", 20_000)  # so the truth is less exact, which nobody asks for here
    monkeypatch.setattr(coverage, "_truth_of_five", coverage._truth_of_five.__wrapped__)  # kept for no other test
    monkeypatch.setattr(sys, "argv", ["benchmarks.coverage", "--simulations", "3", "--json"])
    coverage.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 <= found["min_coverage"] <= found["max_coverage"] <= 1
    assert found["simulations"] == 3
    assert "2 classes, 60 images, 5% positive, AUROC 0.86: loss" in found["without_interval"]
    assert len(found["cells"]) == 24 + 16 + 9 + 4
