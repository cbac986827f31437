"""Plain `mlflow ui` on a fresh sweep's store, as a user sees it: the saved view, a run, its curves, its report."""

import json
import re

import pytest
from playwright.sync_api import expect


def test_the_printed_address_shows_winner_and_metric(swept, mlflow_ui, show):
    """Without a click: trials alone, the best first, with the selecting metric, the searched keys and the duration."""
    (printed,) = re.findall(r"http://127\.0\.0\.1:5000(/#/\S+)", swept.sweep_said)
    page = show(mlflow_ui + printed)
    names = page.locator(".ag-pinned-left-cols-container .ag-row")
    cells = page.locator(".ag-center-cols-container .ag-row")
    expect(names).to_have_count(len(swept.of_kind("trial")))
    winner = swept.winner
    expect(names.and_(page.locator("[row-index='0']"))).to_contain_text(winner.info.run_name)
    best = cells.and_(page.locator("[row-index='0']"))
    expect(best).to_contain_text(str(winner.data.metrics["val/accuracy_best"]))
    for column in ("val/accuracy_best", "train.lr", "train.warmup_epochs", "model.depth", "Duration"):
        expect(page.locator(".ag-header-cell", has_text=column)).to_be_visible()


@pytest.mark.parametrize("kind", ["sweep", "trial", "evaluation"])
def test_a_description_begins_with_the_score(swept, mlflow_ui, show, kind):
    """MLflow folds a description after three lines."""
    run = swept.winner if kind == "trial" else swept.of_kind(kind)[0]
    page = show(f"{mlflow_ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    expect(page.get_by_text("Description", exact=True)).to_be_visible()
    score = r"0\.\d+ \(0\.\d+ to [01]\.\d+\)"
    first = run.data.tags["mlflow.note.content"].partition("\n")[0]
    assert re.search(score, first), first
    expect(page.get_by_text(re.compile(score)).first).to_be_in_viewport()


def test_two_runs_are_compared(swept, mlflow_ui, show):
    ids = [run.info.run_id for run in swept.of_kind("trial")][:2]
    experiment = swept.experiment.experiment_id
    page = show(f"{mlflow_ui}/#/compare-runs?runs={json.dumps(ids)}&experiments={json.dumps([experiment])}")
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment").first).to_be_visible()
    for run_id in ids:
        expect(page.get_by_role("link", name=run_id)).to_be_visible()
    expect(page.locator(".js-plotly-plot").get_by_text(re.compile("^val/")).first).to_be_visible()


def test_a_run_shows_its_curves(swept, mlflow_ui, show):
    run = swept.winner.info
    page = show(f"{mlflow_ui}/#/experiments/{run.experiment_id}/runs/{run.run_id}/model-metrics")
    expect(page.locator(".js-plotly-plot .scatterlayer .trace path.js-line").first).to_be_attached()


def test_the_report_lies_in_the_artifacts_with_its_pictures(swept, mlflow_ui, show):
    (evaluation,) = swept.of_kind("evaluation")
    run = f"{mlflow_ui}/#/experiments/{evaluation.info.experiment_id}/runs/{evaluation.info.run_id}"
    page = show(f"{run}/artifacts/report/report.html")
    report = page.frame_locator("iframe").first
    expect(report.locator("h1").first).to_be_visible()
    pictures = report.locator("img")
    expect(pictures.first).to_be_attached()
    sizes = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sizes
    assert all(sizes)
